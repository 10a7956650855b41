"""``health``: the probe of a container, which must be right, and quick."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.cli.admin import ADMIN_HOST, ADMIN_PORT
from proxy.settings import AdminSettings
from tests.cli.files import write
from tests.cli.program import run, start


@pytest.fixture
async def admin(config: Path) -> AsyncIterator[str]:
    """The admin port of a running proxy."""
    async with await start("run", "--config", config) as program:
        yield (await program.said(r"admin on (http://127\.0\.0\.1:\d+)\n"))[1]


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A port that answers everything with this."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_proxy_that_runs_is_alive(admin: str) -> None:
    ended = await run("health", "--url", admin)
    assert (ended.code, ended.stdout) == (0, f"alive on {admin}\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_the_admin_port_is_the_configured_one_and_everywhere_means_here(
    admin: str, tmp_path: Path, host: str
) -> None:
    file = write(tmp_path / "health.toml", f'[admin]\nhost = "{host}"\nport = {admin.rpartition(":")[2]}\n')
    ended = await run("health", "--config", file)
    assert (ended.code, ended.stdout) == (0, f"alive on {admin}\n")


def test_its_defaults_are_those_of_the_configuration() -> None:
    admin = AdminSettings()
    assert (admin.host, admin.port) == (ADMIN_HOST, ADMIN_PORT)


async def test_no_proxy_is_not_alive() -> None:
    async with answering(b"") as port:
        pass
    ended = await run("health", "--url", f"http://127.0.0.1:{port}")
    assert ended.code == 1
    assert ended.stderr == f"Error: no proxy answers on http://127.0.0.1:{port} (Connection refused)\n"


@pytest.mark.parametrize(
    "answer,said",
    [
        (b"HTTP/1.1 500 No\r\nServer: genesys-auth-proxy\r\nContent-Length: 0\r\n\r\n", "answers 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "is no admin port of a genesys-auth-proxy"),
        (b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n", "is no admin port of a genesys-auth-proxy"),
        (b"SSH-2.0-x\r\n\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
async def test_anything_but_a_200_is_not_alive(answer: bytes, said: str) -> None:
    async with answering(answer) as port:
        ended = await run("health", "--url", f"http://127.0.0.1:{port}")
    assert ended.code == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "text,said",
    [
        (None, "no such file; name the admin port with --url"),
        ("[admin\n", "Expected ']'"),
        ('admin = "x"\n', "admin: expected a table"),
        ('[admin]\nport = "x"\n', "admin: expected a text for host and a number for port"),
        ("[admin]\nport = 0\n", "admin.port: 0 is any free port; name the one that was printed with --url"),
    ],
)
async def test_a_configuration_that_tells_no_admin_port_exits_2(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "proxy.toml"
    if text is not None:
        write(file, text)
    ended = await run("health", "--config", file)
    assert ended.code == 2
    assert ended.stderr.startswith(f"{file}: {said}")


async def test_without_a_file_or_its_name_the_default_port_is_asked(tmp_path: Path) -> None:
    ended = await run("health", folder=tmp_path)
    assert f"http://{ADMIN_HOST}:{ADMIN_PORT}" in ended.stdout + ended.stderr
    assert ended.code in (0, 1), "whether there is a proxy on that port is not ours to say"


@pytest.mark.parametrize("url", ["127.0.0.1:8081", "https://127.0.0.1:8081", "http://127.0.0.1:x", "http://"])
async def test_a_url_that_is_none_exits_2(url: str) -> None:
    ended = await run("health", "--url", url)
    assert ended.code == 2
    assert f"expected http://HOST:PORT (got {url})" in ended.stderr

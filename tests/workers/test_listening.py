"""``run --workers`` on a Unix socket and with TLS: each worker serves both, and takes up a new certificate."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import trustme

from proxy.cli.orgs import tenants_toml
from proxy.sandbox import DEFAULT_ORGS, Sandbox
from tests.support.certificates import authority
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import ECHO

PATIENCE = 30.0
TARGET = f"/t/acme{ECHO}"


@contextlib.asynccontextmanager
async def two_workers(listen: str) -> AsyncIterator[RunningProxy]:
    """A proxy of two workers, with these keys of ``[listen]``."""
    async with Sandbox() as sandbox:
        configuration = f"[listen]\n{listen}[admin]\nport = 0\n" + tenants_toml(sandbox.base_url, DEFAULT_ORGS)
        async with run_proxy(configuration, "--workers", "2") as proxy:
            yield proxy


async def pids(proxy: RunningProxy) -> list[int]:
    """Of the workers that serve."""
    async with aiohttp.ClientSession() as session, session.get(proxy.admin_url + "/status.json") as response:
        status: dict[str, Any] = await response.json()
    return [worker["pid"] for worker in status["workers"] if worker["pid"] is not None]


async def replaced(proxy: RunningProxy, pid: int) -> None:
    """Waits until two workers serve of which this is none."""
    async with asyncio.timeout(PATIENCE):
        while len(found := await pids(proxy)) != 2 or pid in found:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def over(path: Path) -> int:
    """The status of a request over a Unix socket."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://localhost" + TARGET, timeout=aiohttp.ClientTimeout(PATIENCE)) as response,
    ):
        return response.status


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_each_worker_serves_a_unix_socket_and_its_successor_does_too(tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    async with two_workers(f'unix_socket = "{path}"\nport = 0\n') as proxy:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        first, second = await pids(proxy)
        for silent in (first, second):
            with stopped(silent):  # so that the other has to
                assert await over(path) == 200
        os.kill(first, signal.SIGKILL)
        assert await over(path) == 200
        await replaced(proxy, first)
        with stopped(second):
            assert await over(path) == 200
        async with aiohttp.ClientSession() as session, session.get(proxy.url + TARGET) as response:
            assert response.status == 200, "the port is served beside it"
    assert not path.exists()


def certificate(folder: Path) -> trustme.LeafCert:
    """Writes a new one, and its key, over what is there."""
    leaf = authority().issue_cert("localhost")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "certificate.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    return leaf


async def shown(proxy: RunningProxy) -> bytes:
    """The certificate that a new connection is shown, on which a request then passes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", proxy.port, ssl=context, server_hostname="localhost"
        )
    try:
        writer.write(f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found
    finally:
        writer.transport.abort()


def der(leaf: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


async def test_all_workers_serve_tls_and_take_up_a_new_certificate(tmp_path: Path) -> None:
    first = certificate(tmp_path)
    keys = f'port = 0\ntls_certificate = "{tmp_path}/certificate.pem"\ntls_key = "{tmp_path}/key.pem"\n'
    async with two_workers(keys) as proxy:
        assert proxy.url.startswith("https://")
        # Each connection goes to a worker that the system chooses: of so many, some to each.
        assert {await shown(proxy) for _ in range(12)} == {der(first)}
        second = certificate(tmp_path)
        async with aiohttp.ClientSession() as session, session.post(proxy.admin_url + "/reload") as reloaded:
            assert reloaded.status == 200
        assert {await shown(proxy) for _ in range(12)} == {der(second)}
        [victim, _] = await pids(proxy)
        os.kill(victim, signal.SIGKILL)
        await replaced(proxy, victim)
        assert {await shown(proxy) for _ in range(12)} == {der(second)}
        with socket.create_connection((proxy.host, proxy.port), timeout=PATIENCE) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not plain.recv(1000).startswith(b"HTTP/"), "nothing is served without TLS"

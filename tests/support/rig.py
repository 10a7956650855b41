"""A proxy in this process between raw peers: a client, the API, and a token endpoint that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from proxy.app import Proxy
from proxy.core.report import RequestRecord
from proxy.settings import load
from tests.support.peers import Message, Peer, Server, open_peer
from tests.support.stages import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"


def request(
    method: str = "GET", target: str = "/api/v2/x", *fields: str, body: bytes = b"", version: str = "1.1",
    host: str = "localhost",
) -> bytes:  # fmt: skip
    """A whole request; a body brings its Content-Length."""
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answer(status: int = 200, *fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """A whole answer with Content-Length."""
    lines = [f"HTTP/{version} {status} Reason", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


class TokenEndpoint:
    """Gives ``token-1``, ``token-2``, … and counts.

    :ivar asked: how often it was asked
    :ivar answers: whole answers that it gives first
    :ivar open: while it is not set, nobody gets an answer
    """

    def __init__(self) -> None:
        self.asked = 0
        self.answers: deque[bytes] = deque()
        self.open = asyncio.Event()
        self.open.set()
        self.server = Server()

    async def run(self) -> None:
        """Serves until it is cancelled."""
        async with asyncio.TaskGroup() as conversations:
            while True:
                peer = await self.server.next()
                conversations.create_task(self._converse(peer), name="token endpoint's conversation")

    async def _converse(self, peer: Peer) -> None:
        peer.patience = None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await peer.message()
                self.asked += 1
                await self.open.wait()
                peer.send(self.answers.popleft() if self.answers else self.token())

    def token(self) -> bytes:
        """A whole answer with the token of this number."""
        token = {"access_token": f"token-{self.asked}", "token_type": "bearer", "expires_in": 86400}
        return answer(200, "Content-Type: application/json", body=json.dumps(token).encode())

    async def asked_for(self, count: int) -> None:
        """Waits until it was asked so often."""
        await until(lambda: self.asked >= count)


class Rig:
    """What ``rig`` builds.

    :ivar api: the raw upstream; ``accept()`` gives the proxy's next connection to it
    :ivar records: what the log was told of requests
    :ivar file: its configuration
    :ivar port: where the proxy listens
    """

    def __init__(
        self, proxy: Proxy, api: Server, tokens: TokenEndpoint, records: list[RequestRecord], file: Path
    ) -> None:
        self.proxy = proxy
        self.api = api
        self.tokens = tokens
        self.records = records
        self.file = file
        self.port = int(proxy.url.rpartition(":")[2]) if proxy.url.startswith("http") else 0

    def edit(self, old: str, new: str) -> None:
        """Puts ``new`` in place of ``old`` in the configuration, for a reload."""
        text = self.file.read_text("utf-8")
        assert old in text
        self.file.write_text(text.replace(old, new), "utf-8")

    def client(self, *, buffer: int | None = None) -> contextlib.AbstractAsyncContextManager[Peer]:
        """A raw client; see ``open_peer``."""
        return open_peer(self.port, buffer=buffer)

    async def exchange(
        self, client: Peer, sent: bytes, answered: bytes = OK, *, bodiless: bool = False
    ) -> tuple[Message, Message, Peer]:
        """One request over a new connection of the upstream: as it arrived there, and its answer here."""
        client.send(sent)
        upstream = await self.api.accept()
        arrived = await upstream.message()
        upstream.send(answered)
        return arrived, await client.message(bodiless=bodiless), upstream

    @property
    def upstream_connections(self) -> int:
        return self.proxy.report().upstream_connections

    @property
    def client_connections(self) -> int:
        return self.proxy.report().client_connections

    async def upstreams_gone(self) -> None:
        """Waits until the proxy holds no connection to an upstream."""
        await until(lambda: not self.upstream_connections)

    async def clients_gone(self) -> None:
        """Waits until the proxy serves nobody."""
        await until(lambda: not self.client_connections)


@contextlib.asynccontextmanager
async def rig(
    *,
    limits: Mapping[str, float] | None = None,
    access: Mapping[str, object] | None = None,
    upstream: Mapping[str, object] | None = None,
    tenants: Mapping[str, Mapping[str, object]] | None = None,
    api: Server | None = None,
    api_url: str = "http://127.0.0.1:{port}",
    routing: Mapping[str, object] | None = None,
    log: Mapping[str, object] | None = None,
    listen: Mapping[str, object] | None = None,
) -> AsyncIterator[Rig]:
    """A proxy on a free port, with one tenant unless there are others to be.

    :param limits: and the others: sections of the configuration
    :param tenants: by name, with the keys that differ from the rest
    :param api: the upstream, where it is to be another than a plain one
    """
    tokens = TokenEndpoint()
    api = api or Server()
    async with tokens.server, api:
        common = {
            "api_url": api_url.format(port=api.port),
            "login_url": f"http://127.0.0.1:{tokens.server.port}",
            "client_id": "id",
            "client_secret": "secret",
            "keep_warm": False,
        }
        sections: dict[str, Mapping[str, object]] = {
            "listen": listen or {"port": 0},
            "admin": {"port": 0},
            "store": {"url": "memory:"},
            "limits": limits or {},
            "access": access or {},
            "upstream": upstream or {},
            "routing": routing or {},
            "log": log or {},
            "defaults": common,
            **{f"tenants.{name}": keys for name, keys in (tenants or {"acme": {}}).items()},
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "proxy.toml")
            text = "".join(_section(name, keys) for name, keys in sections.items())
            file.write_text(text, encoding="utf-8")  # noqa: ASYNC240 before anything runs
            records: list[RequestRecord] = []
            proxy = Proxy(load(file), reread=lambda: load(file), journal=records.append)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(
                    "SSL_CERT_FILE", os.devnull
                )  # no test needs the system's authorities, which take long to read
                await proxy.start()
            issuing = asyncio.create_task(tokens.run(), name="token endpoint")  # noqa: TID251 cancelled here
            try:
                yield Rig(proxy, api, tokens, records, file)
            finally:
                await proxy.drain(0)
                issuing.cancel()
                await asyncio.wait({issuing})


def _section(name: str, keys: Mapping[str, object]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())


def _toml(value: object) -> str:
    match value:
        case Mapping():
            return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)

"""WebSockets through the tunnel as a library speaks them on both ends: ``websockets``, by its own rules."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode

from tests.support.peers import Server
from tests.support.rig import Rig, rig

pytestmark = pytest.mark.one_loop

Handler = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def through(handler: Handler, *, compression: str | None = "deflate") -> AsyncIterator[tuple[Rig, str]]:
    """The address of a WebSocket whose other end is ``handler``, behind the proxy."""
    async with serve(handler, "127.0.0.1", 0, compression=compression, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with rig(api=Server(), api_url=f"http://127.0.0.1:{port}") as proxy:
            yield proxy, f"ws://127.0.0.1:{proxy.port}/api/v2/notifications"


async def echo(peer: ServerConnection) -> None:
    async for message in peer:
        await peer.send(message)


@contextlib.asynccontextmanager
async def dialled(url: str, *, compression: str | None = "deflate") -> AsyncIterator[ClientConnection]:
    async with connect(url, compression=compression, max_size=None, proxy=None) as client:
        yield client


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 4_000_000])
async def test_messages_of_any_size_come_back_as_they_went(size: int, compression: str | None) -> None:
    async with through(echo, compression=compression) as (_, url), dialled(url, compression=compression) as client:
        for message in (os.urandom(size), "ä" * (size // 2)):
            await client.send(message)
            assert await client.recv() == message


async def test_compression_is_agreed_on_between_the_ends() -> None:
    seen: list[str] = []

    async def handler(peer: ServerConnection) -> None:
        seen.extend(type(extension).__name__ for extension in peer.protocol.extensions)
        await echo(peer)

    factory = ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9)
    async with (
        through(handler) as (_, url),
        connect(url, extensions=[factory], compression=None, proxy=None) as client,
    ):
        await client.send("x" * 100_000)
        assert await client.recv() == "x" * 100_000
        assert [type(extension).__name__ for extension in client.protocol.extensions] == seen == ["PerMessageDeflate"]


async def test_a_message_in_fragments_stays_in_fragments() -> None:
    async def handler(peer: ServerConnection) -> None:
        fragments = [fragment async for fragment in peer.recv_streaming()]
        await peer.send("|".join(str(fragment) for fragment in fragments))

    async with through(handler, compression=None) as (_, url), dialled(url, compression=None) as client:
        await client.send(["a", "bc", "", "def"])
        assert await client.recv() == "a|bc||def|"  # it ends a message in fragments with an empty one


async def test_pings_pass_in_the_middle_of_a_message_and_pongs_come_back() -> None:
    async with through(echo, compression=None) as (_, url), dialled(url, compression=None) as client:

        async def fragments() -> AsyncIterator[str]:
            yield "before, "
            async with asyncio.timeout(10):
                await (await client.ping(b"in the middle"))
            yield "after"

        await client.send(fragments())
        assert await client.recv() == "before, after"


async def test_what_the_server_says_first_arrives() -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.send("welcome")
        await echo(peer)

    async with through(handler) as (_, url), dialled(url) as client:
        assert await client.recv() == "welcome"


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_a_close_passes_with_its_code_and_reason(code: int) -> None:
    async def handler(peer: ServerConnection) -> None:
        await peer.recv()
        await peer.close(code, "because")

    async with through(handler) as (proxy, url):
        async with dialled(url) as client:
            await client.send("go")
            with pytest.raises((ConnectionClosedOK, ConnectionClosedError)) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "because")
        await proxy.clients_gone()
        await proxy.upstreams_gone()


async def test_a_frame_that_breaks_the_rules_is_for_the_ends_to_judge() -> None:
    async with through(echo, compression=None) as (_, url), dialled(url, compression=None) as client:
        client.transport.write(bytes([0x80 | Opcode.TEXT, 1]) + b"x")  # not masked (RFC 6455 5.1)
        with pytest.raises(ConnectionClosedError) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002


async def test_many_messages_both_ways_at_once_keep_their_order() -> None:
    async def handler(peer: ServerConnection) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(peer), name="downwards")
            tasks.create_task(receive(peer), name="upwards")

    async def send(peer: ServerConnection | ClientConnection) -> None:
        for number in range(500):
            await peer.send(str(number) * (number % 50 + 1))

    async def receive(peer: ServerConnection | ClientConnection) -> None:
        for number in range(500):
            assert await peer.recv() == str(number) * (number % 50 + 1)

    async with through(handler) as (_, url), dialled(url) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(send(client), name="upwards")
        tasks.create_task(receive(client), name="downwards")

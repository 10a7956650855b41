"""Tunnels: every byte both ways, ends as ends, resets as resets, and no faster than the slower side."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.core.urls import parse_base_url
from proxy.tls import client_context
from proxy.wire.frames import GOING_AWAY, close_frame
from proxy.wire.ports import bind, port_of
from proxy.wire.server import ClientConnection, Listener
from proxy.wire.tunnel import LAST_WORDS, Tunnel
from proxy.wire.upstream import Upstream
from tests.support.certificates import ca_file, server_context
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer, Server, open_peer
from tests.support.stages import until
from tests.wire.streams import limits, pair, refusal, say_and_break_off

LIMITS = limits()


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a tunnel, and what it holds open between them."""

    client: Peer
    upstream: Peer
    listener: Listener
    connections: Upstream

    async def gone(self) -> None:
        """Waits until nothing of the tunnel is left."""
        await until(lambda: not self.listener.connections and not self.connections.connections)


@contextlib.asynccontextmanager
async def tunnel(
    idle: float = 60, *, trusting: ssl.SSLContext | None = None, secure: frozenset[str] = frozenset(),
    early: bytes = b"", buffer: int | None = None,
) -> AsyncIterator[Ends]:  # fmt: skip
    """A tunnel between two raw peers.

    :param trusting: what the connections that are secure are made with
    :param secure: which connections are over TLS: "client", "upstream"
    :param early: what the client sends before there is a tunnel
    """
    async with Server(server_context("localhost") if "upstream" in secure else None, buffer=buffer) as server:
        scheme = "https" if "upstream" in secure else "http"
        base = parse_base_url(f"{scheme}://localhost:{server.port}")
        upstream = Upstream(base, trusting or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connect_timeout=5)

        async def serve(client: ClientConnection) -> None:
            through = Tunnel(client, await upstream.connect(5), idle)
            client.farewell = through.go_away
            await through.run()

        tls = "client" in secure
        listener = Listener(serve, refusal, LIMITS, tls=server_context("localhost") if tls else None)
        sockets = bind("127.0.0.1", 0)
        await listener.accept_on(sockets)
        try:
            async with open_peer(port_of(sockets), buffer=buffer, tls=trusting if tls else None) as client:
                client.send(early)
                yield Ends(client, await server.accept(), listener, upstream)
        finally:
            await listener.drain(0)


async def test_bytes_go_both_ways_as_they_are() -> None:
    everything = bytes(range(256)) * 300
    async with tunnel() as ends:
        for _ in range(3):
            ends.client.send(everything)
            assert await ends.upstream.read(len(everything)) == everything
            ends.upstream.send(everything)
            assert await ends.client.read(len(everything)) == everything


async def test_megabytes_go_both_ways_at_once() -> None:
    size = 5 << 20
    async with tunnel() as ends:
        ends.client.send(b"c" * size)
        ends.upstream.send(b"u" * size)
        up, down = await asyncio.gather(ends.upstream.read(size), ends.client.read(size))
        assert (up, down) == (b"c" * size, b"u" * size)


async def test_what_came_before_the_tunnel_goes_through_it() -> None:
    async with tunnel(early=b"early") as ends:
        assert await ends.upstream.read(5) == b"early"


async def test_an_end_is_passed_on_and_the_other_direction_stays_open() -> None:
    async with tunnel() as ends:
        ends.client.send(b"last")
        ends.client.end()
        assert await ends.upstream.rest() == b"last"
        for _ in range(3):
            ends.upstream.send(b"still")
            assert await ends.client.read(5) == b"still"
        ends.upstream.end()
        assert await ends.client.rest() == b""
        await ends.gone()


async def test_the_upstreams_end_is_passed_on_and_the_other_direction_stays_open() -> None:
    async with tunnel() as ends:
        ends.upstream.send(b"last")
        ends.upstream.end()
        assert await ends.client.rest() == b"last"
        ends.client.send(b"still")
        assert await ends.upstream.read(5) == b"still"
        ends.client.end()
        assert await ends.upstream.rest() == b""
        await ends.gone()


@pytest.mark.parametrize("busy", [False, True])
async def test_a_clients_reset_is_one_for_the_upstream(busy: bool) -> None:
    async with tunnel() as ends:
        if busy:
            ends.client.send(b"x" * 1000)
            await ends.upstream.read(1000)
        ends.client.reset()
        assert not await ends.upstream.ended()
        await ends.gone()


async def test_an_upstreams_reset_is_one_for_the_client() -> None:
    async with tunnel() as ends:
        ends.upstream.reset()
        assert not await ends.client.ended()
        await ends.gone()


async def test_last_words_before_a_reset_are_not_lost_by_what_the_other_side_sends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base = parse_base_url(f"http://127.0.0.1:{listening.getsockname()[1]}")
        upstream = Upstream(base, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connect_timeout=5)
        connection = await upstream.connect(5)
        async with pair() as (stream, client):
            client.send(b"chatter")
            await until(lambda: stream.buffer == b"chatter")
            say_and_break_off(listening, b"last words")
            await Tunnel(stream, connection, 5).run()
            assert await client.read(10) == b"last words"


async def test_silence_on_both_sides_ends_a_tunnel_in_order() -> None:
    async with tunnel(idle=0.15) as ends:
        assert await ends.client.ended()
        assert await ends.upstream.ended()
        await ends.gone()


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_one_side_that_talks_keeps_a_tunnel_open(clock: SkippingLoop, side: str) -> None:
    async with tunnel(idle=3600) as ends:
        talker, listener = (ends.client, ends.upstream) if side == "client" else (ends.upstream, ends.client)
        for _ in range(3):
            await clock.skip(2000)
            talker.send(b"x")
            assert await listener.read(1) == b"x"
        await clock.skip(3601)
        assert await listener.ended()
        await ends.gone()


async def test_a_long_silence_is_no_end_before_its_time(clock: SkippingLoop) -> None:
    async with tunnel(idle=3600) as ends:
        await clock.skip(3500)
        ends.upstream.send(b"x")
        assert await ends.client.read(1) == b"x"
        await clock.skip(3500)
        ends.client.send(b"y")
        assert await ends.upstream.read(1) == b"y"
        await clock.skip(3601)
        assert await ends.client.ended()
        await ends.gone()


@pytest.mark.parametrize("slow", ["client", "upstream"])
async def test_a_side_that_does_not_read_stops_the_other(slow: str) -> None:
    async with tunnel(buffer=16384) as ends:
        sender, receiver = (ends.upstream, ends.client) if slow == "client" else (ends.client, ends.upstream)
        receiver.stop_reading()
        sent = await sender.push(64 << 20)
        assert sent < 32 << 20  # most of it in the kernel's buffers
        receiver.resume_reading()
        await receiver.read(sent)


async def test_a_side_that_never_reads_does_not_keep_a_tunnel_for_ever(clock: SkippingLoop) -> None:
    async with tunnel(idle=30, buffer=16384) as ends:
        ends.client.stop_reading()
        await ends.upstream.push(32 << 20)
        await clock.skip(31)
        await clock.skip(10)
        await ends.gone()


async def test_draining_breaks_a_tunnel_off_when_patience_is_over() -> None:
    async with tunnel() as ends:
        for sender, receiver in ((ends.client, ends.upstream), (ends.upstream, ends.client)):
            sender.send(b"\x82\x7dneither frame ends")
            await receiver.until(b"ends")
        await ends.listener.drain(0.05)
        assert not await ends.client.ended()
        assert not await ends.upstream.ended()
        await ends.gone()


@pytest.mark.parametrize("busy", [False, True])
async def test_both_sides_are_told_that_we_go_away(busy: bool) -> None:
    async with tunnel() as ends:
        if busy:
            ends.client.send(b"\x81\x81", bytes(4), b"a")
            assert await ends.upstream.read(7) == b"\x81\x81" + bytes(4) + b"a"
        (client,) = ends.listener.connections
        await until(lambda: client.farewell is not None)
        assert client.farewell is not None
        client.farewell()
        assert await ends.client.rest() == close_frame(masked=False)
        key, code = (said := await ends.upstream.rest())[2:6], said[6:]
        assert (said[:2], bytes(a ^ b for a, b in zip(key, code, strict=False))) == (b"\x88\x82", GOING_AWAY)
        ends.client.end()
        ends.upstream.end()
        await ends.gone()


# --- over TLS, which can't be half-closed ---


def secure_tunnel(
    folder: Path, idle: float = 60, *, sides: frozenset[str] = frozenset({"upstream"}), buffer: int | None = None
) -> contextlib.AbstractAsyncContextManager[Ends]:
    return tunnel(idle, trusting=client_context(ca_file(folder)), secure=sides, buffer=buffer)


async def test_bytes_go_both_ways_through_tls(tmp_path: Path) -> None:
    async with secure_tunnel(tmp_path) as ends:
        ends.client.send(b"c" * 1_000_000)
        ends.upstream.send(b"u" * 1_000_000)
        assert await ends.upstream.read(1_000_000) == b"c" * 1_000_000
        assert await ends.client.read(1_000_000) == b"u" * 1_000_000


async def test_the_last_words_of_an_upstream_that_closes_tls_arrive_and_then_an_end(tmp_path: Path) -> None:
    async with secure_tunnel(tmp_path) as ends:
        ends.upstream.send(b"u" * 100_000, b"bye")
        ends.upstream.close()
        assert await ends.client.rest() == b"u" * 100_000 + b"bye"
        ends.client.close()
        await ends.gone()


async def test_the_last_words_through_tls_reach_a_client_that_reads_late(tmp_path: Path) -> None:
    async with secure_tunnel(tmp_path) as ends:
        ends.client.stop_reading()
        ends.upstream.send(b"u" * 3_000_000, b"bye")
        ends.upstream.close()
        await asyncio.sleep(0.1)
        ends.client.resume_reading()
        assert (await ends.client.rest())[-5:] == b"uubye"
        ends.client.close()
        await ends.gone()


async def test_a_client_that_ends_still_gets_the_upstreams_last_words_through_tls(
    tmp_path: Path, clock: SkippingLoop
) -> None:
    async with secure_tunnel(tmp_path, idle=3600) as ends:
        ends.client.send(b"bye")
        ends.client.end()
        assert await ends.upstream.read(3) == b"bye"
        await clock.skip(LAST_WORDS / 2)
        ends.upstream.send(b"bye, bye")
        assert await ends.client.read(8) == b"bye, bye"
        await clock.skip(LAST_WORDS / 2 + 0.1)
        assert await ends.client.ended()
        assert await ends.upstream.ended()
        await ends.gone()


async def test_a_clients_reset_ends_a_tunnel_over_tls(tmp_path: Path) -> None:
    async with secure_tunnel(tmp_path) as ends:
        ends.client.reset()
        await ends.upstream.ended()
        await ends.gone()


CLIENT_OVER_TLS = pytest.mark.parametrize(
    "sides", [frozenset({"client"}), frozenset({"client", "upstream"})], ids=["TCP behind", "TLS behind"]
)


@CLIENT_OVER_TLS
async def test_bytes_go_both_ways_to_a_client_over_tls(tmp_path: Path, sides: frozenset[str]) -> None:
    async with secure_tunnel(tmp_path, sides=sides) as ends:
        ends.client.send(b"c" * 1_000_000)
        ends.upstream.send(b"u" * 1_000_000)
        assert await ends.upstream.read(1_000_000) == b"c" * 1_000_000
        assert await ends.client.read(1_000_000) == b"u" * 1_000_000


@CLIENT_OVER_TLS
async def test_a_client_over_tls_is_told_at_once_that_the_upstream_has_ended(
    tmp_path: Path, sides: frozenset[str]
) -> None:
    async with secure_tunnel(tmp_path, sides=sides) as ends:
        ends.upstream.send(b"u" * 100_000, b"bye")
        ends.upstream.close() if "upstream" in sides else ends.upstream.end()
        async with asyncio.timeout(LAST_WORDS / 2):
            assert await ends.client.rest() == b"u" * 100_000 + b"bye"
        assert await ends.upstream.ended()
        await ends.gone()


@CLIENT_OVER_TLS
async def test_the_last_words_of_a_client_over_tls_arrive_and_then_an_end(
    tmp_path: Path, sides: frozenset[str]
) -> None:
    async with secure_tunnel(tmp_path, sides=sides) as ends:
        ends.client.send(b"c" * 100_000, b"bye")
        ends.client.close()
        async with asyncio.timeout(LAST_WORDS / 2):
            assert await ends.upstream.rest() == b"c" * 100_000 + b"bye"
        await ends.gone()


@CLIENT_OVER_TLS
async def test_the_last_words_of_a_client_over_tls_reach_an_upstream_that_is_slow(
    tmp_path: Path, sides: frozenset[str]
) -> None:
    async with secure_tunnel(tmp_path, sides=sides, buffer=16384) as ends:
        ends.upstream.stop_reading()
        sent = await ends.client.push(64 << 20, b"c" * 65536)
        ends.client.send(b"bye")
        ends.client.close()
        ends.upstream.resume_reading()
        got = bytearray()
        # No faster than its end comes through, so that the rest is still on its way here.
        while ends.listener.connections and (piece := await ends.upstream.some()):
            got += piece
        got += await ends.upstream.rest()
        assert got.strip(b"c") == b"bye"
        assert len(got) == sent + 65536 + 3
        await ends.gone()


async def test_the_reset_of_a_client_over_tls_is_one_for_the_upstream(tmp_path: Path) -> None:
    async with secure_tunnel(tmp_path, sides=frozenset({"client"})) as ends:
        ends.client.send(b"x")
        assert await ends.upstream.read(1) == b"x"
        ends.client.reset()
        assert not await ends.upstream.ended()
        await ends.gone()


@pytest.mark.parametrize(
    "sides", [frozenset({"upstream"}), frozenset({"client", "upstream"})], ids=["client over TCP", "client over TLS"]
)
async def test_the_last_words_of_an_upstream_over_tls_reach_a_client_that_is_talking(
    tmp_path: Path, sides: frozenset[str]
) -> None:
    async with secure_tunnel(tmp_path, sides=sides) as ends:
        async with asyncio.TaskGroup() as tasks:
            talking = tasks.create_task(chatter(ends.client), name="chatter")
            await ends.upstream.read(100_000)
            ends.upstream.send(b"enough")
            ends.upstream.close()
            assert await ends.client.rest() == b"enough"
            talking.cancel()
        ends.client.close()
        await ends.gone()


async def chatter(peer: Peer) -> None:
    while True:
        peer.send(b"x" * 16384)
        await asyncio.sleep(0.001)


@CLIENT_OVER_TLS
async def test_a_client_over_tls_in_the_middle_of_its_words_gets_a_close_and_may_answer_it(
    tmp_path: Path, sides: frozenset[str]
) -> None:
    async with secure_tunnel(tmp_path, sides=sides) as ends:
        said = close_frame(masked=False)
        ends.client.send(b"\x82\xff" + (300_000).to_bytes(8, "big") + bytes(4 + 100_000))
        await ends.upstream.read(100_000)
        ends.upstream.send(said)
        ends.upstream.close() if "upstream" in sides else ends.upstream.end()
        assert await ends.client.read(len(said)) == said
        for _ in range(20):
            ends.client.send(bytes(10_000))
            assert await ends.client.silent(0.01)
        ends.client.send(close_frame(masked=True))
        async with asyncio.timeout(LAST_WORDS / 2):
            assert await ends.client.rest() == b""
        await ends.gone()

"""Connections to upstreams: how they are made, kept, given up, and what each failure is called."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.core.urls import BaseUrl, parse_base_url
from proxy.errors import (
    ClientClosed,
    UpstreamClosed,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilent,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from proxy.tls import client_context
from proxy.wire.stream import HIGH_WATER
from proxy.wire.syntax import ResponseHead
from proxy.wire.upstream import LONGEST_IDLE, MOST_IDLE, Upstream, UpstreamConnection
from tests.support.certificates import ca_file, server_context
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer, Server
from tests.support.stages import until
from tests.wire.streams import goes_on

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LIMIT = 4096


def upstream_at(url: str, tls: ssl.SSLContext | None = None, *, connect_timeout: float = 5.0) -> Upstream:
    return Upstream(
        parse_base_url(url), tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connect_timeout=connect_timeout
    )


@contextlib.asynccontextmanager
async def connected(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Upstream, UpstreamConnection, Peer]]:
    """An upstream, a connection to it, and its other end."""
    async with Server() as server:
        upstream = upstream_at(f"http://127.0.0.1:{server.port}")
        connection = await upstream.connect(5)
        try:
            yield upstream, connection, await server.accept()
        finally:
            upstream.close()
            connection.abort()


async def forgotten(upstream: Upstream) -> None:
    await until(lambda: not upstream.connections)


async def head_of(connection: UpstreamConnection, seconds: float = 2.0) -> ResponseHead:
    return await connection.receive_response(LIMIT, connection.loop.time() + seconds)


# --- making a connection ---


async def test_a_connection_counts_from_its_beginning_to_its_end() -> None:
    async with connected() as (upstream, connection, peer):
        assert upstream.connections == 1
        connection.write(b"hello")
        assert await peer.read(5) == b"hello"
        peer.close()
        connection.close()
        await forgotten(upstream)


async def test_a_port_where_nobody_listens_is_refused() -> None:
    async with Server() as server:
        server.stop()
        for name in ("127.0.0.1", "localhost"):
            upstream = upstream_at(f"http://{name}:{server.port}")
            with pytest.raises(UpstreamUnreachable) as error:
                await upstream.connect(5)
            assert error.value.kind == "connection_refused"
            assert str(error.value) == f"The upstream {name}:{server.port} refuses connections."
            assert upstream.connections == 0


async def test_a_name_that_is_not_found_is_told() -> None:
    base = BaseUrl("http", "no such host", 80)  # which no resolver need be asked for
    upstream = Upstream(base, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connect_timeout=5)
    with pytest.raises(UpstreamUnreachable) as error:
        await upstream.connect(5)
    assert error.value.kind == "dns_error"
    assert str(error.value) == "The upstream's name no such host is not found."


@pytest.mark.parametrize(("connect_timeout", "patience"), [(0.1, 60.0), (60.0, 0.1)])
async def test_a_connection_that_takes_too_long_is_given_up(connect_timeout: float, patience: float) -> None:
    async with Server() as server:  # which never says a word of TLS
        upstream = upstream_at(f"https://127.0.0.1:{server.port}", connect_timeout=connect_timeout)
        with pytest.raises(UpstreamTimeout) as error:
            async with asyncio.timeout(10):
                await upstream.connect(patience)
        assert error.value.kind == "connection_timeout"
        assert f"127.0.0.1:{server.port}" in str(error.value)
        await (await server.accept()).ended()
        assert upstream.connections == 0


async def test_whoever_gives_up_while_a_connection_is_made_leaves_none() -> None:
    async with Server() as server:
        upstream = upstream_at(f"https://127.0.0.1:{server.port}")
        connecting = asyncio.gather(upstream.connect(5))
        peer = await server.accept()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await peer.ended()
        assert upstream.connections == 0


# --- TLS ---


async def test_tls_is_verified_by_an_authority_of_our_own(tmp_path: Path) -> None:
    async with Server(server_context("localhost")) as server:
        upstream = upstream_at(f"https://localhost:{server.port}", client_context(ca_file(tmp_path)))
        connection = await upstream.connect(5)
        peer = await server.accept()
        connection.write(b"hello")
        assert await peer.read(5) == b"hello"
        peer.send(OK)
        assert (await head_of(connection)).status == 200
        upstream.release(connection)
        assert upstream.reuse() is connection
        peer.close()
        connection.close()
        await forgotten(upstream)


@pytest.mark.parametrize(
    ("name", "trusted"), [("localhost", False), ("another.example", True)], ids=["unknown authority", "wrong name"]
)
async def test_tls_that_can_not_be_verified_is_refused(tmp_path: Path, name: str, trusted: bool) -> None:
    async with Server(server_context(name, trusted=trusted)) as server:
        upstream = upstream_at(f"https://localhost:{server.port}", client_context(ca_file(tmp_path)))
        with pytest.raises(UpstreamUnreachable) as error:
            await upstream.connect(5)
        assert error.value.kind == "tls_certificate_error"
        assert "upstream.ca_file" in str(error.value)
        assert upstream.connections == 0
        assert server.connections == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_a_server_that_speaks_no_tls_1_2_is_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    old = server_context("localhost")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version = old.maximum_version = version
    async with Server(old) as server:
        upstream = upstream_at(f"https://localhost:{server.port}", client_context(ca_file(tmp_path)))
        with pytest.raises(UpstreamUnreachable):
            await upstream.connect(5)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        (await upstream.connect(5)).abort()
        await forgotten(upstream)


async def test_a_server_that_speaks_no_tls_is_told_from_one_that_is_not_trusted() -> None:
    async with Server() as server:
        upstream = upstream_at(f"https://localhost:{server.port}")
        connecting = asyncio.gather(upstream.connect(5), return_exceptions=True)
        (await server.accept()).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        error = (await connecting)[0]
        assert isinstance(error, UpstreamUnreachable)
        assert error.kind == "tls_protocol_error"


async def test_a_server_that_breaks_off_the_handshake_is_unreachable() -> None:
    async with Server() as server:
        upstream = upstream_at(f"https://localhost:{server.port}")
        connecting = asyncio.gather(upstream.connect(5), return_exceptions=True)
        (await server.accept()).reset()
        assert isinstance((await connecting)[0], UpstreamUnreachable)


# --- keeping a connection ---


async def test_a_released_connection_is_used_again_and_the_last_one_first() -> None:
    async with Server() as server:
        upstream = upstream_at(f"http://127.0.0.1:{server.port}")
        first, second = await upstream.connect(5), await upstream.connect(5)
        assert not first.reused
        upstream.release(first)
        upstream.release(second)
        assert [upstream.reuse() for _ in range(3)] == [second, first, None]
        assert [first.reused, second.reused] == [True, True]
        for connection in first, second:
            connection.abort()
        await forgotten(upstream)


async def test_a_connection_that_was_unused_while_the_machine_slept_is_not_used_again() -> None:
    asleep = 0.0
    async with Server() as server:
        base, tls = parse_base_url(f"http://127.0.0.1:{server.port}"), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        upstream = Upstream(base, tls, connect_timeout=5, clock=lambda: time.monotonic() + asleep)
        connection = await upstream.connect(5)
        upstream.release(connection)
        asleep = LONGEST_IDLE - 5
        assert upstream.reuse() is connection
        upstream.release(connection)
        asleep += LONGEST_IDLE
        assert upstream.reuse() is None
        await forgotten(upstream)


async def test_an_unused_connection_that_the_upstream_closes_is_not_used_again() -> None:
    async with connected() as (upstream, connection, peer):
        upstream.release(connection)
        peer.close()
        await forgotten(upstream)
        assert upstream.reuse() is None


async def test_bytes_that_nobody_asked_for_end_an_unused_connection() -> None:
    async with connected() as (upstream, connection, peer):
        upstream.release(connection)
        peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await forgotten(upstream)
        assert upstream.reuse() is None


async def test_a_connection_that_is_ending_in_this_very_moment_is_not_used_again() -> None:
    async with Server() as server:
        upstream = upstream_at(f"http://127.0.0.1:{server.port}")
        ended, surprised, closed, open_one = [await upstream.connect(5) for _ in range(4)]
        for connection in open_one, closed, surprised, ended:
            upstream.release(connection)
        ended.eof_received()
        surprised.data_received(b"x")
        closed.close()
        assert [upstream.reuse() for _ in range(2)] == [open_one, None]
        for connection in ended, surprised, closed, open_one:
            connection.close()
        await forgotten(upstream)


async def test_bytes_behind_an_answer_end_its_connection() -> None:
    async with connected() as (upstream, connection, peer):
        peer.send(OK, b"x")
        await head_of(connection)
        upstream.release(connection)
        assert upstream.reuse() is None
        assert await peer.ended() in (True, False)
        await forgotten(upstream)


@pytest.mark.parametrize("surplus", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"])
async def test_an_unused_connection_is_watched_although_much_had_piled_up_on_it_before(surplus: bytes) -> None:
    async with connected() as (upstream, connection, peer):
        connection.data_received(b"x" * HIGH_WATER)  # reading pauses, and all of it is taken at once
        connection.buffer = b""
        upstream.release(connection)
        peer.send(surplus)
        peer.end()
        await forgotten(upstream)
        assert upstream.reuse() is None


async def test_an_unused_connection_is_closed_before_load_balancers_do(clock: SkippingLoop) -> None:
    async with connected() as (upstream, connection, peer):
        upstream.release(connection)
        await clock.skip(LONGEST_IDLE - 1)
        assert upstream.reuse() is connection
        upstream.release(connection)
        await clock.skip(LONGEST_IDLE - 1)
        assert upstream.connections == 1
        await clock.skip(2)
        assert upstream.reuse() is None
        assert await peer.ended()


async def test_a_used_connection_does_not_expire_like_an_unused_one(clock: SkippingLoop) -> None:
    async with connected() as (upstream, connection, peer):
        upstream.release(connection)
        assert upstream.reuse() is connection
        await clock.skip(LONGEST_IDLE * 2)
        assert not connection.closing
        peer.send(OK)
        assert (await head_of(connection)).status == 200


async def test_only_so_many_unused_connections_are_kept() -> None:
    async with Server() as server:
        upstream = upstream_at(f"http://127.0.0.1:{server.port}")
        connections = [await upstream.connect(5) for _ in range(MOST_IDLE + 2)]
        for connection in connections:
            upstream.release(connection)
        await until(lambda: upstream.connections <= MOST_IDLE)
        upstream.close()
        await forgotten(upstream)


async def test_closing_ends_unused_connections_at_once_and_used_ones_when_they_are_released() -> None:
    async with Server() as server:
        upstream = upstream_at(f"http://127.0.0.1:{server.port}")
        used, unused = await upstream.connect(5), await upstream.connect(5)
        upstream.release(unused)
        upstream.close()
        await asyncio.sleep(0.01)
        assert upstream.connections == 1
        assert not used.closing
        upstream.release(used)
        await forgotten(upstream)


# --- answers ---


async def test_a_head_is_the_same_at_every_split() -> None:
    whole = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    async with connected() as (_, connection, peer):
        for at in range(1, len(whole)):
            reading = asyncio.gather(head_of(connection))
            peer.send(whole[:at])
            await asyncio.sleep(0.001)
            peer.send(whole[at:])
            (answer,) = await reading
            assert (answer.status, answer.fields.get(b"a")) == (200, b"b")


async def test_heads_that_arrive_together_are_given_one_by_one() -> None:
    async with connected() as (_, connection, peer):
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK)
        assert [(await head_of(connection)).status for _ in range(3)] == [100, 103, 200]


@pytest.mark.parametrize(
    ("sent", "reset", "error", "kind"),
    [
        (b"", False, UpstreamSilent, "connection_terminated"),
        (b"", True, UpstreamSilent, "connection_terminated"),
        (b"HTTP/1.1 2", False, UpstreamClosed, "connection_terminated"),
        (b"HTTP/1.1 2", True, UpstreamClosed, "connection_terminated"),
        (b"HTTP/1.1 200 OK\nA: b\n\n", False, UpstreamProtocolError, "http_protocol_error"),
        (b"HTP/1.1 200 OK\r\n\r\n", False, UpstreamProtocolError, "http_protocol_error"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * LIMIT, False, UpstreamProtocolError, "http_protocol_error"),
        (b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n", False, UpstreamProtocolError, "http_protocol_error"),
    ],
)
async def test_what_is_no_answer_is_told(sent: bytes, reset: bool, error: type[UpstreamError], kind: str) -> None:
    async with connected() as (_, connection, peer):
        waiting = asyncio.gather(head_of(connection), return_exceptions=True)
        peer.send(sent)
        await asyncio.sleep(0.02)
        peer.reset() if reset else peer.end()
        raised = (await waiting)[0]
        assert type(raised) is error
        assert raised.kind == kind


async def test_a_connection_that_the_kernel_gave_up_is_no_answer_that_is_late() -> None:
    async with connected() as (_, connection, _):
        connection.connection_lost(TimeoutError("ETIMEDOUT, which is a TimeoutError too"))
        with pytest.raises(UpstreamSilent):
            await head_of(connection)
        connection.transport.abort()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_an_answer_that_does_not_come_is_waited_for_only_so_long(sent: bytes) -> None:
    async with connected() as (_, connection, peer):
        peer.send(sent)
        with pytest.raises(UpstreamTimeout) as error:
            await head_of(connection, 0.05)
        assert error.value.kind == "http_response_timeout"


async def test_a_deadline_set_while_the_answer_is_waited_for_holds_to_the_heads_end() -> None:
    async with connected() as (_, connection, peer):
        waiting = asyncio.gather(connection.receive_response(LIMIT, math.inf), return_exceptions=True)
        await asyncio.sleep(0)
        connection.expect_answer_by(connection.loop.time() + 0.1)
        async with asyncio.timeout(10):
            while not waiting.done():
                peer.send(b"H")
                await asyncio.sleep(0.02)
        assert isinstance((await waiting)[0], UpstreamTimeout)


async def test_a_deadline_for_one_answer_is_none_for_what_follows() -> None:
    async with connected() as (_, connection, peer):
        waiting = asyncio.gather(connection.receive_response(LIMIT, math.inf))
        await asyncio.sleep(0)
        connection.expect_answer_by(connection.loop.time() + 0.05)
        peer.send(OK)
        await waiting
        connection.expect_answer_by(connection.loop.time())
        assert await goes_on(connection.receive(math.inf))


async def test_an_exchange_that_is_broken_off_tells_its_reader_why_and_the_upstream_by_a_reset() -> None:
    async with connected() as (upstream, connection, peer):
        waiting = asyncio.gather(head_of(connection), return_exceptions=True)
        await asyncio.sleep(0)
        error = ClientClosed("the client left")
        connection.fail(error)
        [told] = await waiting
        assert isinstance(told, ClientClosed)
        assert str(told) == str(error)
        assert not await peer.ended()
        await forgotten(upstream)
        connection.fail(ClientClosed("again"))
        assert str(connection.lost) == str(error)

"""A request's body on its way up: framed as it came, kept up to a limit, and never made whole by us."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.urls import parse_base_url
from proxy.errors import BadRequest, ClientClosed, ClientTimeout, ContentTooLarge, ProxyError, UpstreamTimeout
from proxy.forward.body import NO_BODY, KeptBody
from proxy.wire.body import Body
from proxy.wire.stream import Stream
from proxy.wire.syntax import CHUNKED
from proxy.wire.upstream import Upstream, UpstreamConnection
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer, Server
from tests.support.rig import chunked
from tests.support.stages import until
from tests.wire.streams import pair, say_and_break_off

pieces_of_a_body = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6)


def coming(length: int, limit: int) -> tuple[Stream, KeptBody]:
    """A body whose bytes are to be fed to the stream."""
    with asyncio.Runner() as runner:
        stream = Stream(runner.get_loop())
        stream.loop = runner.get_loop()
    return stream, KeptBody(Body(stream, length, request=True, limit=1000), limit)


def unframed(coded: bytes, *, in_chunks: bool) -> bytes:
    if not in_chunks:
        return coded
    content = b""
    while coded:
        size, _, coded = coded.partition(b"\r\n")
        content += coded[: int(size, 16)]
        assert coded[int(size, 16) :].startswith(b"\r\n")
        coded = coded[int(size, 16) + 2 :]
        if size == b"0":
            assert coded == b""
    return content


# --- what is sent at once, and once more ---


@given(pieces_of_a_body, st.booleans(), st.integers(0, 250))
def test_a_body_that_came_with_its_head_is_sent_at_once_framed_as_it_came(
    pieces: list[bytes], in_chunks: bool, limit: int
) -> None:
    content = b"".join(pieces)
    stream, body = coming(CHUNKED if in_chunks else len(content), limit)
    stream.data_received(chunked(*pieces) if in_chunks else content)
    first = body.opening()
    assert body.complete
    assert body.size == len(content)
    assert unframed(first, in_chunks=in_chunks) == content
    assert first.endswith(b"0\r\n\r\n") or not in_chunks
    assert body.kept == (len(content) <= limit)
    if body.kept:
        assert body.opening() == first


@given(pieces_of_a_body, st.booleans(), st.data())
def test_a_body_that_is_still_coming_is_sent_as_far_as_it_came_and_never_ended(
    pieces: list[bytes], in_chunks: bool, data: st.DataObject
) -> None:
    content = b"".join(pieces)
    stream, body = coming(CHUNKED if in_chunks else len(content), 1000)
    coded = chunked(*pieces) if in_chunks else content
    at = data.draw(st.integers(0, len(coded) - 1))
    stream.data_received(coded[:at])
    sent = body.opening()
    assert not body.complete
    assert content.startswith(unframed(sent, in_chunks=in_chunks))
    # Content may look like a last chunk; nothing of ours may.
    assert not sent.endswith(b"0\r\n\r\n") or b"0\r\n" in content
    stream.data_received(coded[at:])
    # A replay sends all of it from the start, whatever the cuts were.
    assert unframed(body.opening(), in_chunks=in_chunks) == content
    assert body.complete


def test_a_chunked_body_without_content_is_one_last_chunk() -> None:
    stream, body = coming(CHUNKED, 10)
    assert body.opening() == b""
    stream.data_received(b"0\r\n\r\n")
    assert body.opening() == b"0\r\n\r\n"
    assert body.opening() == b"0\r\n\r\n"


def test_trailers_of_a_request_are_not_sent() -> None:
    stream, body = coming(CHUNKED, 10)
    stream.data_received(chunked(b"abc", trailers=b"X-Sum: 1\r\n"))
    assert body.opening() == b"3\r\nabc\r\n0\r\n\r\n"


def test_a_longer_body_is_dropped_once_it_was_sent() -> None:
    stream, body = coming(20, 10)
    stream.data_received(b"x" * 10)
    assert body.opening() == b"x" * 10
    stream.data_received(b"y" * 10)
    body.take_arrived()
    kept_before = body.kept
    assert body.opening() == b"x" * 10 + b"y" * 10
    assert (kept_before, body.kept) == (True, False)
    assert body.opening() == b""


def test_a_body_for_another_limit_is_kept_by_that_one() -> None:
    stream, body = coming(8, 4)
    stream.data_received(b"12345678")
    body.take_arrived()
    longer = body.with_limit(8)
    assert longer.kept
    assert longer.complete
    assert longer.opening() == b"12345678"
    assert longer.kept
    shorter = longer.with_limit(7)
    assert shorter.opening() == b"12345678"
    assert not shorter.kept


def test_no_body_is_nothing_however_often_it_is_sent() -> None:
    for body in NO_BODY, NO_BODY.with_limit(5):
        body.take_arrived()
        assert body.opening() == b""
        assert (body.complete, body.kept, body.size, body.chunked, body.completed_at) == (True, True, 0, False, 0.0)
    with pytest.raises(AttributeError):
        NO_BODY.anything = 1  # type: ignore[attr-defined]  # one for all requests, so it had better stay as it is


def test_a_broken_body_is_told() -> None:
    stream, body = coming(CHUNKED, 10)
    stream.data_received(b"x\r\n")
    with pytest.raises(BadRequest):
        body.take_arrived()


# --- read here ---


async def test_a_body_is_gathered_and_can_still_be_sent() -> None:
    async with pair() as (stream, client):
        body = KeptBody(Body(stream, 6, request=True, limit=100), 6)
        client.send(b"abc")
        gathering = asyncio.gather(body.gather(1))
        await asyncio.sleep(0.01)
        client.send(b"def")
        (content,) = await gathering
        assert content == b"abcdef"
        assert body.opening() == b"abcdef"
    assert await NO_BODY.gather(1) == b""


@pytest.mark.parametrize("length", [7, CHUNKED])
async def test_a_body_that_is_too_long_to_gather_is_refused_before_its_end(length: int) -> None:
    async with pair() as (stream, client):
        body = KeptBody(Body(stream, length, request=True, limit=100), 6)
        client.send(b"7\r\nabcdefg\r\n" if length == CHUNKED else b"abcdefg")
        with pytest.raises(ContentTooLarge):
            await body.gather(1)


async def test_a_body_that_does_not_come_is_gathered_only_so_long() -> None:
    async with pair() as (stream, client):
        body = KeptBody(Body(stream, 6, request=True, limit=100), 6)
        client.send(b"abc")
        with pytest.raises(ClientTimeout):
            await body.gather(0.05)


# --- pumped ---


@contextlib.asynccontextmanager
async def pumped(
    length: int, limit: int = 1000, *, buffer: int | None = None
) -> AsyncIterator[tuple[Peer, KeptBody, UpstreamConnection, Peer]]:
    """A client, its body, a connection to an upstream, and that one's other end."""
    async with pair(buffer=buffer) as (stream, client), Server(buffer=buffer) as server:
        upstream = Upstream(
            parse_base_url(f"http://127.0.0.1:{server.port}"),
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            connect_timeout=5,
        )
        connection = await upstream.connect(5)
        try:
            yield (
                client,
                KeptBody(Body(stream, length, request=True, limit=100), limit),
                connection,
                await server.accept(),
            )
        finally:
            connection.abort()


@pytest.mark.parametrize("length", [9, CHUNKED])
async def test_each_piece_is_sent_as_it_arrives(length: int) -> None:
    coded = (
        [b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"3\r\nghi\r\n0\r\n\r\n"] if length == CHUNKED else [b"abc", b"def", b"ghi"]
    )
    async with pumped(length) as (client, body, connection, upstream):
        client.send(coded[0])
        pumping = asyncio.gather(body.pump(connection, 1, 15))
        for sent, following in zip(coded, [*coded[1:], b""], strict=True):
            assert await upstream.read(len(sent)) == sent
            assert pumping.done() == (not following)
            client.send(following)
        assert body.complete
        assert body.kept


@pytest.mark.parametrize(
    ("length", "how", "error"),
    [
        (9, "end", ClientClosed),
        (9, "reset", ClientClosed),
        (9, "stop", ClientTimeout),
        (CHUNKED, "end", ClientClosed),
        (CHUNKED, "reset", ClientClosed),
        (CHUNKED, "stop", ClientTimeout),
        (CHUNKED, "break", BadRequest),
    ],
)
async def test_a_body_that_is_not_whole_never_looks_whole_to_the_upstream(
    length: int, how: str, error: type[ProxyError]
) -> None:
    async with pumped(length) as (client, body, connection, upstream):
        answer = asyncio.gather(connection.receive_response(1000, connection.loop.time() + 5), return_exceptions=True)
        client.send(b"3\r\nabc\r\n" if length == CHUNKED else b"abc")
        pumping = asyncio.gather(body.pump(connection, 0.1, 15))
        await upstream.read(8 if length == CHUNKED else 3)
        match how:
            case "end":
                client.end()
            case "reset":
                client.reset()
            case "break":
                client.send(b"x\r\n")
        await pumping
        assert isinstance((await answer)[0], error)
        with pytest.raises(ConnectionResetError):
            await upstream.rest()


class Broken(Body):
    """A body that can't be read because of a defect of the program."""

    async def read(self, due: float) -> bytes:
        raise RuntimeError("a defect")


@pytest.mark.parametrize("length", [9, CHUNKED])
async def test_a_defect_while_a_body_is_sent_is_heard_of_by_whoever_waits_for_the_answer(length: int) -> None:
    async with pumped(length) as (_, _, connection, upstream), pair() as (stream, _):
        answer = asyncio.gather(connection.receive_response(1000, connection.loop.time() + 5), return_exceptions=True)
        await asyncio.sleep(0)
        await KeptBody(Broken(stream, length, request=True, limit=100), 1000).pump(connection, 5, 15)
        assert isinstance((await answer)[0], RuntimeError)
        with pytest.raises(ConnectionResetError):
            await upstream.rest()


async def test_an_upstream_that_takes_nothing_is_given_up() -> None:
    async with pumped(64 << 20, buffer=16384) as (client, body, connection, upstream):
        upstream.stop_reading()
        answer = asyncio.gather(connection.receive_response(1000, connection.loop.time() + 5), return_exceptions=True)
        pushing = asyncio.gather(client.push(64 << 20))
        await body.pump(connection, 0.2, 15)
        error = (await answer)[0]
        assert isinstance(error, UpstreamTimeout)
        assert error.kind == "connection_write_timeout"
        assert (await pushing)[0] < 32 << 20


async def test_an_answer_that_came_before_the_upstream_broke_off_is_not_lost_by_sending_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base = parse_base_url(f"http://127.0.0.1:{listening.getsockname()[1]}")
        upstream = Upstream(base, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connect_timeout=5)
        connection = await upstream.connect(5)
        async with pair() as (stream, client):
            client.send(b"abc")
            await until(lambda: stream.buffer == b"abc")
            say_and_break_off(listening, b"HTTP/1.1 413 Too Large\r\n\r\n")
            await KeptBody(Body(stream, 3, request=True, limit=100), 0).pump(connection, 1, 15)
            assert (await connection.receive_response(1000, connection.loop.time() + 5)).status == 413


async def test_the_wait_for_the_answer_begins_when_the_body_is_sent(clock: SkippingLoop) -> None:
    async with pumped(6) as (client, body, connection, upstream):
        answer = asyncio.gather(connection.receive_response(1000, float("inf")), return_exceptions=True)
        pumping = asyncio.gather(body.pump(connection, 75, 15))
        client.send(b"abc")
        await clock.skip(70)
        client.send(b"def")
        await pumping
        await clock.skip(14)
        assert not answer.done()
        await clock.skip(2)
        assert isinstance((await answer)[0], UpstreamTimeout)
        assert await upstream.read(6) == b"abcdef"


async def test_a_pump_that_is_stopped_keeps_what_it_read() -> None:
    async with pumped(6) as (client, body, connection, upstream):
        pumping = asyncio.gather(body.pump(connection, 5, 15))
        client.send(b"abc")
        assert await upstream.read(3) == b"abc"
        pumping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pumping
        again = asyncio.gather(body.pump(connection, 5, 15))
        client.send(b"def")
        await again
        assert await upstream.read(3) == b"def"
        assert body.opening() == b"abcdef"

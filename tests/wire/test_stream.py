"""One connection: waiting, backpressure, deadlines, and the two ways to end it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from pathlib import Path

import pytest

from proxy.tls import client_context
from proxy.wire.stream import HIGH_WATER, Stream
from tests.support.certificates import ca_file, server_context
from tests.support.loops import SkippingLoop
from tests.support.peers import Server
from tests.support.stages import until
from tests.wire.streams import goes_on, pair, say_and_break_off

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
"""Up to its last field's end."""


def soon(stream: Stream, seconds: float = 1.0) -> float:
    return stream.loop.time() + seconds


# --- receiving ---


async def test_what_arrives_is_kept_until_it_is_taken() -> None:
    async with pair() as (stream, peer):
        peer.send(b"ab")
        assert await stream.receive(soon(stream))
        peer.send(b"cd")
        assert await stream.receive(soon(stream))
        assert stream.buffer == b"abcd"


async def test_the_end_of_the_peers_bytes_is_no_end_of_ours() -> None:
    async with pair() as (stream, peer):
        peer.send(b"ab")
        peer.end()
        await until(lambda: stream.ended)
        assert stream.buffer == b"ab"
        assert not await stream.receive(soon(stream))
        assert stream.lost is None
        stream.write(b"still here")
        assert await peer.read(10) == b"still here"


async def test_the_end_of_tls_is_an_end_although_nobody_waited_for_it(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    context = client_context(ca_file(tmp_path))
    async with Server(server_context("localhost")) as server:
        _, stream = await loop.create_connection(
            lambda: Stream(loop), "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
        )
        peer = await server.accept()
        peer.send(b"last words")
        peer.close()
        await until(lambda: stream.lost is not None)  # the loop closes what TLS can't half-close
        assert stream.buffer == b"last words"
        assert not await stream.receive(soon(stream))
        assert not await stream.receive(soon(stream))
        with pytest.raises(ConnectionError):
            await stream.drain(soon(stream))


async def test_a_wait_ends_with_the_connection() -> None:
    async with pair() as (stream, peer):
        waiting = asyncio.gather(stream.receive(soon(stream)), return_exceptions=True)
        await asyncio.sleep(0)
        peer.reset()
        assert isinstance((await waiting)[0], OSError)
        assert stream.lost is not None
        with pytest.raises(ConnectionError):
            await stream.receive(soon(stream))
        with pytest.raises(ConnectionError):
            await stream.drain(soon(stream))
        stream.write(b"nobody gets this")


async def test_a_wait_ends_at_its_deadline_and_the_next_one_has_its_own() -> None:
    async with pair() as (stream, peer):
        started = time.monotonic()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await stream.receive(soon(stream, 0.05))
        assert 0.09 <= time.monotonic() - started < 10
        assert stream.lost is None
        peer.send(b"x")
        assert await stream.receive(soon(stream))


async def test_a_deadline_in_the_past_ends_a_wait_at_once() -> None:
    async with pair() as (stream, _):
        with pytest.raises(TimeoutError):
            await stream.receive(soon(stream, -1))


async def test_a_later_deadline_is_not_the_earlier_ones() -> None:
    async with pair() as (stream, peer):
        peer.send(b"x")
        assert await stream.receive(soon(stream, 0.05))
        assert await goes_on(stream.receive(soon(stream, 5)))
        assert not stream.closing


async def test_a_deadline_is_brought_forward_while_somebody_waits() -> None:
    async with pair() as (stream, _):
        waiting = asyncio.gather(stream.receive(math.inf), return_exceptions=True)
        await asyncio.sleep(0)
        stream.hasten(soon(stream, 0.03))
        stream.hasten(soon(stream, 60))
        async with asyncio.timeout(10):
            assert isinstance((await waiting)[0], TimeoutError)
        stream.hasten(soon(stream, 0.02))
        assert not await goes_on(stream.receive(math.inf))
        stream.hasten(math.inf)
        assert await goes_on(stream.receive(math.inf))
        assert not stream.closing


async def test_a_cancelled_wait_takes_nothing_from_the_next_one() -> None:
    async with pair() as (stream, peer):
        first = asyncio.gather(stream.receive(soon(stream, 5)), return_exceptions=True)
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(TimeoutError):
            await stream.receive(soon(stream, 0.05))
        second = asyncio.gather(stream.receive(soon(stream, 5)), return_exceptions=True)
        await asyncio.sleep(0)
        second.cancel()
        peer.send(b"x")
        async with asyncio.timeout(10):
            assert await stream.receive(soon(stream, 60))
        for waiting in (first, second):
            with contextlib.suppress(asyncio.CancelledError):
                await waiting


async def test_bytes_that_arrive_as_a_wait_is_cancelled_are_not_lost() -> None:
    async with pair() as (stream, peer):
        waiting = asyncio.gather(stream.receive(soon(stream)))
        await asyncio.sleep(0)
        stream.data_received(b"x")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stream.buffer == b"x"
        peer.send(b"y")
        assert await stream.receive(soon(stream))
        assert stream.buffer == b"xy"


# --- heads ---


async def test_a_head_is_the_same_at_every_split() -> None:
    whole = HEAD + b"\r\nbody"
    async with pair() as (stream, peer):
        for at in range(1, len(whole)):
            peer.send(whole[:at])
            await stream.receive(soon(stream))
            reading = asyncio.gather(stream.receive_head(100, soon(stream)))
            await asyncio.sleep(0)
            peer.send(whole[at:])
            (head,) = await reading
            assert head == HEAD
            while len(stream.buffer) < 4:
                await stream.receive(soon(stream))
            assert stream.buffer == b"body"
            stream.buffer = b""


async def test_two_heads_that_arrive_at_once_are_taken_one_by_one() -> None:
    async with pair() as (stream, peer):
        peer.send(HEAD + b"\r\n" + HEAD + b"\r\n")
        assert await stream.receive_head(100, soon(stream)) == HEAD
        while (second := stream.take_head(100)) is None:
            await stream.receive(soon(stream))
        assert second == HEAD
        assert stream.take_head(100) is None


@pytest.mark.parametrize("around", range(-3, 4))
async def test_whether_a_head_is_too_long_does_not_depend_on_how_it_arrives(around: int) -> None:
    limit = 60
    head = b"GET / HTTP/1.1\r\nX: %b\r\n" % (b"x" * (limit - 21 + around))
    whole = head + b"\r\n"
    verdicts = set()
    for at in (1, *range(limit - 5, len(whole) + 1)):
        async with pair() as (stream, peer):
            peer.send(whole[:at])
            await stream.receive(soon(stream))
            reading = asyncio.gather(stream.receive_head(limit, soon(stream)), return_exceptions=True)
            await asyncio.sleep(0)
            peer.send(whole[at:])
            verdicts.add((await reading)[0] == head)
    assert len(verdicts) == 1
    if abs(around) == 3:
        assert verdicts == {around < 0}


async def test_a_head_without_end_is_too_long() -> None:
    async with pair() as (stream, peer):
        peer.send(b"x" * 200)
        with pytest.raises(ValueError, match="too long"):
            await stream.receive_head(100, soon(stream))


@pytest.mark.parametrize("at", range(1, 12))
async def test_a_line_that_ends_without_cr_is_refused_before_the_head_is_there(at: int) -> None:
    async with pair() as (stream, peer):
        begun = b"GET / x\r\na: b\n"
        peer.send(begun[:at])
        await stream.receive(soon(stream))
        reading = asyncio.gather(stream.receive_head(100, soon(stream)), return_exceptions=True)
        await asyncio.sleep(0)
        peer.send(begun[at:])
        assert isinstance((await reading)[0], ValueError)


async def test_a_stream_that_ends_inside_a_head_is_no_stream_that_ends_before_one() -> None:
    async with pair() as (stream, peer):
        peer.end()
        assert await stream.receive_head(100, soon(stream)) is None
    async with pair() as (stream, peer):
        peer.send(HEAD)
        peer.end()
        with pytest.raises(EOFError):
            await stream.receive_head(100, soon(stream))


# --- backpressure ---


async def test_a_stream_that_nobody_reads_stops_its_sender_and_lets_it_go_on_when_read() -> None:
    async with pair(buffer=65536) as (stream, peer):
        sent = await peer.push(64 << 20)
        assert sent < 64 << 20
        # What was read of the kernel at once may lie above the mark.
        assert HIGH_WATER <= len(stream.buffer) <= HIGH_WATER * 2
        with contextlib.suppress(TimeoutError):
            while True:  # what the kernel had kept comes first
                stream.buffer = b""
                await stream.receive(soon(stream, 0.2))
        assert await peer.push(65536)


async def test_a_peer_that_does_not_read_makes_the_writer_wait_until_it_does() -> None:
    async with pair(buffer=65536) as (stream, peer):
        peer.stop_reading()
        written = 0
        while not stream.sending_behind:
            stream.write(b"x" * 65536)
            written += 65536
            await asyncio.sleep(0)
            assert written < 64 << 20
        with pytest.raises(TimeoutError):
            await stream.drain(soon(stream, 0.05))
        assert not stream.closing
        peer.resume_reading()
        reading = asyncio.gather(peer.read(written))
        await stream.drain(soon(stream, 5))
        await reading


async def test_a_writer_that_waits_learns_that_the_peer_is_gone() -> None:
    async with pair(buffer=65536) as (stream, peer):
        peer.stop_reading()
        while not stream.sending_behind:
            stream.write(b"x" * 65536)
            await asyncio.sleep(0)
        waiting = asyncio.gather(stream.drain(soon(stream, 5)), return_exceptions=True)
        await asyncio.sleep(0)
        peer.reset()
        error = (await waiting)[0]
        assert isinstance(error, OSError)
        assert not isinstance(error, TimeoutError)


async def test_draining_what_the_peer_takes_costs_no_wait() -> None:
    async with pair() as (stream, _):
        stream.write(b"x")
        await stream.drain(-1.0)


async def test_what_a_peer_said_before_it_broke_off_is_read_before_more_is_written() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _, stream = await loop.create_connection(lambda: Stream(loop), *listening.getsockname())
        say_and_break_off(listening, b"enough")
        await stream.heed()
        stream.write(b"more")
        await until(lambda: stream.lost is not None)
        assert stream.buffer == b"enough"


async def test_nothing_is_waited_for_where_the_peer_has_said_nothing() -> None:
    async with pair() as (stream, _):
        heeding = stream.heed()
        with pytest.raises(StopIteration):
            heeding.send(None)


# --- the end ---


async def test_an_end_is_an_end_for_the_peer_and_leaves_reading_open() -> None:
    async with pair() as (stream, peer):
        stream.write(b"last")
        stream.end()
        assert await peer.rest() == b"last"
        peer.send(b"answer")
        assert await stream.receive(soon(stream))
        assert stream.buffer == b"answer"


async def test_closing_sends_what_was_written_and_ends_in_order() -> None:
    async with pair() as (stream, peer):
        stream.write(b"x" * 100_000)
        stream.close()
        assert stream.closing
        assert await peer.rest() == b"x" * 100_000


async def test_aborting_is_a_reset_for_the_peer() -> None:
    async with pair() as (stream, peer):
        stream.write(b"half")
        stream.abort()
        assert stream.closing
        assert not await peer.ended()


async def test_a_connection_that_is_closing_is_not_broken_off_any_more() -> None:
    async with pair() as (stream, peer):
        stream.write(b"whole")
        stream.close()
        stream.abort()
        assert await peer.rest() == b"whole"


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_nothing_more_can_go_wrong_after_the_end(how: str) -> None:
    async with pair() as (stream, _):
        stream.abort() if how == "abort" else stream.close()
        for _ in range(5):
            stream.write(b"x")
            stream.end()
            stream.close()
            stream.abort()
            stream.hasten(0.0)
            await asyncio.sleep(0)
        assert stream.lost is not None
        stream.expire_at(math.inf)


async def test_a_connection_that_nobody_reads_expires() -> None:
    async with pair() as (stream, peer):
        stream.expire_at(soon(stream, 5))
        stream.expire_at(soon(stream, 0.03))
        assert await peer.ended()


async def test_an_expiry_that_was_taken_back_does_not_come() -> None:
    async with pair() as (stream, _):
        stream.expire_at(soon(stream, 0.03))
        stream.expire_at(math.inf)
        await asyncio.sleep(0.06)
        assert not stream.closing
        with pytest.raises(TimeoutError):
            await stream.receive(soon(stream, 0.03))
        assert not stream.closing


async def test_an_expiry_moved_to_later_comes_later() -> None:
    async with pair() as (stream, peer):
        stream.expire_at(soon(stream, 0.03))
        stream.expire_at(soon(stream, 0.12))
        await asyncio.sleep(0.06)
        assert not stream.closing
        assert await peer.ended()


async def test_closing_ends_although_the_peer_never_reads(clock: SkippingLoop) -> None:
    async with pair(buffer=65536) as (stream, peer):
        peer.stop_reading()
        while not stream.sending_behind:
            stream.write(b"x" * 65536)
            await asyncio.sleep(0)
        stream.close()
        await clock.skip(60)
        assert stream.lost is not None

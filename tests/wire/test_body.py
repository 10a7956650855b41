"""Bodies: whatever delimits them and however they are cut up on their way, the same bytes and not one more."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest, ClientClosed, UpstreamClosed, UpstreamProtocolError
from proxy.wire.body import LAST_CHUNK, LONGEST_CHUNK_LINE, Body, chunk
from proxy.wire.stream import Stream
from proxy.wire.syntax import CHUNKED, UNTIL_CLOSE
from tests.support.peers import Peer
from tests.wire.streams import pair

LIMIT = 200
NEXT = b"GET /next HTTP/1.1\r\n"

payloads = st.lists(st.binary(min_size=1, max_size=30), max_size=5)
extensions = st.sampled_from([b"", b";x", b"; a=b", b' \t;q="1;2"', b";\x80\xff"])


def fed(body_length: int, *pieces: bytes, request: bool = True, limit: int = LIMIT) -> tuple[Body, bytes, bytes]:
    """A body that got these pieces one after the other, what was read of it, and what is left on the stream."""
    with asyncio.Runner() as runner:  # only a name for a loop that nothing runs on
        stream = Stream(runner.get_loop())
        body = Body(stream, body_length, request=request, limit=limit)
        read = b""
        for piece in pieces:
            stream.data_received(piece)
            while not body.complete and (taken := body.take()):
                read += taken
        return body, read, stream.buffer


# --- chunked ---


@given(payloads, extensions, st.booleans())
def test_a_chunked_body_is_the_same_at_every_split(pieces: list[bytes], extension: bytes, trailing: bool) -> None:
    coded = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    coded += b"000%b\r\n%b\r\n" % (extension, b"X-Sum: 1\r\nx-two:\r\n" if trailing else b"")
    for at in range(len(coded) + 1):
        body, read, left = fed(CHUNKED, coded[:at], coded[at:] + NEXT)
        assert body.complete
        assert read == b"".join(pieces)
        assert left == NEXT
        assert (body.trailers.shape.names if body.trailers else None) == ((b"x-sum", b"x-two") if trailing else None)


@given(payloads, st.data())
def test_a_chunked_body_in_many_pieces_is_complete_with_its_last_byte_and_not_before(
    pieces: list[bytes], data: st.DataObject
) -> None:
    coded = b"".join(map(chunk, pieces)) + LAST_CHUNK
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded) - 1), max_size=8)))
    bounds = [0, *cuts, len(coded) - 1]
    parts = [coded[start:end] for start, end in itertools.pairwise(bounds)]
    body, read, _ = fed(CHUNKED, *parts)
    assert not body.complete
    assert read == b"".join(pieces)
    body, read, left = fed(CHUNKED, *parts, coded[-1:])
    assert (body.complete, read, left) == (True, b"".join(pieces), b"")


@pytest.mark.parametrize("by", [1, 2, 3, 1000])
@pytest.mark.parametrize("request_body", [True, False], ids=["request", "answer"])
@pytest.mark.parametrize(
    "coded",
    [
        b"\r\n", b"x\r\n", b"-1\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5_0\r\n", b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n", b"5Z\r\nhello\r\n", b"5\nhello\r\n", b"5;a\nb\r\nhello\r\n", b"5;\x00\r\nhello\r\n",
        b"5\rhello", b"1" * 16 + b"\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\rX", b"5\r\nhello\r\n0\r\nno field\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: y\n\r\n\r\n",
    ],
)  # fmt: skip
def test_a_broken_chunk_is_refused_however_it_arrives(coded: bytes, request_body: bool, by: int) -> None:
    pieces = [coded[at : at + by] for at in range(0, len(coded), by)]
    with pytest.raises(BadRequest if request_body else UpstreamProtocolError):
        fed(CHUNKED, *pieces, request=request_body)


@pytest.mark.parametrize("coded", [b"g", b"5 5", b"5\n", b"5;\x01", b"5\rx"])
def test_a_chunks_size_is_refused_as_soon_as_it_can_not_become_one(coded: bytes) -> None:
    with pytest.raises(BadRequest):
        fed(CHUNKED, coded)


@pytest.mark.parametrize("coded", [b"5", b"5;", b"5 ", b'5;x="', b"5\r", b"5 \t;a\r", b"f" * 15])
def test_a_chunks_size_that_is_still_coming_is_waited_for(coded: bytes) -> None:
    body, read, left = fed(CHUNKED, coded)
    assert (body.complete, read, left) == (False, b"", coded)


@pytest.mark.parametrize("size", [LONGEST_CHUNK_LINE - 2, LONGEST_CHUNK_LINE - 1])
def test_a_chunks_line_may_be_so_long_and_no_longer(size: int) -> None:
    line = b"3;" + b"x" * (size - 2)
    coded = line + b"\r\nabc\r\n" + LAST_CHUNK
    if size + 2 <= LONGEST_CHUNK_LINE:
        for at in range(len(coded)):
            assert fed(CHUNKED, coded[:at], coded[at:])[:2][1] == b"abc"
        return
    for at in range(size, len(coded)):
        with pytest.raises(BadRequest):
            fed(CHUNKED, coded[:at], coded[at:])


@pytest.mark.parametrize("around", range(-3, 4))
def test_whether_trailers_are_too_long_does_not_depend_on_how_they_arrive(around: int) -> None:
    coded = b"0\r\nX: %b\r\n\r\n" % (b"x" * (LIMIT - 5 + around))
    verdicts = set()
    for at in range(len(coded)):
        try:
            verdicts.add(fed(CHUNKED, coded[:at], coded[at:])[0].complete)
        except BadRequest:
            verdicts.add(False)
    assert len(verdicts) == 1
    if abs(around) == 3:
        assert verdicts == {around < 0}


def test_trailers_without_end_are_refused_before_they_fill_the_memory() -> None:
    with pytest.raises(UpstreamProtocolError):
        fed(CHUNKED, b"0\r\n" + b"X: y\r\n" * LIMIT, request=False)


def test_a_chunk_is_framed_by_its_length_in_hexadecimal() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert LAST_CHUNK == b"0\r\n\r\n"


# --- by length, and until the end ---


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_body_with_a_length_ends_there_at_every_split(content: bytes, data: st.DataObject) -> None:
    whole = content + NEXT
    at = data.draw(st.integers(0, len(whole)))
    body, read, left = fed(len(content), whole[:at], whole[at:])
    assert (body.complete, read, left) == (True, content, NEXT)
    body, read, left = fed(len(content), content[:-1])
    assert (body.complete, read, left) == (False, content[:-1], b"")


def test_no_body_is_complete_and_takes_nothing() -> None:
    body, read, left = fed(0, NEXT)
    assert (body.complete, read, left) == (True, b"", NEXT)


async def test_a_body_until_the_end_is_whole_at_the_end() -> None:
    async with pair() as (stream, peer):
        body = Body(stream, UNTIL_CLOSE, request=False, limit=LIMIT)
        peer.send(b"abc")
        assert await body.read_within(1) == b"abc"
        assert not body.complete
        peer.end()
        assert await body.read_within(1) == b""
        assert body.complete


# --- waiting ---


def start(peer: Peer, length: int) -> None:
    peer.send(b"5\r\nhe" if length == CHUNKED else b"he")


@pytest.mark.parametrize("length", [5, CHUNKED])
@pytest.mark.parametrize(("request_body", "error"), [(True, ClientClosed), (False, UpstreamClosed)])
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_body_that_is_cut_short_is_told(
    length: int, request_body: bool, error: type[Exception], how: str
) -> None:
    async with pair() as (stream, peer):
        body = Body(stream, length, request=request_body, limit=LIMIT)
        start(peer, length)
        assert await body.read_within(1) == b"he"
        peer.end() if how == "end" else peer.reset()
        with pytest.raises(error):
            await body.read_within(1)
        assert not body.complete


async def test_a_connection_that_the_kernel_gave_up_is_no_body_that_is_late() -> None:
    async with pair() as (stream, _):
        body = Body(stream, 5, request=False, limit=LIMIT)
        stream.connection_lost(TimeoutError("ETIMEDOUT, which is a TimeoutError too"))
        with pytest.raises(UpstreamClosed):
            await body.read_within(1)


async def test_a_body_until_the_end_that_is_broken_off_is_not_whole() -> None:
    async with pair() as (stream, peer):
        body = Body(stream, UNTIL_CLOSE, request=False, limit=LIMIT)
        peer.send(b"abc")
        assert await body.read_within(1) == b"abc"
        peer.reset()
        with pytest.raises(UpstreamClosed):
            await body.read_within(1)


@pytest.mark.parametrize("length", [5, CHUNKED, UNTIL_CLOSE])
async def test_a_body_that_does_not_come_is_waited_for_only_so_long(length: int) -> None:
    async with pair() as (stream, peer):
        body = Body(stream, length, request=False, limit=LIMIT)
        with pytest.raises(TimeoutError):
            await body.read_within(0.05)
        start(peer, length)
        assert await body.read_within(1)
        with pytest.raises(TimeoutError):
            await body.read_within(0.05)


async def test_what_arrived_before_the_peer_left_is_read_first() -> None:
    async with pair() as (stream, peer):
        body = Body(stream, 5, request=False, limit=LIMIT)
        peer.send(b"hello")
        peer.end()
        await stream.receive(stream.loop.time() + 1)
        assert await body.read_within(1) == b"hello"
        assert body.complete
        assert await body.read_within(1) == b""

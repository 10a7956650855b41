"""A WebSocket through the proxy is the WebSocket without it, byte for byte, whatever its frames are.

The cases are those of a WebSocket test suite: sizes, pings, reserved bits and opcodes, fragments, UTF-8 that is
none, closes, limits and compression. Each is sent by a raw client to a library's echo server, once directly and
once through the proxy, and what comes back must be the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from proxy.wire.frames import GOING_AWAY
from tests.forward.test_faults import behind
from tests.forward.test_upgrade import AGREED, HANDSHAKE, upgraded
from tests.support.certificates import server_context
from tests.support.peers import Peer, Server, open_peer
from tests.support.rig import REFUSED, Rig, request, rig

pytestmark = pytest.mark.one_loop

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

LAST = b"that is all"

KEY = b"\x37\xfa\x21\x3d"


def mask(payload: bytes) -> bytes:
    size = len(payload)
    stream = int.from_bytes((KEY * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ stream).to_bytes(size, "big")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """A frame (RFC 6455 5.2); a client's is masked."""
    size = len(payload)
    head = bytes([fin << 7 | reserved << 4 | opcode])
    if size < 126:
        head += bytes([masked << 7 | size])
    elif size < 1 << 16:
        head += bytes([masked << 7 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked << 7 | 127]) + struct.pack("!Q", size)
    return head + (KEY + mask(payload) if masked else payload)


def fragments(opcode: int, pieces: Sequence[bytes], between: bytes = b"") -> bytes:
    """A message in fragments."""
    last = len(pieces) - 1
    frames = (frame(opcode if n == 0 else CONTINUATION, piece, fin=n == last) for n, piece in enumerate(pieces))
    return between.join(frames)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@dataclass(frozen=True, slots=True)
class Case:
    """What a client sends, one piece after the other; a last message follows, on which the server closes."""

    name: str
    pieces: Sequence[bytes]
    compressed: bool = False


def sizes() -> Iterator[Case]:
    for opcode, kind in (TEXT, "text"), (BINARY, "binary"):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            yield Case(f"{kind} of {size}", [frame(opcode, b"*" * size)])
        yield Case(f"{kind} of 65536 in pieces of 997", cut(frame(opcode, b"*" * 65536), 997))
        yield Case(f"{kind} byte by byte", cut(frame(opcode, b"*" * 200), 1))


def pings() -> Iterator[Case]:
    for payload in (b"", b"Hello", bytes(range(125)), b"x" * 126):
        yield Case(f"ping of {len(payload)}", [frame(PING, payload)])
    yield Case("ping byte by byte", cut(frame(PING, b"x" * 125), 1))
    yield Case("pong that nobody asked for", [frame(PONG, b"Hello"), frame(PING, b"and a ping")])
    yield Case("ten pings", [frame(PING, b"payload-%d" % number) for number in range(10)])


def reserved() -> Iterator[Case]:
    for bits in range(1, 8):
        yield Case(f"reserved bits {bits}", [frame(TEXT, b"x", reserved=bits), frame(PING)])
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", [frame(opcode, b"x"), frame(PING)])
    yield Case("no mask", [frame(TEXT, b"x", masked=False)])
    yield Case("no WebSocket at all", [request()])


def in_fragments() -> Iterator[Case]:
    ping = frame(PING, b"ping")
    yield Case("a ping in fragments", [fragments(PING, [b"fragment1", b"fragment2"])])
    yield Case("text in fragments", [fragments(TEXT, [b"fragment1", b"fragment2", b"", b"x" * 70_000])])
    yield Case("fragments with pings between", [fragments(TEXT, [b"a"] * 5, ping)])
    yield Case("fragments with pings between, byte by byte", cut(fragments(TEXT, [b"a"] * 5, ping), 1))
    yield Case("nothing to continue", [frame(CONTINUATION, b"x"), frame(TEXT, b"y")])
    yield Case("a fragment that is not continued", [frame(TEXT, b"x", fin=False), frame(TEXT, b"y")])
    yield Case("an end that never comes", [frame(TEXT, b"x", fin=False)])


def characters() -> Iterator[Case]:
    for text in ("κόσμε", "\U0010ffff", "\x00", "￿"):
        yield Case(f"text {text!r}", [frame(TEXT, text.encode())])
        yield Case(f"text {text!r} in fragments", [fragments(TEXT, cut(text.encode(), 1))])
    for bad in (b"\x80", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xce\xba\xe1\xbd", b"\xff"):
        yield Case(f"text {bad!r}", [frame(TEXT, bad)])
        yield Case(f"text {bad!r} in fragments", [fragments(TEXT, [b"x", *cut(bad, 1), b"y"])])
        yield Case(f"a reason {bad!r}", [close(1000, bad)])


def closes() -> Iterator[Case]:
    codes = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for code in (*codes, 0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield Case(f"close {code}", [close(code, b"reason")])
    yield Case("close without a code", [close(None)])
    yield Case("close with half a code", [frame(CLOSE, b"\x03")])
    yield Case("close that is too long", [frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124)])
    yield Case("a message behind a close", [close(), frame(TEXT, b"late")])
    yield Case("a ping behind a close", [close(), frame(PING)])
    yield Case("a close between fragments", [frame(TEXT, b"x", fin=False), close(), frame(CONTINUATION, b"y")])


def limits() -> Iterator[Case]:
    large = b"BAsd7&jh23" * 1_677_721
    yield Case("binary of 16 MB", [frame(BINARY, large)])
    for size in (1000, 65_536, 4 << 20):
        yield Case(f"1 MB in fragments of {size}", [fragments(BINARY, cut(large[: 1 << 20], size))])
        yield Case(f"1 MB in pieces of {size}", cut(frame(TEXT, large[: 1 << 20]), size))
    yield Case("a thousand messages", [frame(TEXT, b"%d" % number * 10) for number in range(1000)])
    yield Case("a thousand messages at once", [b"".join(frame(TEXT, b"%d" % number) for number in range(1000))])


def compression() -> Iterator[Case]:
    for window in (9, 15):
        for size in (0, 16, 1024, 131_072):
            packer = zlib.compressobj(wbits=-window)
            frames = []
            for number in range(20):
                content = packer.compress(random.Random(number).randbytes(size // 2).hex().encode())
                content += packer.flush(zlib.Z_SYNC_FLUSH)
                frames.append(frame(TEXT, content.removesuffix(b"\x00\x00\xff\xff"), reserved=4))
            yield Case(f"compressed, {size}, window {window}", frames, compressed=True)
    yield Case("compressed, broken", [frame(TEXT, b"\xff" * 9, reserved=4)], compressed=True)


GROUPS = (sizes, pings, reserved, in_fragments, characters, closes, limits, compression)


async def echo(peer: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in peer:
            if message == LAST.decode():
                await peer.close()
            await peer.send(message)


@dataclass(slots=True)
class Transcript:
    """All that the server sends. When a ping is answered among messages, chance decides; their own orders must hold."""

    messages: bytearray = field(default_factory=bytearray)
    controls: bytearray = field(default_factory=bytearray)

    async def read(self, peer: Peer) -> None:
        """Takes frames down up to the Close."""
        opcode = 0
        while opcode != CLOSE:
            head = await peer.read(2)
            opcode, size = head[0] & 0x0F, head[1]
            if size > 125:
                number = await peer.read(2 if size == 126 else 8)
                head, size = head + number, int.from_bytes(number, "big")
            (self.messages if opcode < CLOSE else self.controls).extend(head + await peer.read(size))


async def transcript(port: int, case: Case) -> Transcript:
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    fields.append("Sec-WebSocket-Version: 13")
    if case.compressed:
        fields.append("Sec-WebSocket-Extensions: permessage-deflate")
    async with open_peer(port) as peer:
        peer.patience = 20
        peer.send(request("GET", "/api/v2/echo", *fields))
        head = await peer.head()
        assert (head.status, head.get(b"Sec-WebSocket-Accept")) == (101, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        assert (head.get(b"Sec-WebSocket-Extensions") is not None) == case.compressed
        got = Transcript()
        reading = asyncio.gather(got.read(peer))
        for piece in [*case.pieces, frame(TEXT, LAST)]:
            peer.send(piece)
            await asyncio.sleep(0)
        await reading
        peer.send(close())
        with contextlib.suppress(ConnectionResetError):
            got.controls.extend(await peer.rest())
        return got


@pytest.mark.parametrize("cases", GROUPS)
async def test_a_server_answers_as_it_does_without_the_proxy(cases: object) -> None:
    assert callable(cases)
    async with serve(echo, "127.0.0.1", 0, max_size=None, ping_interval=None, server_header=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with rig(api_url=f"http://127.0.0.1:{port}") as proxy:
            for case in cases():
                direct, through = await transcript(port, case), await transcript(proxy.port, case)
                assert len(direct.controls) > 1, case.name
                assert through == direct, case.name
            await proxy.clients_gone()
            await proxy.upstreams_gone()


# --- raw peers on both ends ---


def upgrading(folder: Path, *, secure: bool) -> contextlib.AbstractAsyncContextManager[tuple[Rig, Peer]]:
    return behind(folder, Server(server_context("localhost") if secure else None), secure=secure)


@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_either_side_sends_arrives_as_it_is(seed: int, secure: bool, tmp_path: Path) -> None:
    rng = random.Random(seed)
    async with upgrading(tmp_path, secure=secure) as (proxy, client):
        # Both sides are early: the client before there is an answer, the upstream right behind its own.
        up, down = rng.randbytes(rng.choice([0, 1, 200_000])), rng.randbytes(rng.choice([0, 1, 500_000]))
        client.send(request("GET", "/api/v2/ws", *HANDSHAKE), up)
        upstream = await proxy.api.accept()
        assert (await upstream.head()).get(b"Authorization") == b"Bearer token-1"
        if seed % 2:
            upstream.send(REFUSED)
            assert (await upstream.head()).get(b"Authorization") == b"Bearer token-2"
        assert await upstream.silent()
        upstream.send(AGREED, down)
        assert (await client.head()).status == 101
        for _ in range(12):
            piece = rng.randbytes(rng.choice([0, 1, 2, 125, 126, 4096, 70_000, 300_000]))
            slowly = rng.choice([1000, 65_536, 1 << 20])
            if rng.random() < 0.5:
                up += piece
                await client.send_slowly(piece, slowly)
            else:
                down += piece
                await upstream.send_slowly(piece, slowly)
        assert await upstream.read(len(up)) == up
        assert await client.read(len(down)) == down
        if secure:  # which can't be half-closed
            upstream.send(b"bye")
            upstream.close()
        else:
            client.end()
            assert await upstream.rest() == b""
            upstream.send(b"bye")
            upstream.end()
        assert await client.rest() == b"bye"
        client.close()
        await proxy.clients_gone()
        await proxy.upstreams_gone()


@pytest.mark.parametrize("seed", range(8))
async def test_our_close_comes_behind_a_frame_and_never_inside_one(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    frames = {masked: some_frames(rng, masked=masked) for masked in (True, False)}
    async with upgrading(tmp_path, secure=False) as (proxy, client):
        upstream = await upgraded(proxy, client)
        async with asyncio.TaskGroup() as tasks:
            talking = [
                tasks.create_task(
                    peer.send_slowly(b"".join(frames[masked]), rng.choice([7001, 65_536])), name="talking"
                )
                for peer, masked in ((client, True), (upstream, False))
            ]
            for _ in range(rng.randrange(40)):
                await asyncio.sleep(0)
            draining = tasks.create_task(proxy.proxy.drain(20), name="drain")
            at_client, at_upstream = await asyncio.gather(client.rest(), upstream.rest())
            for task in talking:
                task.cancel()
            client.end()
            upstream.end()
            await draining
    assert behind_the_first_of(frames[False], at_client) == b"\x88\x02" + GOING_AWAY
    said = behind_the_first_of(frames[True], at_upstream)
    assert (said[:2], len(said)) == (b"\x88\x82", 8)


def some_frames(rng: random.Random, *, masked: bool) -> list[bytes]:
    return [
        frame(rng.choice([TEXT, BINARY, CONTINUATION, PING]), rng.randbytes(size), fin=size % 2 == 0, masked=masked)
        for size in rng.choices([0, 1, 125, 126, 5000, 65_535, 65_536, 200_000], k=40)
    ]


def behind_the_first_of(frames: list[bytes], got: bytes) -> bytes:
    """What follows the frames that arrived, which are the first of those that were sent."""
    for each in frames:
        if not got.startswith(each):
            break
        got = got[len(each) :]
    return got


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_nothing_comes_behind_a_close_that_one_side_has_said_itself(side: str, tmp_path: Path) -> None:
    async with upgrading(tmp_path, secure=False) as (proxy, client):
        upstream = await upgraded(proxy, client)
        near, far = (client, upstream) if side == "client" else (upstream, client)
        said = frame(CLOSE, b"\x03\xe8", masked=side == "client")
        near.send(said)
        assert await far.read(len(said)) == said
        draining = asyncio.gather(proxy.proxy.drain(20))
        assert await far.rest() == b""
        assert (await near.rest())[:1] == b"\x88"
        near.end()
        far.end()
        await draining

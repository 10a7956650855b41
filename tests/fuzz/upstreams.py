"""Whatever an upstream sends, the client gets one legal answer to each request, and none of another request's."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from itertools import cycle

import h11
from hypothesis import strategies as st

from tests.conformance import grammar
from tests.conformance.rules.answers import mended
from tests.fuzz import seeds
from tests.fuzz.readers import Message, Requests, read_answer
from tests.fuzz.stage import stage
from tests.fuzz.wire import Wire

STAYS, ENDS, RESETS = range(3)
"""What the upstream does behind its last byte."""

_NEXT = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"
_ONE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
_TWO = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"
_FIRSTS = (
    b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\n\r\n",
    b"HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"OPTIONS /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"GET /x HTTP/1.0\r\n\r\n",
)  # fmt: skip
_AGAIN = re.compile(rb"HTTP/1\.[0-9] (?:401|417|429)")
"""What may have the request sent once more."""


@dataclass(frozen=True, slots=True)
class Script:
    """What the upstream does with the first request, and the client beside it.

    :ivar pauses: between the pieces: none, a turn of the loop, or some time
    :ivar warm: its connection has served another request before
    :ivar slow: the client takes nothing before all was sent
    """

    first: bytes
    pieces: list[bytes]
    pauses: list[int]
    leaving: int
    warm: bool
    slow: bool

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def method(self) -> bytes:
        return self.first.partition(b" ")[0]


def scripts() -> st.SearchStrategy[Script]:
    """All that upstreams may do."""
    return st.builds(
        Script,
        first=st.sampled_from(_FIRSTS),
        pieces=seeds.pieces(seeds.changed(seeds.answers(), most=2)),
        pauses=st.lists(st.integers(0, 2), min_size=1, max_size=4),
        leaving=st.sampled_from([STAYS, ENDS, ENDS, RESETS]),
        warm=st.booleans(),
        slow=st.booleans(),
    )


@dataclass(slots=True)
class Server:
    """The upstream: by the script for the first request to ``/x``, and as it should be for any other."""

    script: Script
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    wire: Wire | None = None
    """On which the first request came."""

    def connected(self, wire: Wire) -> None:
        requests = Requests()
        seen = 0

        def hear(wire: Wire) -> None:
            nonlocal seen
            new = requests.feed(bytes(wire.sent[seen:]))
            seen = len(wire.sent)
            for message in requests.whole[len(requests.whole) - new :]:
                if message.start[1] == b"/next":
                    wire.feed(_TWO)
                elif self.wire is None and message.start[1] == b"/x":
                    self.wire = wire
                    self.asked.set()
                elif wire is not self.wire:
                    wire.feed(_ONE)

        wire.heard = hear

    async def perform(self) -> None:
        """Does what the script says, once the request is there."""
        await self.asked.wait()
        assert self.wire is not None
        for piece, pause in zip(self.script.pieces, cycle(self.script.pauses), strict=False):
            self.wire.feed(piece)
            if pause:
                await asyncio.sleep((pause - 1) * 0.01)
        if self.script.leaving == ENDS:
            self.wire.feed_end()
        elif self.script.leaving == RESETS:
            self.wire.reset()


async def play(script: Script) -> None:
    """Does it, and checks what must hold."""
    server = Server(script)
    async with stage(server.connected) as built:
        client = built.client
        if script.warm:
            client.feed(b"GET /warm HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.sleep(0.1)
            assert client.sent.endswith(b"\r\n\r\none")
            client.sent.clear()
        client.taking = not script.slow
        client.feed(script.first)
        await server.perform()
        await asyncio.sleep(0.1)
        client.take()
        await asyncio.sleep(0.1)
        client.feed(_NEXT)
    _check(script, bytes(client.sent), built.client)


def _check(script: Script, data: bytes, client: Wire) -> None:
    first, rest = _read(data, script.method, client)
    assert first.whole or client.broken, f"an answer breaks off in silence: {data!r}"
    if first.start[0] != b"101":
        _check_first(script, first)
        _check_second(script, rest, client)


def _read(data: bytes, method: bytes, client: Wire) -> tuple[Message, bytes]:
    try:
        _, answer, rest = read_answer(data, method, ended=client.ended and not client.broken)
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"h11 refuses what reached the client: {error}: {data!r}") from None
    assert answer is not None or client.broken, f"no answer: {data!r}"
    return answer or Message((b"",), []), rest


def _check_first(script: Script, got: Message) -> None:
    """It is what the upstream sent, if that is an answer by the letter; else it is ours, or broken off."""
    if not got.whole or not got.values(b"via"):
        return  # ours, or not whole, which the client sees
    if _AGAIN.search(script.sent) and bytes(got.content) == (b"" if script.method == b"HEAD" else b"one"):
        return  # of the request that was sent once more
    sent = _final(script)
    assert got.start[0] == b"%d" % sent.status, f"{got} of {script.sent!r}"
    bodiless = script.method == b"HEAD" or sent.status in (204, 304)
    assert bytes(got.content) == (b"" if bodiless else sent.content), f"{got} of {script.sent!r}"


def _final(script: Script) -> grammar.Reply:
    """The final answer in what the upstream sent, by the letter once mended; interim ones come before it."""
    data = script.sent
    while True:
        head, end, rest = data.partition(b"\r\n\r\n")
        try:
            reply = _read_reply(head + end)
            if reply.status >= 200 and script.method != b"HEAD" and reply.status not in (204, 304):
                reply = _read_reply(data)
        except grammar.Illegal as illegal:
            raise AssertionError(f"relayed although it is none: {illegal}: {script.sent!r}") from None
        if reply.status >= 200:
            return reply
        data = rest


def _read_reply(data: bytes) -> grammar.Reply:
    return grammar.read_reply(mended(data.decode("latin-1")).encode("latin-1"), bearing=True)


def _check_second(script: Script, data: bytes, client: Wire) -> None:
    """The second request gets its own answer, or sees that the connection has ended."""
    if not data:
        assert client.ended
        return
    got, rest = _read(data, b"GET", client)
    assert not rest, f"more than two answers: {data!r}"
    if got.whole and got.values(b"via"):
        assert (got.start, bytes(got.content)) == ((b"200",), b"two"), f"{got} of {script.sent!r}"

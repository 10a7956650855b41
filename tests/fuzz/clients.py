"""Whatever a client sends, upstreams get requests that it meant, each once, and it gets their answers in order."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from itertools import cycle

import h11
from hypothesis import strategies as st

from tests.conformance import grammar
from tests.fuzz import seeds
from tests.fuzz.readers import ASCII, LlhttpRequests, Message, Requests, contents, read_answer
from tests.fuzz.stage import stage
from tests.fuzz.wire import Wire

STAYS, ENDS, RESETS = range(3)
"""What the client does behind its last byte."""

_OURS = {
    b"host", b"via", b"authorization", b"transfer-encoding", b"content-length", b"connection", b"upgrade", b"te",
    b"max-forwards",
}  # fmt: skip
"""Fields that a request may have at the upstream in another form than the client's."""
_USUAL = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND"}
"""Methods that llhttp knows, and takes for no other protocol's."""
_AUTHORITY = re.compile(rb"(?i)https?://[^/?#]*")
_BLANK_LINES = re.compile(rb"\A(?:\r\n)+")
_PREFIX = re.compile(rb"(?:/k/[^/?]*)?(?:/t/[^/?]*)?(?=[/?]|$)")


@dataclass(frozen=True, slots=True)
class Script:
    """What the client does.

    :ivar pauses: between the pieces: none, a turn of the loop, or some time
    :ivar slow: it takes no answer before all was sent
    """

    pieces: list[bytes]
    pauses: list[int]
    leaving: int
    slow: bool

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)


def scripts() -> st.SearchStrategy[Script]:
    """All that clients may do."""
    return st.builds(
        Script,
        pieces=seeds.pieces(seeds.changed(seeds.requests(), most=3)),
        pauses=st.lists(st.integers(0, 2), min_size=1, max_size=4),
        leaving=st.sampled_from([STAYS, STAYS, ENDS, RESETS]),
        slow=st.booleans(),
    )


@dataclass(slots=True)
class Server:
    """The upstream: it answers each request that is whole with its number.

    :ivar wires: its connections, with what h11 has read of each
    """

    wires: list[tuple[Wire, Requests]] = field(default_factory=list)
    whole: list[Message] = field(default_factory=list)
    """In the order in which they were whole."""

    def connected(self, wire: Wire) -> None:
        requests = Requests()
        self.wires.append((wire, requests))
        seen = 0

        def hear(wire: Wire) -> None:
            nonlocal seen
            new = requests.feed(bytes(wire.sent[seen:]))
            seen = len(wire.sent)
            for message in requests.whole[len(requests.whole) - new :]:
                number = b"%d" % len(self.whole)
                self.whole.append(message)
                wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))

        wire.heard = hear


async def play(script: Script) -> None:
    """Does it, and checks what must hold."""
    server = Server()
    async with stage(server.connected) as built:
        client = built.client
        client.taking = not script.slow
        for piece, pause in zip(script.pieces, cycle(script.pauses), strict=False):
            client.feed(piece)
            if pause:
                await asyncio.sleep((pause - 1) * 0.01)
        if script.leaving == ENDS:
            client.feed_end()
        elif script.leaving == RESETS:
            client.reset()
    meant = _read(script.sent)
    _check_upstream(server)
    _check_meant(server, meant)
    _check_answers(script, client, server, meant)


def _check_upstream(server: Server) -> None:
    for wire, requests in server.wires:
        raw = bytes(wire.sent)
        assert requests.error is None, f"h11 refuses what reached the upstream: {requests.error}: {raw!r}"
        assert requests.messages == requests.whole or wire.broken, f"a request breaks off in silence: {raw!r}"
        if _USUAL.issuperset(message.start[0] for message in requests.messages):
            other = LlhttpRequests(raw)
            assert other.error is None, f"llhttp refuses what reached the upstream: {other.error}: {raw!r}"
            same = contents(requests.whole)[: len(other.whole) if other.upgraded else None]
            assert contents(other.whole) == same, f"h11 and llhttp differ: {raw!r}"
        for message in requests.messages:
            _check_fields(message)


def _check_fields(message: Message) -> None:
    for name in (b"host", b"authorization"):
        assert len(message.values(name)) == 1, message
    assert re.fullmatch(rb"Bearer token-\d+", message.values(b"authorization")[0]), message
    assert message.values(b"host") == [b"upstream.example"], message
    framing = message.values(b"transfer-encoding") + message.values(b"content-length")
    assert len(framing) < 2, message


def _read(data: bytes) -> list[grammar.Message]:
    """What the client meant, by the letter; the last is perhaps not whole."""
    meant: list[grammar.Message] = []
    with contextlib.suppress(grammar.Illegal):
        while data := _BLANK_LINES.sub(b"", data):
            message = grammar.read_request(data, bearing=True)
            meant.append(message)
            if message.content is None or not _stays_open(message):
                break
            data = message.rest
    return meant


def _stays_open(message: grammar.Message) -> bool:
    named = {option.strip(b" \t").lower() for option in b",".join(message.values(b"connection")).split(b",")}
    return b"close" not in named and (message.version > (1, 0) or b"keep-alive" in named)


def _check_meant(server: Server, meant: list[grammar.Message]) -> None:
    """What is whole at the upstream was whole at the client, in this order, with these fields and this content."""
    rest = iter(meant)
    for arrived in server.whole:
        assert any(_is_same(sent, arrived) for sent in rest), f"the client never sent {arrived} in {meant}"


def _is_same(sent: grammar.Message, arrived: Message) -> bool:
    ours = {field for field in arrived.fields if field[0] in _OURS}
    return (
        arrived.start == (sent.method, _passed(sent.method, sent.target).translate(ASCII))
        and bytes(arrived.content) == sent.content
        and set(arrived.fields) - ours <= set(sent.fields)
    )


def _passed(method: bytes, target: bytes) -> bytes:
    absolute = _AUTHORITY.match(target)
    if absolute is not None:
        target = target[absolute.end() :]
        if not target and method == b"OPTIONS":
            return b"*"
    prefix = _PREFIX.match(target)
    target = target[prefix.end() :] if prefix is not None else target
    return target if target.startswith((b"/", b"*")) else b"/" + target


def _check_answers(script: Script, client: Wire, server: Server, meant: list[grammar.Message]) -> None:
    data, count = bytes(client.sent), 0
    numbers: list[bytes] = []
    whole = True
    while data:
        method = meant[count].method if count < len(meant) else None
        answer, data = _read_answer(data, method, ended=client.ended)
        count += 1
        if answer is None or not answer.whole:
            whole = False
            break
        if answer.start == (b"200",) and answer.values(b"via"):
            numbers.append(bytes(answer.content) if method != b"HEAD" else b"%d" % len(numbers))
    assert whole or client.broken, f"an answer breaks off in silence: {bytes(client.sent)!r}"
    assert count <= len(meant) + 1, f"{count} answers to {script.sent!r}: {bytes(client.sent)!r}"
    assert numbers == [b"%d" % number for number in range(len(numbers))], f"answers in another order: {numbers}"
    assert len(numbers) <= len(server.whole)
    if script.leaving == STAYS and script.sent.strip(b"\r\n"):
        assert count or client.broken, f"no answer to {script.sent!r}"


def _read_answer(data: bytes, method: bytes | None, *, ended: bool) -> tuple[Message | None, bytes]:
    """The first answer, and what follows it.

    :param method: None for a request that is none, so that nobody knows whether its answer has content
    """
    methods = [method] if method is not None else [b"GET", b"HEAD"]
    for each in methods:
        with contextlib.suppress(h11.RemoteProtocolError):
            _, answer, rest = read_answer(data, each, ended=ended)
            if each is method or not rest:
                return answer, rest
    raise AssertionError(f"h11 refuses what reached the client: {data!r}")

"""What is sent: the messages of the conformance tests, cut up, joined, and changed where parsers differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from hypothesis import strategies as st

from tests.conformance import desync, rules
from tests.conformance.cases import Entry, Names, entries
from tests.conformance.script import Send

_LINE_END = re.compile(rb"\n")
_NAMES = Names("localhost", "", "")
_LONGEST = 12_000
"""Bytes of a message; nothing is learned from the repetition that makes longer ones."""
_PIECES = [
    *(bytes([byte]) for byte in (0, 9, 10, 11, 12, 13, 32, 34, 44, 47, 48, 53, 58, 59, 92, 0x7F, 0x80, 0xA0, 0xFF)),
    b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\n ", b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\n", b"1\r\n", b"X: y\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"transfer-encoding:chunked\r\n", b"Connection: close\r\n", b"TE: trailers\r\n",
    b"Connection: keep-alive, Content-Length\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"Host: localhost\r\n", b"Host: evil.example\r\n", b"Authorization: Bearer x\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 ", b"HTTP/1.0", b"chunked", b"POST / ", b" HTTP/1.1\r\n",
]  # fmt: skip


def _all_entries() -> Iterable[Entry]:
    yield from entries()
    yield from rules.entries()


@cache
def requests() -> list[bytes]:
    """Of clients."""
    cases = [entry.case(_NAMES) for entry in _all_entries()]
    sent = {b"".join(step.data for step in case.client if isinstance(step, Send) and step.times == 1) for case in cases}
    return sorted(each for each in sent.union(desync.corpus(_NAMES).values()) if each and len(each) < _LONGEST)


@cache
def answers() -> list[bytes]:
    """Of upstreams."""
    replies = [reply for entry in _all_entries() for reply in entry.case(_NAMES).upstream]
    sent = {
        b"".join(step.data for step in reply.steps if isinstance(step, Send) and step.times == 1) for reply in replies
    }
    return sorted(each for each in sent if each and len(each) < _LONGEST)


def _anywhere(data: bytes) -> st.SearchStrategy[int]:
    """A place in these bytes, a line's beginning as often as any other."""
    anywhere = st.integers(0, len(data))
    lines = [line.end() for line in _LINE_END.finditer(data)]
    return st.one_of(st.sampled_from(lines), anywhere) if lines else anywhere


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes], *, most: int) -> bytes:
    """Up to so many of the seeds in a row, with up to four changes."""
    data = b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=most)))
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2, 4)))):
        at = draw(_anywhere(data))
        match draw(st.integers(0, 4)):
            case 0 | 1:
                data = data[:at] + draw(st.sampled_from(_PIECES)) + data[at:]
            case 2:
                data = data[:at] + data[at + draw(st.integers(1, 20)) :]
            case 3:
                data = data[:at] + draw(st.sampled_from(_PIECES)) + data[at + 1 :]
            case _:
                again = draw(st.integers(1, 60))
                data = data[:at] + data[max(0, at - again) : at] + data[at:]
    return data


@st.composite
def pieces(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> list[bytes]:
    """A message as it arrives: at once, byte by byte, or cut anywhere."""
    data = draw(messages)
    how = draw(st.integers(0, 9))
    if how < 2 or not data:
        return [data]
    if how == 2 and len(data) < 3000:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]

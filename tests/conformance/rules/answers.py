"""Answers that two HTTP parsers may read differently (response splitting, cache poisoning), made by rule.

``grammar`` reads each by the letter, once folded lines and blanks before colons are mended as a proxy must
(RFC 9112 5.1, 5.2) and chunk extensions read past whatever they say: a legal one is relayed with the content that
it has, any other becomes a 502.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from tests.conformance import desync
from tests.conformance.grammar import Illegal, IllegalContent, read_reply
from tests.conformance.rules.making import (
    CLOSE,
    EVIL,
    Demands,
    Entries,
    Family,
    chunked,
    coded,
    got,
    request,
    seen,
    unframed,
)

_CHUNKS = chunked("hello")
_LONGEST_LENGTH = 18
"""Digits that the proxy reads of a length."""
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")
_BLANK_BEFORE_COLON = re.compile(r"(?m)^([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]+:")
_STATUS_LINES = (
    "HTTP/1.1 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200  OK", "HTTP/1.1 200\tOK", "HTTP/1.1  200 OK",
    "HTTP/1.1\t200 OK", "HTTP/1.1 200OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 099 OK", "HTTP/1.1 000 OK",
    "HTTP/1.1 0200 OK", "HTTP/1.1 +20 OK", "HTTP/1.1 -20 OK", "HTTP/1.1 2 0 OK", "HTTP/1.1 2x0 OK",
    "HTTP/1.1 \xb2\xb2\xb2 OK", "HTTP/1.1 OK 200", "HTTP/1.1", "HTTP/1.1 ", "200 OK", "OK", " HTTP/1.1 200 OK",
    "\x00HTTP/1.1 200 OK", "HTTP/1.1 200 O\x00K", "HTTP/1.1 200 O\x0bK", "HTTP/1.1 200 O\x7fK", "HTTP/1.1 200 O\rK",
    "HTTP/1.1 200 O\nK", "HTTP/1.1 200 OK\r", "HTTP/1.1 200 OK\n", "HTTP/1.1 200 \xd6K", "HTTP/1.1 200 a\tb",
    "HTTP/1.1 599 x", "HTTP/1.1 999 x", "GET / HTTP/1.1", "HTTP/1.0 200 OK", "HTTP/1.2 200 OK", "HTTP/0.9 200 OK",
    "HTTP/2.0 200 OK", "HTTP/2 200 OK", "HTTP/1 200 OK", "HTTP/1.10 200 OK", "HTTP/1.01 200 OK", "HTTP/01.1 200 OK",
    "HTTP/11 200 OK", "http/1.1 200 OK", "HTTP /1.1 200 OK", "HTTP/1.1, 200 OK", "HTP/1.1 200 OK", "ICY 200 OK",
    "RTSP/1.0 200 OK", "HTTPS/1.1 200 OK", "<html>", "SSH-2.0-OpenSSH_9", "\x15\x03\x01\x00\x02\x02\x46",
)  # fmt: skip
_BEFORE = ("\r\n", "\n", "\r\n\r\n", " ", "\x00", "\r", "x\r\n")

_Variants = Iterator[tuple[str, str]]


def entries() -> Entries:
    family = Family("odd answer", "RFC 9112 4, 5, 6, 7; RFC 9110 5.5, 8.6", level="SEC")
    for variants in (_odd_bytes, _codings, _lengths, _names, _lines, _line_ends, _status_lines, _chunks):
        name = variants.__name__.strip("_").replace("_", " ")
        for variant, sent in variants():
            yield family.case(f"{name}, {variant}", request(), *_expected(sent), upstream=[[sent, CLOSE], EVIL])


def _expected(sent: str) -> list[Demands]:
    """What the client gets of a connection that brings this and then ends."""
    refused = got(status=[502], raw_absent=["EVIL"]) | seen(requests=1)
    # What came before a defect in the content may be on its way already.
    broken = got(status=[200], truncated=True, closed=True)
    try:
        reply = read_reply(mended(sent).encode("latin-1"), bearing=True)
    except IllegalContent:
        return [refused, broken]
    except Illegal:
        return [refused]
    codings = [value.lower() for name, value in reply.fields if name == b"transfer-encoding"]
    lengths = [value for name, value in reply.fields if name == b"content-length"]
    if codings not in ([], [b"chunked"]) or any(len(value) > _LONGEST_LENGTH for value in lengths):
        return [refused]
    if reply.content is None:
        return [refused, broken]
    content = reply.content.decode("latin-1")
    return [got(status=[reply.status], body=content, complete=True, raw_absent=["EVIL"]) | seen(requests=1)]


def mended(sent: str) -> str:
    """As a proxy reads it: folded lines are one, and no blank stands before a colon."""
    head, end, rest = sent.partition("\r\n\r\n")
    line, line_end, section = head.partition("\r\n")
    section = _BLANK_BEFORE_COLON.sub(r"\1:", _FOLD.sub(" ", section))
    return line + line_end + section + end + rest


def _odd_bytes() -> _Variants:
    for (place, line), odd in product(desync.PLACES.items(), desync.ODD_BYTES):
        yield f"{odd:#04x} {place}", unframed(line.replace("?", chr(odd)), body=_CHUNKS)
    for (place, line), odd in product(desync.PLACES.items(), b"\n\x0b "):
        sent = unframed(line.replace("?", chr(odd)), "Content-Length: 5", body="0\r\n\r\n" + EVIL)
        yield f"{odd:#04x} {place} and a length", sent


def _codings() -> _Variants:
    for coding in desync.CODINGS:
        yield ascii(coding), unframed(f"Transfer-Encoding: {coding}", body=_CHUNKS)
        for lines in (
            [f"Transfer-Encoding: {coding}", "Content-Length: 5"],
            ["Content-Length: 5", f"Transfer-Encoding: {coding}"],
        ):
            yield f"{lines!a}", unframed(*lines, body="0\r\n\r\n" + EVIL)
    for pair in desync.TWO_CODINGS:
        yield ascii(pair), unframed(*(f"Transfer-Encoding: {coding}" for coding in pair), body=_CHUNKS)
    yield "chunked in HTTP/1.0", coded(body=_CHUNKS, version="HTTP/1.0")


def _lengths() -> _Variants:
    for length in desync.LENGTHS:
        yield ascii(length), unframed(f"Content-Length: {length}", body="hello" + EVIL)
    for pair in desync.TWO_LENGTHS:
        yield ascii(pair), unframed(*(f"Content-Length: {length}" for length in pair), body="hello" + EVIL)


def _names() -> _Variants:
    for pattern in desync.NAMES:
        name = pattern.format("Transfer-Encoding")
        yield ascii(name), unframed("A: b", f"{name}: chunked", body=_CHUNKS)
        both = unframed("A: b", f"{name}: chunked", "Content-Length: 5", body="0\r\n\r\n" + EVIL)
        yield f"{name!a} and a length", both
        name = pattern.format("Content-Length")
        yield ascii(name), unframed("A: b", f"{name}: 5", "Content-Length: 0", body=EVIL)


def _lines() -> _Variants:
    for line in desync.FIELD_LINES:
        yield ascii(line), unframed(line, "Content-Length: 5", body="hello")
        yield f"{line!a}, last", unframed("Content-Length: 5", line, body="hello")


def _line_ends() -> _Variants:
    whole = unframed("A: b", "Content-Length: 5", body="hello")
    for end in desync.LINE_ENDS:
        yield f"{end!a} everywhere", whole.replace("\r\n", end)
        yield f"{end!a} behind the status line", whole.replace("\r\n", end, 1)
        yield f"{end!a} behind a field", whole.replace("A: b\r\n", f"A: b{end}")
        yield f"{end!a} behind the head", whole.replace("5\r\n\r\n", f"5\r\n{end}")
    for before in _BEFORE:
        yield f"{before!a} before it", before + whole


def _status_lines() -> _Variants:
    for line in _STATUS_LINES:
        yield ascii(line), f"{line}\r\nContent-Length: 5\r\n\r\nhello"
    yield "none", "hello"
    yield "HTTP/0.9", "<html>hello</html>\r\n\r\n"


def _chunks() -> _Variants:
    for data in desync.CHUNKED:
        yield ascii(data), coded(body=data)
        yield f"{data!a} behind a whole one", coded(body=chunked("whole")[:-5] + data)

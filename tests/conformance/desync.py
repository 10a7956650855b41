"""Requests that two HTTP parsers in a row may read differently (request smuggling), made by rule.

Each is labelled by ``grammar``. The families follow the classes that AWS's http-desync-guardian tells apart and
the places where PortSwigger's and other scanners put odd bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import product

from tests.conformance.cases import Case, Names
from tests.conformance.grammar import Illegal, IllegalContent, Message, read_request
from tests.conformance.messages import NO_STATUS
from tests.conformance.observation import Observation
from tests.conformance.script import Send

_LIMIT = 1.0
"""Seconds in which a request is answered or given up."""
_SETTLE = 0.05

ODD_BYTES = bytes([0x01, 0x04, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1F, 0x20, 0x7F, 0xA0, 0xFF])
"""Those that some parser takes for a blank, a line's end, or nothing."""

PLACES: Mapping[str, str] = {
    "before the name": "?Transfer-Encoding: chunked",
    "behind the name": "Transfer-Encoding?: chunked",
    "before the value": "Transfer-Encoding:?chunked",
    "behind the value": "Transfer-Encoding: chunked?",
    "before the name in another field": "X: X?Transfer-Encoding: chunked",
    "behind the value before another field": "Transfer-Encoding: chunked?X: X",
    "behind CR before the name": "X: X\r?Transfer-Encoding: chunked",
    "behind CR before another field": "Transfer-Encoding: chunked\r?X: X",
    "before LF before the name": "X: X?\nTransfer-Encoding: chunked",
    "before LF before another field": "Transfer-Encoding: chunked?\nX: X",
}
"""Where an odd byte (``?``) goes in or around ``Transfer-Encoding: chunked``."""

CODINGS = (
    "chunked", "Chunked", "CHUNKED", "chunked,", ",chunked", ", chunked", "chunked, chunked",
    "gzip, chunked", "deflate, gzip, chunked", "chunked, gzip", "gzip", "identity", "identity, chunked",
    "chunked, identity", "xchunked", "chunkedx", "chunk", "cow", "chunked cow", "cow chunked", '"chunked"',
    "'chunked'", "chunked;p", "chunked ; p", "chunked;", ";chunked", "chun ked", "", ",",
    "[chunked]", "chunked=1",
)  # fmt: skip
TWO_CODINGS = (
    ("chunked", "chunked"), ("chunked", "cow"), ("cow", "chunked"), ("gzip", "chunked"),
    ("chunked", "gzip"), ("identity", "chunked"), ("chunked", "identity"), ("chunked", ""), ("", "chunked"),
)  # fmt: skip
LENGTHS = (
    "5", "05", "0000000000000000000005", "+5", "-5", "5,5", "5, 5", "5,6", "5 5", "5;5", "5.0", "5e0",
    "0x5", "5h", "1_0", "\xb2", "\xef\xbc\x95", "\x0b5", "5\x0b", "\x0c5", "5\x00", "\x005", "\xa05",
    "5\xa0", "5\x01", '"5"', "", "five", "4294967301", "9223372036854775813", "18446744073709551621",
    "36893488147419103237",
)  # fmt: skip
TWO_LENGTHS = (("5", "5"), ("5", "6"), ("6", "5"), ("5", "0"), ("0", "5"), ("5", ""), ("", "5"), ("5", "05"))
NAMES = (
    "{} ", "{}\t", "{}   ", " {}", "\t{}", "{}\x00", "\x00{}", "\x01{}", "{}\x01", "\xa0{}", "{}\xa0",
    "{}\x85", "\xe2\x80\x89{}", "{}\xe2\x80\x89", ":{}", "{}:", "{}\r", "\r{}", "{}\x7f", '"{}"', "({})",
    "X {}", "{},", "{}/",
)  # fmt: skip
"""What may be done to a framing field's name (``{}``)."""
_LOOKALIKES = (
    "Transfer_Encoding", "Transfer--Encoding", "Transfer.Encoding", "TransferEncoding",
    "Transfer- Encoding", "Transfer Encoding", "X-Transfer-Encoding", "Content_Length", "ContentLength",
    "Content Length", "Content--Length",
)  # fmt: skip
FIELD_LINES = (
    "X: v", "X:v", "X:", "X:\tv\t", "X: v\x00", "X: \x00v", "X: a\x00b", "X: a\rb", "X: a\nb", "X: \rv",
    "X: v\r", "X: v\n", "X: a\x01b", "X: a\x7fb", "X: a\x80\xffb", "X : v", "X\t: v", " X: v", "\tX: v",
    ": v", "   : v", "X", "X Y: v", "X\x00: v", "X\r: v", "X\n: v", "X: a\r\n b", "X: a\r\n\tb",
    "X: a\n b", "X: a\r\n \r\n b", "X: a\r\n Content-Length: 5", "X: a\nContent-Length: 5",
    "X: a\rContent-Length: 5", "X: a\n\nGET /smuggled HTTP/1.1", "My!#$%&'*+-.^_`|~9: v", "My\xe9: v",
    "X\xa0: v", "X(Y): v", "{X}: v", "X/Y: v", "X@Y: v", "=X: v",
)  # fmt: skip
_VERSIONS = (
    "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/1.9", "HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/1.10",
    "HTTP/1.01", "HTTP/01.1", "HTTP/11", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/1,1", "HTTP/ 1.1",
    "HTTP /1.1", "http/1.1", "Http/1.1", "HTTPS/1.1", "HTP/1.1", "ICY/1.1", "HTTP/1.1 ", "HTTP/1.1\t",
    "HTTP/1.1\x0b", "HTTP/1.1\x00", "HTTP/1.1 HTTP/1.1", "HTTP/1.1, HTTP/1.0", "HTTP/+1.1", "HTTP/1.-1",
    "HTTP/\xb9.1", "",
)  # fmt: skip
_METHODS_WITH_CONTENT = ("GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "PROPFIND")
_METHODS = (
    "get", "Post", "G", "GET\t", "GET\x00", "GE\x01T", "G\xcbT", " GET", "\tGET", "(GET)", "GET,", "G/T",
    "\x00GET", "GET  ",
)  # fmt: skip
_TARGETS = (
    "/a%09b", "/a%20b", "/a%0Db", "/a%0Ab", "/a?b=c&%dd=%ee", "/a;b", "/a?", "/a??b", "/a//b",
    "/~!$&'()*+,;=:@", "/a\tb", "/a\x01b", "/a\x00b", "/a\rb", "/a\nb", "/a\x0bb", "/a\x7fb", "/a\xe9b",
    "\x00/a", "\t/a", "/a b", "/a?b=c d", "/a\t", "/a#b", "/a<b>", '/a"b', "/a\\b", "/a|b", "/a^b", "/a`b",
    "/a{b}", "/a\tHTTP/1.1", "/a\rHTTP/1.1", "/a\nHTTP/1.1", "/a HTTP/1.1\nX: ",
    "/a\tHTTP/1.1\r\nHost: localhost\r\n\r\nGET\t/smuggled\t",
)  # fmt: skip
CHUNKED = (
    "5\r\nhello\r\n0\r\n\r\n", "05\r\nhello\r\n0\r\n\r\n", "000000000000005\r\nhello\r\n0\r\n\r\n",
    "5;x\r\nhello\r\n0\r\n\r\n", "5;x=y\r\nhello\r\n0\r\n\r\n", '5;x="y;\\"z"\r\nhello\r\n0\r\n\r\n',
    "5 ;x\r\nhello\r\n0;x\r\n\r\n", "5\r\nhello\r\n00\r\n\r\n", "5\r\nhello\r\n0\r\nX: v\r\n\r\n",
    "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "0\r\n\r\n", "A\r\n0123456789\r\n0\r\n\r\n",
    "a\r\n0123456789\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n",
    "\t5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n", "5_0\r\nhello\r\n0\r\n\r\n", "5Z\r\nhello\r\n0\r\n\r\n",
    "5h\r\nhello\r\n0\r\n\r\n", "5,5\r\nhello\r\n0\r\n\r\n", "5\x00\r\nhello\r\n0\r\n\r\n",
    "\xb5\r\nhello\r\n0\r\n\r\n", "\r\nhello\r\n0\r\n\r\n", ";x\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n", "8000000000000005\r\nhello\r\n0\r\n\r\n",
    "100000005\r\nhello\r\n0\r\n\r\n", "5;a\nX\r\nhello\r\n0\r\n\r\n", "5;a\rX\r\nhello\r\n0\r\n\r\n",
    "5;a\x00\r\nhello\r\n0\r\n\r\n", '5;x="y\r\nhello\r\n0\r\n\r\n', "5;\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello\r\n0\n\r\n", "5\r\nhello\r\n0\r\n\n",
    "5\nhello\n0\n\n", "5\rhello\r\n0\r\n\r\n", "5\r\r\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n",
    "5\r\nhello0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n", "6\r\nhello\r\n0\r\n\r\n", "4\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n-0\r\n\r\n", "5\r\nhello\r\n0x0\r\n\r\n", "5\r\nhello\r\n0\r\nX : v\r\n\r\n",
    "5\r\nhello\r\n0\r\n X: v\r\n\r\n", "5\r\nhello\r\n0\r\nX\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\nb\r\n\r\n", "5\r\nhello\r\n0\r\nX: a\x00b\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n0\r\nHost: evil.example\r\n\r\n", "5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
)  # fmt: skip
LINE_ENDS = ("\n", "\r", "\r\r\n", "\n\r", "\x0b\n", " \r\n", "\x85", "\xe2\x80\xa8")


class Label(StrEnum):
    """What a proxy owes a request."""

    RELAYED = "relayed"
    """Legal and usual: it is answered 200 and reaches the upstream as it was sent."""
    ANSWERED = "answered"
    """Legal: it gets an answer, whichever."""
    REFUSED = "refused"
    """Its head is not legal, so it can be read in two ways or in none: it never reaches the upstream whole."""
    ODD = "odd"
    """Its content is not legal, or not all there: nothing is owed."""


_RELAYED_METHODS = {b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"}
_WITHOUT_CONTENT = {b"GET", b"HEAD", b"OPTIONS"}
_RELAYED_TARGET = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*")
_RELAYED_LENGTH = re.compile(rb"0|[1-9][0-9]*")


def label(data: bytes) -> Label:
    """By the letter of the RFCs, and by what every proxy relays."""
    try:
        message = read_request(data)
    except IllegalContent:
        return Label.ODD
    except Illegal:
        return Label.REFUSED
    if message.content is None:
        return Label.ODD
    codings, lengths = message.values(b"transfer-encoding"), message.values(b"content-length")
    usual = (
        message.method in _RELAYED_METHODS
        and not (message.method in _WITHOUT_CONTENT and (codings or lengths))
        and message.version <= (1, 1)
        and _RELAYED_TARGET.fullmatch(message.target)
        and all(value.isascii() for _, value in message.fields)
        and all(coding.lower() == b"chunked" for coding in codings)
        and all(map(_RELAYED_LENGTH.fullmatch, lengths))
    )
    return Label.RELAYED if usual else Label.ANSWERED


def faults(data: bytes, seen: Observation) -> list[str]:
    """What is wrong with how a proxy treated this request.

    Whatever its label: at most one request reaches the upstream, legal to the letter and framed one way, and
    nothing beside it.
    """
    try:
        arrived = [message for raw in seen.upstream.raw for message in _messages(bytes(raw))]
    except Illegal as illegal:
        return [f"upstream: {illegal}"]
    wrong = [f"upstream: Transfer-Encoding {coding!r}" for coding in _codings(arrived) if coding.lower() != b"chunked"]
    if len(arrived) > 1 or any(b"/smuggled" in message.target for message in arrived):
        wrong.append(f"upstream: smuggled {[message.target for message in arrived]!r}")
    return wrong + _owed(data, seen, arrived)


def _owed(data: bytes, seen: Observation, arrived: list[Message]) -> list[str]:
    """What the request should have got and did not."""
    status = seen.answers[0].status or NO_STATUS if seen.answers else NO_STATUS
    # Nobody is turned away without an answer, whatever was sent.
    if status <= NO_STATUS and (seen.ended or label(data) in (Label.RELAYED, Label.ANSWERED)):
        return ["client: no answer"]
    match label(data):
        case Label.REFUSED if any(message.content is not None for message in arrived):
            return ["upstream: what can be read in two ways, or in none, was passed on in one"]
        case Label.RELAYED:
            sent = read_request(data)
            if status != 200 or not any(_is_same(sent, message) for message in arrived):
                return [f"client: status {status}; upstream: {arrived or 'nothing'}; wanted: 200, and {sent}"]
    return []


def _codings(messages: Iterable[Message]) -> Iterator[bytes]:
    return (coding for message in messages for coding in message.values(b"transfer-encoding"))


def _messages(data: bytes) -> Iterator[Message]:
    """The requests on an upstream connection; the last may have broken off inside its content."""
    while data:
        message = read_request(data)
        yield message
        data = message.rest


def _is_same(sent: Message, arrived: Message) -> bool:
    """The path prefix is for the proxy and may be gone."""
    return sent.content == arrived.content and sent.target.endswith(arrived.target)


@functools.cache
def corpus(names: Names) -> Mapping[str, bytes]:
    """All requests by their ids, for one way through the proxy."""
    make = _Maker(names)
    requests = [
        (f"{family.__name__.strip('_').replace('_', ' ')}: {variant}", text.encode("latin-1"))
        for family in _FAMILIES
        for variant, text in family(make)
    ]
    by_id = dict(requests)
    assert len(by_id) == len(requests), "two requests have one id"
    return by_id


def case(name: str, names: Names) -> Case:
    """A request of the corpus as a case; ``faults`` judges it."""
    data = corpus(names)[name]
    method = data.split(b" ")[0].decode("latin-1")
    return Case(name, (Send(data),), (), (), methods=(method,), limit=_LIMIT, settle=_SETTLE)


class _Maker:
    """Puts requests together."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.smuggled = names.fill("GET ${P}/smuggled HTTP/1.1\r\nHost: ${H}\r\n${X}\r\n")

    def __call__(
        self, *lines: str, body: str = "", method: str = "POST", target: str = "/x", version: str = " HTTP/1.1"
    ) -> str:
        """A request with these field lines behind Host, and a body sent as it is."""
        head = self._names.fill(f"{method} ${{P}}{target}{version}\r\nHost: ${{H}}\r\n${{X}}")
        return head + "".join(f"{line}\r\n" for line in lines) + "\r\n" + body


_Variants = Iterator[tuple[str, str]]


def _odd_byte_in_transfer_encoding(make: _Maker) -> _Variants:
    for (place, line), odd in product(PLACES.items(), ODD_BYTES):
        yield f"{odd:#04x} {place}", make(line.replace("?", chr(odd)), body="5\r\nhello\r\n0\r\n\r\n")


def _odd_byte_beside_content_length(make: _Maker) -> _Variants:
    body = "0\r\n\r\n" + make.smuggled
    for (place, line), odd in product(PLACES.items(), ODD_BYTES):
        odd_line = line.replace("?", chr(odd))
        yield f"{odd:#04x} {place}", make(odd_line, f"Content-Length: {len(body)}", body=body)


def _transfer_coding(make: _Maker) -> _Variants:
    for coding in CODINGS:
        yield ascii(coding), make(f"Transfer-Encoding: {coding}", body="5\r\nhello\r\n0\r\n\r\n")
    for first, second in TWO_CODINGS:
        lines = f"Transfer-Encoding: {first}", f"Transfer-Encoding: {second}"
        yield ascii((first, second)), make(*lines, body="5\r\nhello\r\n0\r\n\r\n")


def _transfer_coding_and_content_length(make: _Maker) -> _Variants:
    body = "0\r\n\r\n" + make.smuggled
    for coding in CODINGS:
        lines = f"Transfer-Encoding: {coding}", f"Content-Length: {len(body)}"
        yield ascii(coding), make(*lines, body=body)
        yield f"{coding!a} behind it", make(*reversed(lines), body=body)


def _content_length(make: _Maker) -> _Variants:
    for length in LENGTHS:
        yield ascii(length), make(f"Content-Length: {length}", body="hello")
    for first, second in TWO_LENGTHS:
        lines = f"Content-Length: {first}", f"Content-Length: {second}"
        yield ascii((first, second)), make(*lines, body="hello")


def _framing_field_name(make: _Maker) -> _Variants:
    body = "0\r\n\r\n" + make.smuggled
    length = f"Content-Length: {len(body)}"
    for pattern in NAMES:
        name = pattern.format("Transfer-Encoding")
        yield ascii(name), make("A: b", f"{name}: chunked", body="5\r\nhello\r\n0\r\n\r\n")
        yield f"{name!a} and a length", make("A: b", f"{name}: chunked", length, body=body)
        name = pattern.format("Content-Length")
        yield ascii(name), make("A: b", f"{name}: 5", length, body=body)
    for name in _LOOKALIKES:
        yield ascii(name), make(f"{name}: {'chunked' if name.endswith('ing') else '5'}")


def _field_line(make: _Maker) -> _Variants:
    for line in FIELD_LINES:
        yield ascii(line), make(line, "Content-Length: 5", body="hello")


def _line_end(make: _Maker) -> _Variants:
    whole = make("A: b", "Content-Length: 5", body="hello")
    head, body = whole[: -len("hello")], "hello"
    for end in LINE_ENDS:
        yield f"{end!a} everywhere", head.replace("\r\n", end) + body
        yield f"{end!a} behind the request line", head.replace("\r\n", end, 1) + body
        yield f"{end!a} behind a field", head.replace("A: b\r\n", f"A: b{end}") + body
        yield f"{end!a} behind the head", head.removesuffix("\r\n") + end + body


def _version(make: _Maker) -> _Variants:
    for version in _VERSIONS:
        end = f" {version}" if version else ""
        yield ascii(version), make(version=end, method="GET")
        chunked = "Transfer-Encoding: chunked"
        yield f"{version!a} with chunks", make(chunked, body="5\r\nhello\r\n0\r\n\r\n", version=end)


def _method(make: _Maker) -> _Variants:
    for method in _METHODS:
        yield ascii(method), make(method=method)
    for method in _METHODS_WITH_CONTENT:
        yield method, make(method=method)
        yield f"{method} with an empty body", make("Content-Length: 0", method=method)
        yield f"{method} with a length", make("Content-Length: 5", body="hello", method=method)
        chunked = "Transfer-Encoding: chunked"
        yield f"{method} with chunks", make(chunked, body="5\r\nhello\r\n0\r\n\r\n", method=method)


def _target(make: _Maker) -> _Variants:
    for target in _TARGETS:
        yield ascii(target), make(method="GET", target=target)


def _chunks(make: _Maker) -> _Variants:
    for body in CHUNKED:
        yield ascii(body), make("Transfer-Encoding: chunked", body=body)


_FAMILIES: tuple[Callable[[_Maker], _Variants], ...] = (
    _odd_byte_in_transfer_encoding,
    _odd_byte_beside_content_length,
    _transfer_coding,
    _transfer_coding_and_content_length,
    _content_length,
    _framing_field_name,
    _field_line,
    _line_end,
    _version,
    _method,
    _target,
    _chunks,
)

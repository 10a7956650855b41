"""The grammar of HTTP/1.1 heads and the rules for where a message's body ends (RFC 9112 2 to 6), pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from proxy.core.fields import Fields, Shape, options
from proxy.errors import BadRequest, FieldsTooLarge, UnknownCoding, UpstreamProtocolError, VersionNotSupported

CHUNKED = -1
"""Length of a body that chunked transfer coding delimits."""
UNTIL_CLOSE = -2
"""Length of an answer's body that the end of the connection delimits (RFC 9112 6.3, rule 8)."""

LONGEST_LENGTH = 18
"""Digits of a length; more could overflow the 64 bits that others count in."""

SMALL = 2048
"""Bytes of a request's head or section up to which what was read of it is remembered, 512 times at most each:
programs ask for the same things again, with the same fields."""

SMALL_LINE = 64
"""The same for a status line, of which there are few."""

MOST_FIELDS = 1000
"""Field lines in one section, whatever else is configured."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN)
_TEXT = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""What a field line is made of (RFC 9110 5.5): no control character but the tab."""
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb') ([!"$-~\x80-\xff]+) HTTP/1\.([0-9])')
_OTHER_VERSION = re.compile(_TOKEN + rb" [!-~\x80-\xff]+ HTTP/(?!1)[0-9]\.[0-9]")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_FOLD = re.compile(rb"[ \t]*\r\n[ \t]+")
_BLANK_BEFORE_COLON = re.compile(rb"(?m)^(" + _TOKEN + rb")[ \t]+:")


@dataclass(slots=True, eq=False)
class Section:
    """A request's fields, and what they say of its body and its connection; shared by all requests that have them."""

    fields: Fields
    length: int
    """Of the body in bytes, or ``CHUNKED``."""
    keep_alive: bool
    """The client keeps its connection open."""
    upgrade: bytes | None
    """The protocol that the client wants to go on with on this connection, in lower case (RFC 9110 7.8)."""
    trailers: bool
    """The client takes trailer fields (RFC 9110 6.5.1)."""
    memo: object = None
    """For the reader: what was decided on these fields, whatever the request's line."""


@dataclass(slots=True, eq=False)
class RequestHead:
    """A request's line and section; shared by all requests whose heads are the same bytes."""

    method: bytes
    target: bytes
    minor: int
    """Of the version: 0 for HTTP/1.0, else 1, as a later one is read as if it were HTTP/1.1 (RFC 9110 2.5)."""
    section: Section
    memo: object = None
    """For the reader: what was decided on this head, which holds for every request that has it."""


class ResponseHead(NamedTuple):
    """A status line and fields."""

    status: int
    reason: bytes
    """Empty where there is none."""
    minor: int
    fields: Fields


def parse_request(head: bytes) -> RequestHead:
    """The head of a request.

    :param head: up to and with the CRLF of its last line, the empty line left out
    :raises BadRequest: whatever can be read in two ways, or in none
    """
    return _parse_request(head) if len(head) <= SMALL else _parse_request.__wrapped__(head)


@lru_cache(maxsize=512)
def _parse_request(head: bytes) -> RequestHead:
    line, _, block = head.partition(b"\r\n")
    parts = _REQUEST_LINE.fullmatch(line)
    if parts is None:
        if _OTHER_VERSION.fullmatch(line):
            raise VersionNotSupported("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        raise BadRequest("The request line is malformed (RFC 9112 3).")
    method, target, version = parts.groups()
    minor = 0 if version == b"0" else 1
    read = _section if len(block) <= SMALL else _section.__wrapped__
    return RequestHead(method, target, minor, read(minor, block))


@lru_cache(maxsize=512)
def _section(minor: int, block: bytes) -> Section:
    # An SDK sends the same section with every request of a kind, so most are read once.
    fields = parse_fields(block, BadRequest)
    named = options(fields.get(b"connection"))
    upgrade = fields.get(b"upgrade") if minor == 1 and b"upgrade" in named else None
    length = request_length(minor, fields)
    upgrade = None if upgrade is None else upgrade.lower()
    trailers = minor == 1 and b"trailers" in options(fields.get(b"te"))
    return Section(fields, length, stays_open(minor, named), upgrade, trailers)


def parse_response(head: bytes, like: Shape | None = None) -> ResponseHead:
    """The head of an upstream's answer; folded lines and blanks before a colon are mended (RFC 9112 5.1, 5.2).

    :param head: as for ``parse_request``
    :param like: of the answer before this one, which it is likely to have too; only makes it quicker to read
    :raises UpstreamProtocolError: it breaks the grammar in any other way
    """
    line, _, block = head.partition(b"\r\n")
    minor, status, reason = _status_line(line) if len(line) <= SMALL_LINE else _status_line.__wrapped__(line)
    try:
        fields = parse_fields(block, UpstreamProtocolError, like)
    except UpstreamProtocolError:
        block = _BLANK_BEFORE_COLON.sub(rb"\1:", _FOLD.sub(b" ", block))
        fields = parse_fields(block, UpstreamProtocolError)
    return ResponseHead(status, reason, minor, fields)


@lru_cache(maxsize=64)
def _status_line(line: bytes) -> tuple[int, int, bytes]:
    parts = _STATUS_LINE.fullmatch(line)
    if parts is None:
        raise UpstreamProtocolError("The upstream's status line is malformed.")
    return 0 if parts[1] == b"0" else 1, int(parts[2]), parts[3] or b""


def parse_fields(block: bytes, error: type[BadRequest | UpstreamProtocolError], like: Shape | None = None) -> Fields:
    """A header or trailer section.

    :param block: its lines, each with its CRLF
    :param error: what to raise for a line that is no field line, and for any control character (RFC 9110 5.5)
    :param like: the shape that it is likely to have
    """
    lines = block.split(b"\r\n")
    rest = lines.pop()
    if len(lines) > MOST_FIELDS:
        if error is BadRequest:
            raise FieldsTooLarge(f"More than {MOST_FIELDS} field lines.")
        raise error(f"More than {MOST_FIELDS} field lines.")
    # Of each line two bytes are no text, those that end it; any more are control characters.
    well_formed = not rest and len(block.translate(None, _TEXT)) == 2 * len(lines)
    if well_formed and like is not None and like.fits(lines):
        return Fields(block, lines, like)
    shape = _shape_of(lines, small=len(block) <= SMALL) if well_formed else None
    if shape is None:
        raise error("A field line is malformed, or holds a control character or a bare LF (RFC 9110 5.5, RFC 9112 5).")
    return Fields(block, lines, shape)


def _shape_of(lines: list[bytes], *, small: bool) -> Shape | None:
    try:
        names = tuple([line[: line.index(b":")] for line in lines])
    except ValueError:
        return None
    return _shape(names) if small else _shape.__wrapped__(names)


@lru_cache(maxsize=512)
def _shape(names: tuple[bytes, ...]) -> Shape | None:
    return Shape(names) if all(map(_NAME.fullmatch, names)) else None


def request_length(minor: int, fields: Fields) -> int:
    """Where a request's body ends (RFC 9112 6.3); refused wherever two readers could differ.

    :raises BadRequest: both lengths, several, none that is a number, or Transfer-Encoding in HTTP/1.0
    """
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if length is not None or minor == 0:
            raise BadRequest("Transfer-Encoding with Content-Length or in HTTP/1.0 (RFC 9112 6.1).")
        if coding.lower() != b"chunked":
            raise UnknownCoding("Only the chunked transfer coding is implemented (RFC 9112 6.1).")
        return CHUNKED
    if length is None:
        return 0
    if not _is_length(length):
        raise BadRequest("There is more than one Content-Length, or it is not a number (RFC 9112 6.3).")
    return int(length)


def response_length(method: bytes, head: ResponseHead) -> int:
    """Where an answer's body ends (RFC 9112 6.3).

    :raises UpstreamProtocolError: both lengths, several, none that is a number, or an unknown coding
    """
    coding, length = head.fields.get(b"transfer-encoding"), head.fields.get(b"content-length")
    if coding is not None and (length is not None or head.minor == 0):
        raise UpstreamProtocolError("The upstream's answer has Transfer-Encoding and Content-Length or is HTTP/1.0.")
    if coding is not None and coding.lower() != b"chunked":
        raise UpstreamProtocolError("The upstream's answer has an unknown transfer coding.")
    if length is not None and not _is_length(length):
        raise UpstreamProtocolError("The upstream's Content-Length is not one number.")
    if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return 0
    if coding is not None:
        return CHUNKED
    return UNTIL_CLOSE if length is None else int(length)


def _is_length(value: bytes) -> bool:
    return value.isdigit() and len(value) <= LONGEST_LENGTH


def stays_open(minor: int, options: frozenset[bytes]) -> bool:
    """Whether the sender of a message keeps its connection open afterwards (RFC 9112 9.3)."""
    if b"close" in options:
        return False
    return minor == 1 or b"keep-alive" in options

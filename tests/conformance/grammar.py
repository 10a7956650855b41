"""Messages read by the letter of RFC 9110 and RFC 9112: what deviates is illegal, nothing is repaired.

It labels the requests that ``desync`` makes and the answers of ``rules.answers``, and judges what a proxy made of
them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_PARAMETER = rb";" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
"""Without the blanks that a recipient would have to bear: no sender may make them (RFC 9110 5.6.3)."""

# Bytes from 0x80 on are no part of a URI (RFC 3986), but a delimiter to nobody either.
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?")
_FIELD_LINE = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[0-9A-Za-z\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]+")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:" + _PARAMETER + rb")*")
_BORNE_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[\t -~\x80-\xff]*)?")
"""With extensions of any kind, which a recipient reads past."""
_CODING_PARAMETERS = rb"(?:[ \t]*;[ \t]*(?:" + _TOKEN + rb")?)*"
_CHUNKED = re.compile(rb"chunked" + _CODING_PARAMETERS, re.IGNORECASE)
_CODING = re.compile(rb"(?:gzip|x-gzip|compress|x-compress|deflate|identity)" + _CODING_PARAMETERS, re.IGNORECASE)
"""The registered ones, and ``identity``, which RFC 2616 had."""

_NOT_IN_TRAILERS = {b"content-length", b"transfer-encoding", b"host", b"authorization"}
"""RFC 9110 6.5.1: framing, routing and authentication."""
_LARGEST = 2**63 - 1
"""Where a length overflows (RFC 9110 8.6, RFC 9112 7.1: a recipient must expect and refuse it)."""


class Illegal(Exception):
    """The bytes are no legal request; the message tells why."""


class IllegalContent(Illegal):
    """The head is legal, the chunks or the trailers behind it are not."""


@dataclass(frozen=True, slots=True)
class Message:
    """A legal request."""

    method: bytes
    target: bytes
    version: tuple[int, int]
    fields: tuple[tuple[bytes, bytes], ...]
    """Names in lower case."""
    content: bytes | None
    """Without its framing; None where the bytes end before it does."""
    rest: bytes
    """What follows the request."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


def read_request(data: bytes, *, bearing: bool = False) -> Message:
    """The request at the beginning of ``data``; raises ``Illegal``.

    :param bearing: chunk extensions may be malformed, and trailers those that nobody takes note of
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise Illegal(f"no head of a request: {data[:60]!r}")
    line, *lines = head.split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(line)
    if request_line is None:
        raise Illegal(f"request line {line[:80]!r}")
    version = int(request_line[3]), int(request_line[4])
    if version[0] != 1:
        raise Illegal(f"version {version}")
    fields = tuple(map(_read_field, lines))
    _check_host(version, [value for name, value in fields if name == b"host"])
    content, rest = _read_content(version, fields, rest, bearing=bearing)
    return Message(request_line[1], request_line[2], version, fields, content, rest)


@dataclass(frozen=True, slots=True)
class Reply:
    """A legal final answer to GET."""

    status: int
    version: tuple[int, int]
    fields: tuple[tuple[bytes, bytes], ...]
    """Names in lower case."""
    content: bytes | None
    """Without its framing; None where the bytes end before it does."""
    rest: bytes
    """What follows the answer; nothing where the connection's end delimits it."""


def read_reply(data: bytes, *, bearing: bool = False) -> Reply:
    """The answer at the beginning of all that a connection brought; raises ``Illegal``.

    :param bearing: as for ``read_request``
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise Illegal(f"no head of an answer: {data[:60]!r}")
    line, *lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(line)
    if status_line is None:
        raise Illegal(f"status line {line[:80]!r}")
    version, status = (int(status_line[1]), int(status_line[2])), int(status_line[3])
    if version[0] != 1:
        raise Illegal(f"version {version}")
    fields = tuple(map(_read_field, lines))
    framed = any(name in (b"transfer-encoding", b"content-length") for name, _ in fields)
    content, rest = _read_content(version, fields, rest, bearing=bearing) if framed else (rest, b"")
    return Reply(status, version, fields, content, rest)


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        raise Illegal(f"field line {line[:80]!r}")
    return match[1].lower(), match[2]


def _check_host(version: tuple[int, int], hosts: list[bytes]) -> None:
    """RFC 9112 3.2: exactly one, with a legal value; HTTP/1.0 may do without."""
    if len(hosts) > 1 or (not hosts and version >= (1, 1)):
        raise Illegal(f"{len(hosts)} Host fields")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Illegal(f"Host {hosts[0]!r}")


def _read_content(
    version: tuple[int, int], fields: tuple[tuple[bytes, bytes], ...], data: bytes, *, bearing: bool
) -> tuple[bytes | None, bytes]:
    """RFC 9112 6.3, where it leaves no choice."""
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    if codings and lengths:
        raise Illegal("two framings")
    if codings:
        _check_codings(version, codings)
        return _read_chunks(data, bearing=bearing)
    if not lengths:
        return b"", data
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]) or int(lengths[0]) > _LARGEST:
        raise Illegal(f"Content-Length {lengths!r}")
    length = int(lengths[0])
    return (data[:length], data[length:]) if len(data) >= length else (None, b"")


def _check_codings(version: tuple[int, int], values: list[bytes]) -> None:
    """RFC 9112 6.1: ``chunked`` is the last and there once; the others are known."""
    if version < (1, 1):
        raise Illegal("Transfer-Encoding in HTTP/1.0")
    codings = [coding.strip(b" \t") for coding in b",".join(values).split(b",")]
    *others, last = list(filter(None, codings)) or [b""]
    if not _CHUNKED.fullmatch(last) or not all(map(_CODING.fullmatch, others)):
        raise Illegal(f"Transfer-Encoding {values!r}")


def _read_chunks(data: bytes, *, bearing: bool) -> tuple[bytes | None, bytes]:
    content = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None, b""
        match = (_BORNE_CHUNK_LINE if bearing else _CHUNK_LINE).fullmatch(line)
        if match is None or int(match[1], 16) > _LARGEST:
            raise IllegalContent(f"chunk line {line[:40]!r}")
        size = int(match[1], 16)
        if size == 0:
            return _read_trailers(content, data, bearing=bearing)
        if len(data) < size + 2:
            return None, b""
        if data[size : size + 2] != b"\r\n":
            raise IllegalContent(f"chunk ended by {data[size : size + 2]!r}")
        content, data = content + data[:size], data[size + 2 :]


def _read_trailers(content: bytes, data: bytes, *, bearing: bool) -> tuple[bytes | None, bytes]:
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None, b""
        if not line:
            return content, data
        match = _FIELD_LINE.fullmatch(line)
        if match is None or (not bearing and match[1].lower() in _NOT_IN_TRAILERS):
            raise IllegalContent(f"trailer {line!r}")

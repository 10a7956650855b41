"""Header fields: which of them pass a proxy, and the one credential that leaves it (RFC 9110 5, 7.6)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

REMEMBERED = 128
"""Bytes of a name or a value up to which what was decided on it is remembered."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        # Meant for this hop when it is a proxy (RFC 9110 11.7); no upstream of ours is one.
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        # Announces HTTP/2 by upgrade (RFC 7540 3.2.1), which would pass frames around every check.
        b"http2-settings",
    }
)
"""Fields for one connection only (RFC 9110 7.6.1)."""

OURS = frozenset({b"host", b"authorization", b"x-proxy-key", b"trailer"})
"""Request fields whose value at the upstream is decided here; a request's trailers are not passed on."""

UNTOUCHABLE = frozenset({b"content-length"})
"""What ``Connection`` can't take away: without it the body would be read as the next message."""


class Fields:
    """A header section: each line as it came, and each field's combined value. Not changed once it is made.

    :ivar block: the whole section as it came, each line with its CRLF
    :ivar names: the lines' names in lower case, in order
    :ivar lines: the lines as they came, without their CRLF, in order
    :ivar by_name: each field's line by lower-case name, the last where there are several
    :ivar memo: what ``end_to_end_request`` made of it last, because an SDK sends the same section again and again
    """

    __slots__ = ("block", "by_name", "lines", "memo", "names")

    def __init__(self, block: bytes, names: list[bytes]) -> None:
        self.block = block
        self.names = names
        self.lines = lines = block.split(b"\r\n")
        lines.pop()
        self.by_name = dict(zip(names, lines, strict=True))
        self.memo: tuple[tuple[bytes, ...], bytes] | None = None

    def __contains__(self, name: bytes) -> bool:
        """Whether there is a field with this lower-case name."""
        return name in self.by_name

    def get(self, name: bytes) -> bytes | None:
        """The value of the field with this lower-case name, None where it is absent.

        Several lines of one name are joined by ``, `` (RFC 9110 5.3).
        """
        line = self.by_name.get(name)
        if line is None:
            return None
        if len(self.by_name) != len(self.names) and self.names.count(name) > 1:
            lines = [line for each, line in zip(self.names, self.lines, strict=True) if each == name]
            return b", ".join(line[len(name) + 1 :].strip(b" \t") for line in lines)
        return line[len(name) + 1 :].strip(b" \t")


def options(value: bytes | None) -> frozenset[bytes]:
    """The elements of a list-based value such as ``Connection``'s, in lower case (RFC 9110 5.6.1)."""
    if value is None:
        return frozenset()
    return _options(value) if len(value) <= REMEMBERED else _options.__wrapped__(value)


@lru_cache(maxsize=256)
def _options(value: bytes) -> frozenset[bytes]:
    return frozenset(part.strip(b" \t").lower() for part in value.split(b",")) - {b""}


def _stays_here(name: bytes) -> bool:
    return _is_ours(name) if len(name) <= REMEMBERED else _is_ours.__wrapped__(name)


@lru_cache(maxsize=2048)
def _is_ours(name: bytes) -> bool:
    # An upstream that maps "_" to "-" (CGI, WSGI) must not be told by either spelling (CVE-2025-64484).
    name = name.replace(b"_", b"-")
    return name in HOP_BY_HOP or name in OURS or name == b"forwarded" or name.startswith(b"x-forwarded-")


def end_to_end_request(fields: Fields, dropped: tuple[bytes, ...] = ()) -> bytes:
    """The request lines that pass on, each with its CRLF, in order: nothing for this hop, nothing that we decide.

    What ``Connection`` names goes too, but never what we write afterwards: Host, Authorization and the framing
    are safe from it, so no request can take them away (CVE-2022-31813).

    :param dropped: further lower-case names
    """
    if fields.memo is not None and fields.memo[0] == dropped:
        return fields.memo[1]
    gone = _named(fields).union(dropped)
    passing = _section(
        line
        for name, line in zip(fields.names, fields.lines, strict=True)
        if not _stays_here(name) and name not in gone
    )
    fields.memo = (dropped, passing)
    return passing


def end_to_end_response(fields: Fields, dropped: frozenset[bytes] = HOP_BY_HOP) -> bytes:
    """The response lines that pass on, each with its CRLF, in order.

    :param dropped: lower-case names, ``HOP_BY_HOP`` among them
    """
    gone = dropped
    if b"connection" in fields.by_name:
        gone = gone.union(_named(fields))
    if gone.isdisjoint(fields.names):
        return fields.block
    return b"".join(line + b"\r\n" for name, line in zip(fields.names, fields.lines, strict=True) if name not in gone)


def _section(lines: Iterable[bytes]) -> bytes:
    joined = b"\r\n".join(lines)
    return joined + b"\r\n" if joined else b""


def _named(fields: Fields) -> frozenset[bytes]:
    return options(fields.get(b"connection")) - UNTOUCHABLE


def authorize(opening: bytes, credential: bytes | None) -> bytes:
    """A whole request head: the opening with exactly one ``Authorization``, added last, or none.

    :param opening: a request line and the section of ``end_to_end_request``, which never holds one
    :param credential: the field's value, such as ``Bearer …`` (RFC 6750 2.1)
    """
    if credential is None:
        return opening + b"\r\n"
    return b"%bAuthorization: %b\r\n\r\n" % (opening, credential)


def own_bearer(fields: Fields, placeholder: bytes) -> bytes | None:
    """The caller's ``Authorization`` if it is a bearer token and it is a real one, for ``authorization = "fill"``.

    Not real: none, an empty one (the Python SDK's ``Bearer ``), ``[REDACTED]`` (the old chat client's), and
    the placeholder that we gave out.
    """
    value = fields.get(b"authorization") or b""
    scheme, _, token = value.partition(b" ")
    if scheme.lower() != b"bearer" or token.strip(b" ") in (b"", b"[REDACTED]", placeholder):
        return None
    return value

"""Header fields: which of them pass a proxy, and the one credential that leaves it (RFC 9110 5, 7.6)."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import compress

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


_LEADING = frozenset({b"location", b"content-location", b"set-cookie"})

_LOCATION = re.compile(rb"((?:content-)?location:[ \t]*)(?=/(?!/))", re.IGNORECASE)
_COOKIE_PATH = re.compile(rb"(;[ \t]*path[ \t]*=[ \t]*)(?=/)", re.IGNORECASE)

_NOTHING: frozenset[bytes] = frozenset()


class Shape:
    """The names of a section's lines, and what follows from them alone.

    Values change with every message, names hardly ever: what a shape says is worked out once for all sections
    that have the same names in the same order, which is what makes reading and passing on a section cheap.

    :ivar names: in lower case, in order
    :ivar starts: what the lines begin with, as they came
    :ivar at: where each name's line is, its last where there are several
    :ivar repeated: a name has several lines
    :ivar here: the names that no request takes further
    :ivar leads: some name tells a client where to go next, or where to show a cookie
    """

    __slots__ = ("_passing", "at", "here", "leads", "names", "repeated", "starts")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.names = tuple(name.lower() for name in names)
        self.starts = tuple(name + b":" for name in names)
        self.at = {name: number for number, name in enumerate(self.names)}
        self.repeated = len(self.at) != len(self.names)
        self.here = frozenset(name for name in self.at if _stays_here(name))
        self.leads = not _LEADING.isdisjoint(self.at)
        self._passing: dict[frozenset[bytes], tuple[bool, ...]] = {}

    def fits(self, lines: list[bytes]) -> bool:
        """Whether these lines have just these names, spelled so."""
        # By mapping C functions: half of what cutting the names out and looking them up takes.
        return len(lines) == len(self.starts) and all(map(bytes.startswith, lines, self.starts))

    def passing(self, dropped: frozenset[bytes]) -> tuple[bool, ...]:
        """For each line whether it passes where those of ``dropped`` do not.

        Remembered, so only for sets that the program and its settings have: no message may bring its own.
        """
        found = self._passing.get(dropped)
        if found is None:
            found = self._passing[dropped] = self.without(dropped)
        return found

    def without(self, dropped: frozenset[bytes]) -> tuple[bool, ...]:
        """As ``passing``, for a set that a message had a part in."""
        return tuple(name not in dropped for name in self.names)


class Fields:
    """A header section: each line as it came, and each field's combined value. Not changed once it is made.

    :ivar block: the whole section as it came, each line with its CRLF
    :ivar lines: the lines as they came, without their CRLF, in order
    :ivar shape: their names
    """

    __slots__ = ("block", "lines", "shape")

    def __init__(self, block: bytes, lines: list[bytes], shape: Shape) -> None:
        self.block = block
        self.lines = lines
        self.shape = shape

    def __contains__(self, name: bytes) -> bool:
        """Whether there is a field with this lower-case name."""
        return name in self.shape.at

    def get(self, name: bytes) -> bytes | None:
        """The value of the field with this lower-case name, None where it is absent.

        Several lines of one name are joined by ``, `` (RFC 9110 5.3).
        """
        number = self.shape.at.get(name)
        if number is None:
            return None
        if self.shape.repeated and self.shape.names.count(name) > 1:
            lines = [line for each, line in zip(self.shape.names, self.lines, strict=True) if each == name]
            return b", ".join(line[len(name) + 1 :].strip(b" \t") for line in lines)
        return self.lines[number][len(name) + 1 :].strip(b" \t")


def options(value: bytes | None) -> frozenset[bytes]:
    """The elements of a list-based value such as ``Connection``'s, in lower case (RFC 9110 5.6.1)."""
    if value is None:
        return _NOTHING
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
    named, shape = _named(fields), fields.shape
    gone = shape.here.union(dropped)
    return _section(fields, shape.passing(gone) if named <= gone else shape.without(gone | named))


def end_to_end_response(fields: Fields, dropped: frozenset[bytes] = HOP_BY_HOP) -> bytes:
    """The response lines that pass on, each with its CRLF, in order.

    :param dropped: lower-case names, ``HOP_BY_HOP`` among them
    """
    named, shape = _named(fields), fields.shape
    if named <= dropped:
        return _section(fields, shape.passing(dropped))
    return _section(fields, shape.without(dropped | named))


def below(prefix: bytes, fields: Fields) -> Fields:
    """An answer's fields with the paths that they name for the client put below ``prefix``.

    The upstream knows nothing of what stood before the path that it was asked for. A relative ``Location``,
    ``Content-Location`` (RFC 9110 8.7, 10.2.2) or path of a cookie (RFC 6265 4.1.2.4) would lead the client, and
    what it says there, to another tenant. Whole URLs lead elsewhere on purpose.
    """
    lines = [_below(prefix, name, line) for name, line in zip(fields.shape.names, fields.lines, strict=True)]
    return Fields(b"".join(line + b"\r\n" for line in lines), lines, fields.shape)


def _below(prefix: bytes, name: bytes, line: bytes) -> bytes:
    if name == b"set-cookie":
        return _COOKIE_PATH.sub(lambda path: path[1] + prefix, line)
    found = _LOCATION.match(line)
    return line if found is None else found[1] + prefix + line[found.end() :]


def _section(fields: Fields, passing: tuple[bool, ...]) -> bytes:
    if False not in passing:
        return fields.block
    joined = b"\r\n".join(compress(fields.lines, passing))
    return joined + b"\r\n" if joined else b""


def _named(fields: Fields) -> frozenset[bytes]:
    value = fields.get(b"connection")
    if value is None:
        return _NOTHING
    return _taken_away(value) if len(value) <= REMEMBERED else _taken_away.__wrapped__(value)


@lru_cache(maxsize=256)
def _taken_away(connection: bytes) -> frozenset[bytes]:
    return options(connection) - UNTOUCHABLE


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

"""Header fields: which of them pass a proxy, and the one credential that leaves it (RFC 9110 5, 7.6)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

Line = tuple[bytes, bytes]

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
    """A header section: each line as it came, and each field's combined value.

    :ivar lines: lower-case name and the line as it came, without its CRLF, in order
    :ivar values: by lower-case name; several lines of one name joined by ``, `` (RFC 9110 5.3)
    """

    __slots__ = ("lines", "values")

    def __init__(self, lines: list[Line], values: dict[bytes, bytes]) -> None:
        self.lines = lines
        self.values = values

    def get(self, name: bytes) -> bytes | None:
        """The combined value of the field with this lower-case name, None where it is absent."""
        return self.values.get(name)


def options(value: bytes | None) -> frozenset[bytes]:
    """The elements of a list-based value such as ``Connection``'s, in lower case (RFC 9110 5.6.1)."""
    if value is None:
        return frozenset()
    return _options(value)


@lru_cache(maxsize=256)
def _options(value: bytes) -> frozenset[bytes]:
    return frozenset(part.strip(b" \t").lower() for part in value.split(b",")) - {b""}


@lru_cache(maxsize=2048)
def _stays_here(name: bytes) -> bool:
    # An upstream that maps "_" to "-" (CGI, WSGI) must not be told by either spelling (CVE-2025-64484).
    name = name.replace(b"_", b"-")
    return name in HOP_BY_HOP or name in OURS or name == b"forwarded" or name.startswith(b"x-forwarded-")


def end_to_end_request(fields: Fields, dropped: Iterable[bytes] = ()) -> list[bytes]:
    """The request lines that pass on, in their order: nothing for this hop, nothing that we decide.

    What ``Connection`` names goes too, but never what we write afterwards: Host, Authorization and the framing
    are safe from it, so no request can take them away (CVE-2022-31813).

    :param dropped: further lower-case names
    """
    gone = _named(fields).union(dropped)
    return [line for name, line in fields.lines if not _stays_here(name) and name not in gone]


def end_to_end_response(fields: Fields, dropped: Iterable[bytes] = ()) -> list[bytes]:
    """The response lines that pass on, in their order.

    :param dropped: further lower-case names
    """
    gone = _named(fields).union(HOP_BY_HOP, dropped)
    return [line for name, line in fields.lines if name not in gone]


def _named(fields: Fields) -> frozenset[bytes]:
    return options(fields.get(b"connection")) - UNTOUCHABLE


def authorize(lines: list[bytes], credential: bytes | None) -> list[bytes]:
    """The lines of ``end_to_end_request`` with exactly one ``Authorization``, added last, or none.

    :param credential: the field's value, such as ``Bearer …`` (RFC 6750 2.1)
    """
    return lines if credential is None else [*lines, b"Authorization: " + credential]


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

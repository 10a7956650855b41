"""Which tenant a request belongs to, and where it goes, from the target as it came (RFC 9112 3.2)."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

from proxy.errors import BadRequest

PLACEHOLDER = "genesys-auth-proxy-keeps-the-token"
"""Stands for the access and the refresh token in what we tell SDKs; worth nothing to anybody."""

TENANT_NAME = re.compile(rb"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_PREFIX = re.compile(rb"(?:/k/([^/?]*))?(?:/t/([^/?]*))?(?=[/?]|$)")
_USUAL = re.compile(
    # What nearly every program asks for is read in one go (``make bench``). In doubt it is not usual: what stands
    # behind the lookahead begins all paths of guests.
    rb"(?:/k/([^/?]*))?(?:/t/([^/?]*))?(/api/v2(?!/web|/knowledge|/journey)(?:/[a-z0-9_-]++)++(?:\?.*+)?)"
)


class Kind(StrEnum):
    """What a request under a tenant is for."""

    API = "api"
    """To the API, with the tenant's token."""
    GUEST = "guest"
    """To the API, with the guest's own token: a web messaging visitor, not the org."""
    GUEST_TOKEN = "guest_token"
    """A guest's as well; its answer brings the guest a token."""
    GUEST_REVOKE = "guest_revoke"
    """A guest's as well; it ends the token."""
    TOKEN = "token"
    """A token request: answered here."""
    LOGIN_PAGE = "login_page"
    """A page for a person's browser: redirected to the login host."""
    WEBMESSAGING = "webmessaging"
    """The web messaging socket; its tokens are inside the frames."""
    CDN = "cdn"
    """Public deployment files."""
    THIS_HOP = "this_hop"
    """OPTIONS that asks for no hop beyond this one (RFC 9110 7.6.2): answered here."""


class Target(NamedTuple):
    """A request target taken apart without decoding a byte."""

    authority: bytes | None
    """Of an absolute-form target; it counts instead of Host (RFC 9112 3.2.2)."""
    key: bytes | None
    """The caller's key of ``/k/<key>/``."""
    tenant: bytes | None
    """The name of ``/t/<tenant>/``."""
    rest: bytes
    """Path and query that go on, as they came."""
    usual: bool = False
    """It is plainly the API's: a path that every server reads alike, and not a guest's."""

    @property
    def prefix(self) -> bytes:
        """What stood before ``rest``, the authority left out."""
        key = b"" if self.key is None else b"/k/" + self.key
        return key if self.tenant is None else key + b"/t/" + self.tenant


def split(method: bytes, target: bytes) -> Target:
    """The parts of a target in origin, absolute or asterisk form.

    :raises BadRequest: for any other form, or ``*`` with another method
    """
    usual = _USUAL.fullmatch(target)
    if usual is not None:
        key, tenant, rest = usual.groups()
        return Target(None, key, tenant, rest, usual=True)
    authority = None
    if not target.startswith(b"/"):
        if target == b"*":
            if method != b"OPTIONS":
                raise BadRequest("Only OPTIONS may ask for * (RFC 9112 3.2.4).")
            return Target(None, None, None, target)
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise BadRequest("The request target is neither a path nor an http URL (RFC 9112 3.2).")
        authority, target = absolute.groups()
        if not target and method == b"OPTIONS":
            return Target(authority, None, None, b"*")  # the last proxy asks so (RFC 9112 3.2.4)
        if not target.startswith(b"/"):
            target = b"/" + target
    if not target.startswith((b"/t/", b"/k/")):
        return Target(authority, None, None, target)
    prefix = _PREFIX.match(target)
    assert prefix is not None, "a segment ends only where the prefix may"
    rest = target[prefix.end() :]
    return Target(authority, prefix[1], prefix[2], rest if rest.startswith(b"/") else b"/" + rest)


def tenant_of(target: Target, header: bytes | None, host: bytes, default: bytes | None) -> bytes | None:
    """The tenant's name as the request gives it: path, header, host, default, in this order.

    The name is compared exactly with the configured ones, so nothing but that name finds a tenant.
    """
    if target.tenant is not None:
        return target.tenant
    if header is not None:
        return header
    name = host.partition(b":")[0].lower()
    return name.removesuffix(b".localhost") if name.endswith(b".localhost") else default


_GUEST = re.compile(
    rb"/api/v2/(?:"
    rb"webdeployments/token/(?:(?P<token>oauthcodegrantjwtexchange|refresh)|(?P<revoke>revoke))"
    rb"|webmessaging/messages"
    rb"|webdeployments/deployments/[^/]+/cobrowse(?:/.*)?"
    rb"|webmessaging/deployments/[^/]+/pushdevices(?:/.*)?"
    rb"|knowledge/guest(?:/.*)?"
    rb"|journey/deployments(?:/.*)?"
    rb")"
)


_GUESTS = {None: Kind.GUEST, "token": Kind.GUEST_TOKEN, "revoke": Kind.GUEST_REVOKE}


def kind_of(rest: bytes, *, websocket: bool) -> Kind:
    """What a request is for, by its path.

    A path that an upstream could read as a guest's (by decoding, dot segments or case) is a guest's: the org's
    token must never go where a guest's belongs, so in doubt none is injected.
    """
    path = rest.partition(b"?")[0]
    if path.startswith(b"/api/v2/") and not _ODD.search(path):
        guest = _GUEST.fullmatch(path)
        return Kind.API if guest is None else _GUESTS[guest.lastgroup]
    match path:
        case b"/oauth/token":
            return Kind.TOKEN
        case b"/oauth/authorize" | b"/logout":
            return Kind.LOGIN_PAGE
        case b"/v1" if websocket:
            return Kind.WEBMESSAGING
    if path.startswith(b"/webdeployments/"):
        return Kind.CDN
    if any(_GUEST.fullmatch(reading) for reading in readings(path)):
        return Kind.GUEST
    return Kind.API


_ODD = re.compile(rb"[%;\\A-Z\x80-\xff]|//|/\.|\./|[/.]$")
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_PARAMETER = re.compile(rb";[^/]*")
_QUERY = re.compile(rb"[?#]")
_TOO_LONG_UTF_8 = re.compile(rb"[\xc0\xc1][\x80-\xbf]")


def readings(path: bytes) -> tuple[bytes, ...]:
    """Every way in which a server could read this path, the path itself first.

    Decoded once or twice, with and without path parameters, dot segments and empty segments resolved, in lower
    case; and each of these by a lenient reader too, who takes no notice of blanks, controls and dots at a
    segment's end and folds look-alike letters. A rule must hold for all of them, because which one the upstream
    uses can't be known.
    """
    if not _ODD.search(path):
        return (path,)
    return _odd_readings(path) if len(path) <= 2048 else _read_oddly(path)


def _read_oddly(path: bytes) -> tuple[bytes, ...]:
    once = unquote_to_bytes(path)
    found = dict.fromkeys([path])
    for decoded in (path, once, unquote_to_bytes(once)):
        for plain in (decoded, _PARAMETER.sub(b"", decoded)):
            plain = _QUERY.split(plain.replace(b"\\", b"/"), maxsplit=1)[0]
            found.setdefault(_resolve(plain.lower()))
            # A zero byte ends the path for a reader in C.
            for lenient in (plain, plain.partition(b"\0")[0]):
                found.setdefault(_resolve(_leniently(lenient)))
    return tuple(found)


def _leniently(path: bytes) -> bytes:
    if not path.isascii():
        path = _TOO_LONG_UTF_8.sub(lambda found: bytes([(found[0][0] & 1) << 6 | found[0][1] & 0x3F]), path)
        path = normalize("NFKC", path.decode("utf-8", "replace")).casefold().encode()
    segments = _CONTROLS.sub(b"", path).lower().split(b"/")
    return b"/".join(_without_end(segment.strip(b" ")) for segment in segments)


def _without_end(segment: bytes) -> bytes:
    return segment if segment == b".." else segment.rstrip(b". ")


_odd_readings = lru_cache(maxsize=1024)(_read_oddly)


def _resolve(path: bytes) -> bytes:
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    return b"/" + b"/".join(kept)

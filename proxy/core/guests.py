"""What a web messaging guest's JWT and the calls that bring one say; nothing of it is trusted for access."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

from proxy.core.answers import http_date, retry_after
from proxy.core.secret import Secret
from proxy.core.tokens import Instant
from proxy.errors import TokenRefused, TokenUnavailable

LONGEST_CONTENT = 65_536
"""Bytes of an exchange's or a refresh's content that are looked at; they are small JSON objects."""

REFRESH_TOKEN_LIFETIME = 86_400.0
"""Seconds for which a guest's refresh token is of use."""

_BUSY = frozenset({408, 425, 429})


class Issued(NamedTuple):
    """A guest's new JWT, and the refresh token behind it."""

    jwt: str
    refresh_token: str


@dataclass(frozen=True, slots=True)
class GuestNews:
    """What another process of the program needs to serve a guest; the JWT itself is none of it."""

    tenant: str
    refresh_token: str = field(repr=False)
    shown: str | None
    """The digest of a JWT that the guest was given; None: the guest is to be forgotten."""
    obtained: Instant
    lifetime: float
    """Seconds that the JWT lives, from ``obtained``."""


class RefreshedJwt(NamedTuple):
    """What the API issued for a guest's refresh token."""

    jwt: str
    server_time: float | None
    """Unix time of the answer by the API's own clock (RFC 9110 6.6.1), if it said so."""


def issued(sent: bytes, answered: bytes) -> Issued | None:
    """What an exchange or a refresh brought; None where that can't be told.

    :param sent: the request's content, which has the refresh token of a refresh
    :param answered: the answer's, which has that of an exchange
    """
    answer = _json_object(answered)
    jwt = answer.get("jwt")
    refresh_token = answer.get("refreshToken") or _json_object(sent).get("refreshToken")
    if not (_usable(jwt) and _usable(refresh_token)):
        return None
    return Issued(jwt, refresh_token)


def refresh_request(refresh_token: Secret) -> bytes:
    """The content that asks for a new JWT."""
    return json.dumps({"refreshToken": refresh_token.reveal()}).encode()


def read_refreshed(tenant: str, status: int, headers: Mapping[str, str], body: bytes, now: float) -> RefreshedJwt:
    """The new JWT in the answer to a refresh of ours.

    :param headers: case-insensitive
    :param now: Unix time here, to read a ``Retry-After`` date
    :raises TokenUnavailable: none for now
    :raises TokenRefused: this refresh token brings none any more
    """
    what = f"Tenant {tenant}: a guest's refresh was answered"
    if status == 200:
        jwt = _json_object(body).get("jwt")
        if _usable(jwt):
            return RefreshedJwt(jwt, http_date(headers.get("Date")))
        raise TokenUnavailable(f"{what} without a JWT.", error="no_jwt")
    if status >= 500 or status in _BUSY:
        wait = retry_after(headers.get("Retry-After"), now)
        raise TokenUnavailable(f"{what} {status}.", error=f"http_{status}", retry_after=wait)
    raise TokenRefused(f"{what} {status}; the guest must log in again.", error=f"http_{status}")


def bearer(credential: bytes | None) -> str | None:
    """The token in an ``Authorization`` field (RFC 6750 2.1)."""
    scheme, _, token = (credential or b"").partition(b" ")
    token = token.strip(b" ")
    return token.decode("ascii") if scheme.lower() == b"bearer" and token.isascii() and token else None


def _usable(value: object) -> TypeGuard[str]:
    """What can stand in a field behind ``Bearer`` (RFC 6750 2.1)."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and value != "" and " " not in value


def _json_object(content: bytes) -> dict[str, Any]:
    if len(content) > LONGEST_CONTENT:
        return {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

"""Access tokens, refresh tokens and codes: who got them, until when they hold, and what revokes them."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from math import floor
from typing import TypeVar

import jwt

from proxy.sandbox.ledger import Outcome
from proxy.sandbox.limits import RateWindow
from proxy.sandbox.options import SandboxOptions
from proxy.sandbox.orgs import Client, Org

CODE_LIFETIME = 60.0
"""Seconds."""
_V = TypeVar("_V")


@dataclass(slots=True, eq=False)
class Family:
    """All that came of one login: its access tokens and its one valid refresh token."""

    client: Client
    home: Org
    org: Org
    scope: tuple[str, ...]
    current: str = field(default="", repr=False)
    """The refresh token that is valid now."""
    tokens: list[IssuedToken] = field(default_factory=list, repr=False)
    revoked: bool = False


@dataclass(slots=True, eq=False)
class IssuedToken:
    """An access token. Times are Unix seconds by the sandbox's clock."""

    serial: int
    """Counts from 1; names the token wherever the token itself must not stand."""
    value: str = field(repr=False)
    client: Client
    home: Org
    """The org of the client, or of the person who logged in."""
    org: Org
    """The org that it opens: ``home``, or a trustor org."""
    grant: str
    scope: tuple[str, ...]
    issued_at: float
    expires_at: float
    window: RateWindow
    last_used_at: float
    idle_timeout: float | None = None
    revoked: bool = False

    def refusal(self, now: float) -> Outcome | None:
        """Why it is not accepted at ``now``; None if it is."""
        if self.revoked:
            return Outcome.REVOKED
        if now >= self.expires_at:
            return Outcome.EXPIRED
        if self.idles_at is not None and now >= self.idles_at:
            return Outcome.IDLE
        return None

    @property
    def idles_at(self) -> float | None:
        return None if self.idle_timeout is None else self.last_used_at + self.idle_timeout


@dataclass(slots=True, eq=False)
class Code:
    """An authorization code (RFC 6749 4.1.2): for one client, one redirect URI, once."""

    client: Client
    home: Org
    org: Org
    scope: tuple[str, ...]
    redirect_uri: str
    challenge: str | None
    """The S256 code challenge (RFC 7636 4.2)."""
    expires_at: float
    family: Family | None = None
    """What it was exchanged for; None while it is unused."""


class TokenBook:
    """Every token of every org. It decides by the ``now`` that it is given and never looks at a clock.

    :param kept: tokens, refresh tokens and codes that are remembered, of each; the oldest go first
    """

    def __init__(self, options: SandboxOptions, *, kept: int = 100_000) -> None:
        self._options = options
        self._kept = kept
        self._key = secrets.token_bytes(32)
        self._serial = 0
        self._tokens: OrderedDict[str, IssuedToken] = OrderedDict()
        self._families: OrderedDict[str, Family] = OrderedDict()
        self._codes: OrderedDict[str, Code] = OrderedDict()

    def issue(
        self,
        client: Client,
        home: Org,
        *,
        grant: str,
        scope: tuple[str, ...],
        now: float,
        org: Org | None = None,
        family: Family | None = None,
    ) -> IssuedToken:
        options = self._options
        self._serial += 1
        expires_at = now + options.token_lifetime
        token = IssuedToken(
            serial=self._serial,
            value=self._value(client, org or home, now, expires_at),
            client=client,
            home=home,
            org=org or home,
            grant=grant,
            scope=scope,
            issued_at=now,
            expires_at=expires_at,
            window=RateWindow(options.rate_limit, options.rate_window),
            last_used_at=now,
            idle_timeout=options.idle_timeout,
        )
        self._keep(self._tokens, token.value, token)
        if family is not None:
            family.tokens = [t for t in family.tokens if t.refusal(now) is None]
            family.tokens.append(token)
        return token

    def _value(self, client: Client, org: Org, now: float, expires_at: float) -> str:
        if not self._options.jwt_tokens:
            return secrets.token_urlsafe(64)
        claims = {
            "iss": "sandbox",
            "sub": client.id,
            "org": org.id,
            "jti": secrets.token_hex(8),
            "iat": floor(now),
            "exp": floor(expires_at),
        }
        return jwt.encode(claims, self._key, algorithm="HS256")

    def find(self, value: str) -> IssuedToken | None:
        return self._tokens.get(value)

    def issued(self, org: str | None = None) -> list[IssuedToken]:
        """Those still remembered, oldest first."""
        return [token for token in self._tokens.values() if org in (None, token.org.name)]

    # --- refresh tokens ---

    def login(
        self, client: Client, home: Org, org: Org, scope: tuple[str, ...], refresh_token: str | None = None
    ) -> Family:
        """A new family with its first refresh token, a random one unless it is given."""
        family = Family(client, home, org, scope)
        self.rotate(family, refresh_token)
        return family

    def rotate(self, family: Family, value: str | None = None) -> str:
        """Make ``value``, or a random one, the family's refresh token; the one before counts as used."""
        family.current = value or secrets.token_urlsafe(48)
        self._keep(self._families, family.current, family)
        return family.current

    def family(self, refresh_token: str) -> Family | None:
        """Whose refresh token this is or was."""
        return self._families.get(refresh_token)

    def revoke_family(self, family: Family, now: float) -> int:
        """Revoke its refresh token and its access tokens; how many of the latter were valid at ``now``."""
        family.revoked = True
        return _revoke(family.tokens, now)

    # --- codes ---

    def add_code(self, code: Code) -> str:
        value = secrets.token_urlsafe(32)
        self._keep(self._codes, value, code)
        return value

    def code(self, value: str) -> Code | None:
        return self._codes.get(value)

    def _keep(self, table: OrderedDict[str, _V], key: str, value: _V) -> None:
        table[key] = value
        if len(table) > self._kept:
            table.popitem(last=False)

    # --- revocation ---

    def revoke(self, org: str | None = None, *, now: float, refresh_tokens: bool = False) -> int:
        """Revoke the access tokens of one org or of all; how many were valid at ``now``."""
        if refresh_tokens:
            for family in self._families.values():
                family.revoked = family.revoked or org in (None, family.org.name)
        return _revoke(self.issued(org), now)


def _revoke(tokens: list[IssuedToken], now: float) -> int:
    count = 0
    for token in tokens:
        count += token.refusal(now) is None
        token.revoked = True
    return count

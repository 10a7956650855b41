"""Web messaging guests: their sessions, their JWTs and the refresh tokens behind them."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeVar
from uuid import uuid4

import jwt

from proxy.sandbox.ledger import Outcome
from proxy.sandbox.options import SandboxOptions
from proxy.sandbox.orgs import Org

_KEPT = 10_000
"""Sessions and codes that are remembered; the oldest go first."""
_MESSAGES_KEPT = 200


@dataclass(slots=True, eq=False)
class GuestSession:
    """One guest of one deployment; anonymous ones have no refresh token."""

    id: str
    org: Org
    deployment: str
    refresh_token: str | None = field(default=None, repr=False)
    refresh_expires_at: float = 0.0
    revoked: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def add(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        del self.messages[:-_MESSAGES_KEPT]


class GuestRefused(Exception):
    """An exchange or a refresh that brings no JWT; the message is the API's."""


class GuestBook:
    """Every guest of every org. It decides by the ``now`` that it is given and never looks at a clock."""

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self._key = secrets.token_bytes(32)
        self._deployments = {id_: org for org in options.orgs for id_ in org.deployments}
        self._sessions: OrderedDict[str, GuestSession] = OrderedDict()
        self._by_refresh_token: OrderedDict[str, GuestSession] = OrderedDict()
        self._codes: OrderedDict[str, None] = OrderedDict()

    def org(self, deployment: object) -> Org | None:
        """Whose deployment this is."""
        return self._deployments.get(deployment) if isinstance(deployment, str) else None

    def exchange(self, deployment: object, code: object, now: float) -> tuple[str, str]:
        """The JWT and the refresh token for a code of the guest's own login; any code will do, once.

        :raises GuestRefused: unknown deployment, no code, or one that was used before
        """
        org = self.org(deployment)
        if org is None or not isinstance(deployment, str):
            raise GuestRefused("Deployment not found")
        if not isinstance(code, str) or not code:
            raise GuestRefused("oauth.code is missing")
        if code in self._codes:
            raise GuestRefused("The authorization code was used before")
        _keep(self._codes, code, None)
        session = GuestSession(str(uuid4()), org, deployment, secrets.token_urlsafe(48))
        session.refresh_expires_at = now + self._options.guest_refresh_lifetime
        _keep(self._sessions, session.id, session)
        assert session.refresh_token is not None
        _keep(self._by_refresh_token, session.refresh_token, session)
        return self.jwt(session, now)[0], session.refresh_token

    def refresh(self, refresh_token: object, now: float) -> str:
        """A new JWT; the refresh token stays as it is.

        :raises GuestRefused: the refresh token is unknown, revoked, or too old
        """
        session = self._by_refresh_token.get(refresh_token) if isinstance(refresh_token, str) else None
        if session is None or session.revoked or now >= session.refresh_expires_at:
            raise GuestRefused("Invalid refresh token")
        return self.jwt(session, now)[0]

    def jwt(self, session: GuestSession, now: float) -> tuple[str, int]:
        """A JWT for this session and its ``exp``."""
        expires_at = ceil(now + self._options.guest_token_lifetime)
        claims = {
            "iss": "sandbox",
            "sub": session.id,
            "org": session.org.id,
            "did": session.deployment,
            "jti": secrets.token_hex(8),
            "iat": int(now),
            "exp": expires_at,
        }
        return jwt.encode(claims, self._key, algorithm="HS256"), expires_at

    def judge(self, value: str, now: float) -> tuple[GuestSession | None, Outcome | None]:
        """Whose JWT this is, and why it is refused at ``now`` if it is."""
        try:
            claims = jwt.decode(value, self._key, algorithms=["HS256"], options=_SIGNATURE_ONLY)
        except jwt.InvalidSignatureError:
            return None, Outcome.UNKNOWN
        except jwt.InvalidTokenError:
            return None, Outcome.MALFORMED
        session = self._sessions.get(claims["sub"])
        if session is None:
            return None, Outcome.UNKNOWN
        if session.revoked:
            return session, Outcome.REVOKED
        return session, Outcome.EXPIRED if now >= claims["exp"] else None

    def revoke(self, session: GuestSession) -> None:
        """End it: none of its JWTs and no refresh is accepted any more."""
        session.revoked = True

    def anonymous(self, deployment: str, token: str) -> tuple[GuestSession | None, bool]:
        """The session that a socket's client made up the token for, and whether it is new.

        None: there is no such deployment.
        """
        org = self.org(deployment)
        if org is None:
            return None, False
        known = self._sessions.get(token)
        if known is not None and known.deployment == deployment:
            return known, False
        session = GuestSession(token, org, deployment)
        _keep(self._sessions, token, session)
        return session, True

    def revoke_all(self, org: str | None = None) -> int:
        """End the sessions of one org's guests, or of all; how many were not ended before."""
        ended = [s for s in self._sessions.values() if org in (None, s.org.name) and not s.revoked]
        for session in ended:
            session.revoked = True
        return len(ended)


_SIGNATURE_ONLY: Any = {"verify_exp": False, "verify_iat": False}  # PyJWT would ask the machine's clock
_V = TypeVar("_V")


def _keep(table: OrderedDict[str, _V], key: str, value: _V) -> None:
    table[key] = value
    if len(table) > _KEPT:
        table.popitem(last=False)

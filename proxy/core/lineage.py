"""What is kept of one client's tokens, for all processes that share them: the values, without any decision."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from proxy.core.secret import Secret

KEPT_AFTER_EXPIRY = 86_400.0
"""Seconds for which a record that holds nothing but an expired access token is still kept."""


@dataclass(frozen=True, slots=True)
class Access:
    """An access token, its times on the clock of the store."""

    token: Secret
    obtained: float
    """Before its token request was sent."""
    lifetime: float
    """Seconds from ``obtained``."""
    issued_to: str
    """``core.grants.Client.key``: a client that asks in another way gets another token."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Whose turn at the token endpoint it is. Only its owner ends it early; nobody else acts before it is over."""

    owner: str
    until: float


@dataclass(frozen=True, slots=True)
class Journal:
    """Written before a refresh token is sent, removed with the answer: who finds it without a lease knows that
    somebody died in between, and that the refresh token may have been used up.
    """

    since: float
    retried: bool = False
    """It was sent once more after such a death, and is not sent again."""


@dataclass(frozen=True, slots=True)
class Setback:
    """The last token request failed, and nobody asks again before ``until``."""

    at: float
    until: float
    count: int
    """Failures in a row."""
    error: str
    message: str
    final: bool
    """The endpoint refused us, so that waiting is no use."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A refresh token is of no use any more; only another one heals that."""

    refresh_token: str
    """Its digest."""
    at: float
    lost: bool
    """It was in use when a process died; otherwise the endpoint refused it (invalid_grant)."""


@dataclass(frozen=True, slots=True)
class Record:
    """All that is kept of one client's tokens. Times are Unix times on the clock of the store."""

    access: Access | None = None
    refresh_token: Secret | None = None
    generation: int = 0
    """How many refresh tokens there have been."""
    seeds: tuple[str, ...] = ()
    """Digests of the configured refresh tokens that were taken up, and are not taken up again."""
    organization: str | None = None
    """The org that the API has confirmed for this line of refresh tokens."""
    lease: Lease | None = field(default=None)
    journal: Journal | None = None
    setback: Setback | None = None
    verdict: Verdict | None = None
    kept_at: str | None = None
    """The key where the line goes on that this key names (``oauth.home``). What else is here then is another line,
    which other names lead to.
    """

    @property
    def forget_after(self) -> float | None:
        """When nothing in it is of use any more; None for never: a refresh token is kept until it is replaced."""
        if self.refresh_token is not None or self.seeds or self.verdict is not None or self.kept_at is not None:
            return None
        ends = [0.0 if self.access is None else self.access.obtained + self.access.lifetime]
        ends += [part.until for part in (self.lease, self.setback) if part is not None]
        return max(ends) + KEPT_AFTER_EXPIRY


def digest(secret: Secret) -> str:
    """Names a refresh token without telling it."""
    return hashlib.sha256(secret.reveal().encode("utf-8", "surrogatepass")).hexdigest()[:32]

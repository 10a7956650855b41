"""The life of an access token: how long it lives, when to refresh it, and whether it can still be used."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.core.report import TokenState

UNKNOWN_LIFETIME = 300.0
"""Seconds assumed where the answer states no usable ``expires_in``: the shortest that Genesys Cloud issues."""

LONGEST_LIFETIME = 172_800.0
"""Seconds; Genesys Cloud issues none longer, so a larger number is a mistake and is cut to this."""

ROUNDING = 1e-3
"""Seconds, more than the sums of times here are off by."""

LEEWAY = 5.0
"""Seconds before expiry at which a token is no longer sent: it must still be valid when it arrives."""


class Instant(NamedTuple):
    """One moment on two clocks, both in seconds."""

    elapsed: float
    """A clock that nobody sets and that goes on while the machine sleeps."""
    wall: float
    """Unix time, which may be stepped."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token as it was issued; only ``state`` says whether it may be used."""

    access_token: str = field(repr=False)
    obtained: Instant
    """Before its token request was sent, so that the time on the network counts against it."""
    lifetime: float
    """Seconds from ``obtained``."""
    ahead: float
    """Seconds before expiry at which the refresh begins."""

    credential: bytes = field(init=False, repr=False)
    """The value of the ``Authorization`` field that carries it (RFC 6750 2.1)."""

    leeway: float = field(init=False)
    """See the function of this name."""

    fresh_elapsed: float = field(init=False, repr=False)
    fresh_wall: float = field(init=False, repr=False)
    """Before these times of the two clocks it is surely FRESH, and most requests come before: nothing is computed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "credential", b"Bearer " + self.access_token.encode("ascii"))
        object.__setattr__(self, "leeway", leeway(self.lifetime))
        fresh = self.lifetime - max(self.ahead, self.leeway) - ROUNDING
        object.__setattr__(self, "fresh_elapsed", self.obtained.elapsed + fresh)
        object.__setattr__(self, "fresh_wall", self.obtained.wall + fresh)


def leeway(lifetime: float) -> float:
    """Seconds before expiry at which a token counts as expired; a twentieth of a very short life."""
    return min(LEEWAY, lifetime / 20)


def passed(since: Instant, now: Instant) -> float:
    """Seconds between two moments, by whichever clock saw more of them.

    A wall clock stepped forward costs one refresh at most; one stepped back changes nothing; and a machine
    that was paused, where only the wall clock knows of it, does not trust its old token.
    """
    return max(now.elapsed - since.elapsed, now.wall - since.wall)


def age(token: Token, now: Instant) -> float:
    """Seconds since the token was asked for."""
    return passed(token.obtained, now)


def remaining(token: Token, now: Instant) -> float:
    """Seconds until the token expires, negative afterwards."""
    return token.lifetime - age(token, now)


def state(token: Token | None, now: Instant) -> TokenState:
    """What can be done with the token now: FRESH, use; STALE, use and refresh; EXPIRED or NONE, wait for another."""
    if token is None:
        return TokenState.NONE
    if now.elapsed < token.fresh_elapsed and now.wall < token.fresh_wall:
        return TokenState.FRESH
    left = token.lifetime - passed(token.obtained, now)
    if left <= token.leeway:
        return TokenState.EXPIRED
    return TokenState.FRESH if left > token.ahead else TokenState.STALE


def lifetime(expires_in: object, *, expiry: float | None = None, server_time: float) -> float:
    """Seconds that a token just issued may be used; zero or less if it is dead on arrival.

    :param expires_in: the member of the answer as it came (RFC 6749 5.1): a number, a numeric string as some
        servers send it, or something unusable, which counts as ``UNKNOWN_LIFETIME``
    :param expiry: the ``exp`` of a token that is a JWT (RFC 7519 4.1.4), Unix time; believed when it is earlier
    :param server_time: Unix time by the token endpoint's own clock, so that a wrong clock here does no harm
    """
    stated = _seconds(expires_in)
    if expiry is None:
        return UNKNOWN_LIFETIME if stated is None else stated
    left = expiry - server_time
    return min(left, LONGEST_LIFETIME if stated is None else stated)


def _seconds(expires_in: object) -> float | None:
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return None
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        if isinstance(expires_in, int):
            return LONGEST_LIFETIME if expires_in > 0 else 0.0  # longer than a float can say
        return None
    return None if math.isnan(seconds) else min(seconds, LONGEST_LIFETIME)


def ahead(lifetime: float, refresh_ahead: float, *, jitter: float) -> float:
    """Seconds before expiry at which to refresh: ``refresh_ahead``, but never more than a fifth of the lifetime.

    :param jitter: in [0, 1); shortens it by up to a third, so that a thousand tokens issued in one moment are
        not all refreshed in one moment
    """
    return min(refresh_ahead, lifetime / 5) * (1 - jitter / 3)

"""Web messaging guests' JWTs, each kept fresh for the guest who shows it: in memory alone, and nowhere told."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cachetools import TLRUCache

from proxy.core import backoff, guests, jwts, tokens
from proxy.core.guests import GuestNews, RefreshedJwt
from proxy.core.replay import COOL_DOWN
from proxy.core.report import Tally, TokenState
from proxy.core.secret import Secret
from proxy.core.tokens import Instant, Token
from proxy.errors import TokenError, TokenRefused
from proxy.oauth.clock import Clock

log = logging.getLogger(__name__)

MOST_GUESTS = 10_000
"""Of one tenant, some 3 kB each; whoever was not seen for longest is forgotten first."""

GRANT = "guest_refresh"
"""What metrics call it."""


class Api(Protocol):
    """Refreshes guests' JWTs at one tenant's API."""

    @property
    def tenant(self) -> str: ...

    async def refresh(self, refresh_token: Secret) -> RefreshedJwt: ...


class Guests:
    """One tenant's guests: which refresh token came with which JWT.

    A JWT is served by the refresh token that it came with and by no other, so that nobody gets more than they could
    have got for themselves. Everything is forgotten when the guest's refresh token has ended, and at the end.

    :ivar refresh_ahead: seconds before expiry; may be replaced
    :param size: the most guests remembered, and twice as many JWTs
    :param tell: tells other processes of the program of a guest, or to forget one
    """

    def __init__(
        self,
        api: Api,
        tally: Tally,
        *,
        refresh_ahead: float = 60.0,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        size: int = MOST_GUESTS,
        tell: Callable[[GuestNews], None] = lambda _: None,
    ) -> None:
        self.api = api
        self._tally = tally
        self.refresh_ahead = refresh_ahead
        self._clock = clock
        self._jitter = jitter
        self._tell = tell
        self._flights: set[asyncio.Task[None]] = set()
        self._guests: TLRUCache[bytes, Guest] = TLRUCache(size, _guest_ends, timer=lambda: clock().elapsed)
        self._shown: TLRUCache[bytes, _Shown] = TLRUCache(2 * size, _shown_ends, timer=lambda: clock().elapsed)

    def __len__(self) -> int:
        """How many JWTs are remembered."""
        return len(self._shown)

    def find(self, credential: bytes | None) -> GuestTokens | None:
        """The tokens for a call with this ``Authorization``; None where its JWT is not remembered."""
        jwt = guests.bearer(credential)
        shown = None if jwt is None else self._shown.get(_digest(jwt))
        if jwt is None or shown is None or shown.guest.gone:
            return None
        own = Token(jwt, shown.obtained, shown.lifetime, shown.ahead)
        return GuestTokens(shown, own, self._clock)

    def learn(self, jwt: str, refresh_token: str, server_time: float | None) -> None:
        """Remembers a JWT that a guest was given.

        :param server_time: Unix time by the issuer's clock, so that a wrong clock here does no harm
        """
        now, shown = self._clock(), _digest(jwt)
        token = self._token(RefreshedJwt(jwt, server_time), now)
        guest = self._guest(refresh_token, now)
        guest.newest = token
        self._shown[shown] = _Shown(guest, now, token.lifetime, token.ahead)
        self._tell(GuestNews(self.api.tenant, refresh_token, shown.hex(), now, token.lifetime))

    def forget(self, credential: bytes | None) -> None:
        """Forgets the guest whose JWT this is, with all that was remembered of them."""
        found = self.find(credential)
        if found is not None:
            self._tell(GuestNews(self.api.tenant, found.guest.refresh_token.reveal(), None, self._clock(), 0.0))
            found.guest.forget()

    def take(self, news: GuestNews) -> None:
        """Remembers or forgets a guest as another process tells."""
        if news.shown is None:
            known = self._guests.get(_digest(news.refresh_token))
            if known is not None:
                known.forget()
            return
        ahead = tokens.ahead(news.lifetime, self.refresh_ahead, jitter=self._jitter())
        guest = self._guest(news.refresh_token, news.obtained)
        self._shown[bytes.fromhex(news.shown)] = _Shown(guest, news.obtained, news.lifetime, ahead)

    def _guest(self, refresh_token: str, since: Instant) -> Guest:
        key = _digest(refresh_token)
        guest = self._guests.get(key)
        if guest is None or guest.gone:
            guest = Guest(Secret(refresh_token), since.elapsed + guests.REFRESH_TOKEN_LIFETIME, self._fly)
            self._guests[key] = guest
        return guest

    def end(self) -> None:
        """Ends the refreshes under way, and forgets everybody."""
        for flight in self._flights:
            flight.cancel()
        self._guests.clear()
        self._shown.clear()

    async def close(self) -> None:
        """The same, and waits until nothing is under way."""
        self.end()
        await asyncio.gather(*self._flights, return_exceptions=True)

    # --- the one refresh of a guest ---

    def _fly(self, guest: Guest) -> asyncio.Task[None]:
        name = f"guest's refresh for {self.api.tenant}"
        flight = asyncio.get_running_loop().create_task(self._refresh(guest), name=name)
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)
        return flight

    async def _refresh(self, guest: Guest) -> None:
        """Replaces the guest's JWT, or notes why not; raises nothing."""
        started, sent = time.perf_counter(), self._clock()
        outcome = "cancelled"
        try:
            issued = await self.api.refresh(guest.refresh_token)
            if not guest.gone:
                guest.newest = self._token(issued, sent)
            guest.failures = 0
            outcome = "ok"
        except TokenError as error:
            outcome = error.error
            log.info("%s (%s)", error, error.error, extra={"event": "guest.refresh_failed", "tenant": self.api.tenant})
            if isinstance(error, TokenRefused):
                guest.forget()
            else:
                guest.failures += 1
                pause = backoff.pause(guest.failures, final=False, retry_after=error.retry_after, jitter=self._jitter())
                guest.quiet_until = self._clock().elapsed + pause
        except Exception:
            log.exception(
                "tenant %s: a defect of this program ended a guest's refresh",
                self.api.tenant,
                extra={"event": "guest.defect", "tenant": self.api.tenant},
            )
            outcome = "internal"
            guest.forget()
        finally:
            guest.flight = None
            counted = (GRANT, outcome)
            self._tally.token_requests[counted] = self._tally.token_requests.get(counted, 0) + 1
            self._tally.refreshes.observe(time.perf_counter() - started)

    def _token(self, issued: RefreshedJwt, obtained: Instant) -> Token:
        expiry = jwts.expiry(issued.jwt)
        # An HTTP date is a whole second: it may be almost one more.
        server_time = obtained.wall if issued.server_time is None else issued.server_time + 1
        lifetime = math.inf if expiry is None else tokens.lifetime(None, expiry=expiry, server_time=server_time)
        return Token(issued.jwt, obtained, lifetime, tokens.ahead(lifetime, self.refresh_ahead, jitter=self._jitter()))


class Guest:
    """One guest: the refresh token, and the newest JWT that it brought.

    :ivar ends: when the refresh token does, on the elapsed clock
    :ivar newest: None once it was refused
    :ivar gone: forgotten; nobody is served by it any more
    :ivar failures: of refreshes in a row
    :ivar quiet_until: on the elapsed clock: no refresh before
    """

    __slots__ = ("_fly", "ends", "failures", "flight", "gone", "newest", "quiet_until", "refresh_token")

    def __init__(self, refresh_token: Secret, ends: float, fly: Callable[[Guest], asyncio.Task[None]]) -> None:
        self.refresh_token = refresh_token
        self.ends = ends
        self.newest: Token | None = None
        self.gone = False
        self.failures = 0
        self.quiet_until = -math.inf
        self.flight: asyncio.Task[None] | None = None
        self._fly = fly

    def refresh(self, now: float) -> asyncio.Task[None] | None:
        """The one refresh, begun if none is under way; None where there is to be none now."""
        if self.flight is None and not self.gone and self.quiet_until <= now < self.ends:
            self.flight = self._fly(self)
        return self.flight

    def forget(self) -> None:
        """Nothing of it stays in memory but that it is gone."""
        self.gone = True
        self.newest = None
        self.refresh_token = Secret("")


@dataclass(slots=True)
class _Shown:
    """A JWT that a guest was given, but for its text: the guest shows that."""

    guest: Guest
    obtained: Instant
    lifetime: float
    ahead: float
    refused: bool = False


class GuestTokens:
    """The tokens for one call of a guest: the JWT that was shown while that is good, a fresh one afterwards.

    Where there is none to be had, the one that was shown goes out as it came: what the API says to it is the guest's
    affair, as it is without the proxy.
    """

    __slots__ = ("_clock", "_own", "_refused", "_shown", "guest")

    def __init__(self, shown: _Shown, own: Token, clock: Clock) -> None:
        self._shown = shown
        self._own = own
        self._clock = clock
        self._refused: Token | None = None
        self.guest = shown.guest

    def current(self) -> Token | None:
        """The JWT to send, if that needs no waiting; one that is about to expire is refreshed behind the caller."""
        now = self._clock()
        own = TokenState.EXPIRED if self._shown.refused else tokens.state(self._own, now)
        if own is TokenState.FRESH:
            return self._own
        newest = tokens.state(self.guest.newest, now)
        if newest is TokenState.FRESH:
            return self.guest.newest
        if own is TokenState.STALE or newest is TokenState.STALE:
            self.guest.refresh(now.elapsed)
            return self.guest.newest if newest is TokenState.STALE else self._own
        return None

    async def token(self, patience: float) -> Token:
        """The JWT to send, after waiting for a refresh for at most ``patience`` seconds."""
        flight = self.guest.refresh(self._clock().elapsed)
        if flight is not None:
            await asyncio.wait({flight}, timeout=max(0.0, patience))
        return self.current() or self._refused or self._own

    async def instead_of(self, refused: Token, patience: float) -> Token:
        """A fresh JWT; the same where there is none to be had in ``patience`` seconds."""
        self.reject(refused)
        return self.current() or await self.token(patience)

    def reject(self, token: Token) -> None:
        """Takes this JWT out of use, and no newer one."""
        self._refused = token
        if token.access_token == self._own.access_token:
            self._shown.refused = True
        if self.guest.newest is not None and token.access_token == self.guest.newest.access_token:
            self.guest.newest = None

    @property
    def cooling_down(self) -> bool:
        """A fresh JWT was refused, or could not be had, just now."""
        return self.guest.gone or self._clock().elapsed < self.guest.quiet_until

    def cool_down(self) -> None:
        """Notes that a fresh JWT was refused."""
        self.guest.quiet_until = self._clock().elapsed + COOL_DOWN

    def seconds_left(self, token: Token) -> float:
        """Until the JWT expires."""
        return tokens.remaining(token, self._clock())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("ascii")).digest()


def _guest_ends(_key: bytes, guest: Guest, _now: float) -> float:
    return guest.ends


def _shown_ends(_key: bytes, shown: _Shown, _now: float) -> float:
    return shown.guest.ends

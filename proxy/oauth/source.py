"""One client's token: who may use it, who fetches the next, and what a refusal does to it."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from proxy.core import backoff, tokens
from proxy.core.grants import Client
from proxy.core.replay import COOL_DOWN
from proxy.core.report import Tally, TokenState
from proxy.core.tokens import Instant, Token
from proxy.core.turn import Refuse
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.clock import Clock
from proxy.oauth.line import Asked, Obtained
from proxy.oauth.shelf import Sleep

log = logging.getLogger(__name__)

Observe = Callable[[str, str, str, float], None]
"""Told of a token request that has ended: tenant, grant, outcome (ok or the error code), and its seconds."""

DOUBT = 2.0
"""Seconds for which callers wait for a new token where the upstream refused one that should still live, before that is
used again for want of a newer one: the refusal may have had another cause. Who was refused it waits on."""


class Supply(Protocol):
    """Where a source's tokens come from, one after the other: a ``Line``, or whoever has one.

    :ivar client: may be replaced by a client of the same key
    """

    client: Client

    def pardon(self) -> None:
        """Forgets the failures there have been."""

    async def next(self, *, rejected: bool = False) -> Obtained | Refuse:
        """A newer token than the last; one call at a time.

        Cancelled, it sends nothing any more, and ends as soon as nothing is under way that may be good for one use.

        :param rejected: the upstream refused the last
        """

    def forget(self) -> None:
        """Drops from memory what can be had again; for when nobody asks."""

    @property
    def unsaved(self) -> bool:
        """It holds a refresh token that is not stored yet."""

    async def close(self) -> None:
        """Stores what is not stored yet, if that can be done in some seconds."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no newer token, and until when nobody asks again."""

    error: TokenError
    count: int
    """Failures in a row."""
    until: float
    """On the elapsed clock."""

    @property
    def final(self) -> bool:
        """The endpoint refused us, so that waiting here is no use."""
        return isinstance(self.error, TokenRefused)


class TokenSource:
    """Gives one client's access token, and is the only one in this process that gets it.

    * Of any number of callers who need a token, one request goes out and all wait for it (single-flight; its supply
      sees to that among processes). It belongs to the source: a caller who leaves cancels only their own waiting.
    * A token is never given out once it is expired, whatever the token endpoint does.
    * While a token lives, a failed refresh is nobody's concern but the log's: a token that the upstream refused
      is kept aside, and trusted again if no newer one can be had, but not for the request that was refused.
    * With ``org_id``, no token is given out before the API has confirmed once whose it is.
    * After a failure the endpoint is left alone for a while that doubles, for all callers alike.

    :param supply: makes what its tokens come from, which tells of its token requests
    """

    # Thousands of tenants: what a request touches lies together.
    __slots__ = (
        "_ahead_of_need",
        "_clock",
        "_closed",
        "_cooling_until",
        "_doubted",
        "_doubted_until",
        "_failure",
        "_flight",
        "_jitter",
        "_observe",
        "_refresh_ahead",
        "_refused",
        "_sleep",
        "_supply",
        "_token",
        "renewed",
        "tallies",
        "used",
    )

    def __init__(
        self,
        supply: Callable[[Asked], Supply],
        *,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        observe: Observe | None = None,
    ) -> None:
        self._observe = observe
        self._supply = supply(self._count)
        self.tallies: list[Tally] = []
        self._refresh_ahead = 60.0
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._flight: asyncio.Task[Token] | None = None
        self._failure: Failure | None = None
        self._cooling_until = -math.inf
        self._closed = False
        self._ahead_of_need = True
        self._token: Token | None = None
        self._refused: Token | None = None
        self._doubted: Token | None = None
        self._doubted_until = math.inf
        self.renewed: Callable[[TokenSource], None] | None = None
        """Called after each token request, well or not."""
        self.used = False
        """Somebody was given a token since the last refresh began; see ``keep_warm``."""

    def take_over(self, client: Client, tallies: list[Tally], refresh_ahead: float) -> None:
        """Serves what the configuration says from now on.

        :param client: of the same key, whose tenant may be called otherwise
        :param tallies: of the tenants that share this token
        :param refresh_ahead: seconds before expiry, of tokens from the next on
        """
        self._supply.client, self.tallies, self._refresh_ahead = client, tallies, refresh_ahead

    def inherit(self, before: TokenSource) -> None:
        """Gives the token of a source that this one takes the place of, until it has one of its own; due at once.

        For a client whose secret has changed: a wrong secret, or one not valid yet, is no outage while a token lives.
        """
        token = before.token_now()
        if token is not None and not before.doubted:
            self._token = replace(token, ahead=token.lifetime)

    @property
    def client(self) -> Client:
        """Whose token this is."""
        return self._supply.client

    # --- for callers ---

    def current(self) -> Token | None:
        """The token, if it can be used now without waiting; a stale one is refreshed behind the caller."""
        token = self._token
        if token is None:
            return None
        now = self._clock()
        state = tokens.state(token, now)
        if state is not TokenState.FRESH:
            if state is TokenState.EXPIRED:
                return None
            self._refresh_behind(now)
        self.used = True
        return token

    async def token(self, patience: float) -> Token:
        """A usable token, after waiting for at most ``patience`` seconds.

        It waits through pauses after failures only while the next attempt can begin in time. It is a token that
        was rejected if that still lives and no newer one comes in ``DOUBT`` seconds.

        :raises TokenRefused: the token endpoint refuses this client; answered from memory for a while
        :raises TokenUnavailable: none within ``patience``
        """
        return await self._wait_for(patience)

    async def instead_of(self, refused: Token, patience: float) -> Token:
        """Another token than one that the upstream refused, after waiting for at most ``patience`` seconds.

        :raises TokenRefused, TokenUnavailable: as ``token`` does, where there is no other
        """
        self.reject(refused)
        return await self._wait_for(patience, refused)

    async def _wait_for(self, patience: float, refused: Token | None = None) -> Token:
        end = self._clock().elapsed + patience
        while (token := self.current()) is None or token is refused:
            if self._closed:
                raise self._stopping()
            now = self._clock().elapsed
            failure = self._failure
            if self._flight is None and failure is not None and now < failure.until:
                if refused is None and self._trust_again():
                    continue
                if failure.final or failure.until >= end:
                    raise self._remembered(failure, now)
                await self._sleep(failure.until - now)
                continue
            try:
                await self._join(self._fly(), (end if refused else min(end, self._doubted_until)) - now)
            except TokenUnavailable:
                if refused is None and self.current() is None:
                    self._trust_again()
                if self.current() in (None, refused) and self._clock().elapsed >= end:
                    raise
        return token

    @property
    def usable(self) -> bool:
        """There is a token that can be used now."""
        return self._token is not None and tokens.state(self._token, self._clock()) is not TokenState.EXPIRED

    def fetch_behind(self) -> None:
        """Begins a token request that nobody waits for, unless one is under way or would come too soon."""
        self._refresh_behind(self._clock())

    def reject(self, token: Token) -> None:
        """Takes exactly this token out of use because the upstream refused it, and asks for another.

        A newer one stays, so any number of requests refused with the same token cause one refresh. So does one that is
        trusted again for want of a newer one: others are not to wait for each of its refusals.
        """
        if self._token is not token:
            return
        now = self._clock()
        if token is self._doubted:
            self._refresh_behind(now)
            return
        self._token, self._refused = None, token
        self._doubted_until = now.elapsed + DOUBT
        log.debug(
            "tenant %s: the upstream refused the token; it is put aside",
            self.client.tenant,
            extra={"event": "token.rejected", "tenant": self.client.tenant},
        )
        self._refresh_behind(now)

    @property
    def cooling_down(self) -> bool:
        """There is no use in rejecting a token: a brand-new one was refused as well, just now."""
        return self._clock().elapsed < self._cooling_until

    def cool_down(self) -> None:
        """Notes that a replay with a newer token was refused as well."""
        self._cooling_until = self._clock().elapsed + COOL_DOWN
        log.debug(
            "tenant %s: the upstream refused a new token as well; refusals are passed on for %.0f s",
            self.client.tenant,
            COOL_DOWN,
            extra={"event": "token.cooling_down", "tenant": self.client.tenant},
        )

    @property
    def doubted(self) -> bool:
        """Its token was refused, and is in use for want of a newer one."""
        return self._doubted is not None

    def _trust_again(self) -> bool:
        """Whether the rejected token is in use again: it lives, and there is no newer one.

        Its refusal may have had another cause, such as the one thing that was asked for.
        """
        token = self._refused
        self._refused, self._doubted_until = None, math.inf
        if token is None or tokens.state(token, self._clock()) is TokenState.EXPIRED:
            return False
        self._token = self._doubted = token
        return True

    def seconds_left(self, token: Token) -> float:
        """Until the token expires."""
        return tokens.remaining(token, self._clock())

    # --- for the keeper and the control plane ---

    @property
    def login(self) -> str:
        """The host and port that its token requests go to."""
        return self.client.login

    def token_now(self) -> Token | None:
        """The token in whatever state, for reports."""
        return self._token

    @property
    def failure(self) -> Failure | None:
        """The last failure, None once a request succeeded."""
        return self._failure

    def due(self, now: Instant) -> float:
        """Seconds until a refresh is due, 0 if now: by the token's window, or by the pause after a failure."""
        token = self._token
        wait = 0.0 if token is None or token is self._doubted else max(0.0, tokens.remaining(token, now) - token.ahead)
        pause = 0.0 if self._failure is None else max(0.0, self._failure.until - now.elapsed)
        return max(wait, pause)

    def forget(self) -> float | None:
        """Drops an expired token from memory; seconds until that is worth a try, None where nothing is left to drop."""
        if self._flight is not None:
            return None  # its end brings another
        token = self._token or self._refused
        if token is not None and (left := tokens.remaining(token, self._clock())) > 0:
            return left
        self._token = self._refused = self._doubted = None
        self._supply.forget()
        return None

    def forgive(self) -> None:
        """Forgets failures and refusals, so that the next caller asks at once (a reload, an operator's button)."""
        self._supply.pardon()
        self._failure = None
        self._cooling_until = -math.inf

    async def refresh(self) -> Token:
        """A token fetched from now on, or by a request already under way; shielded like any caller's wait.

        :raises TokenError: the request failed, or the proxy is stopping
        """
        if not self._ahead_of_need:
            raise self._stopping()
        return await asyncio.shield(self._fly())

    async def renew(self, since: Instant) -> Token:
        """A token asked for since then, by whomever: not one that the store had before.

        :raises TokenError: as ``refresh`` does
        """
        token = await self.refresh()
        return token if tokens.passed(token.obtained, since) <= 0 else await self.refresh()

    @property
    def busy(self) -> bool:
        """A token request is under way, or what one brought is not stored yet."""
        return self._flight is not None or self._supply.unsaved

    def wind_down(self) -> None:
        """From now on asks only for callers who wait for a token, until ``close``."""
        self._ahead_of_need = False

    async def close(self) -> None:
        """Asks for nothing any more: see ``Supply.next`` for what is under way; and stores what is left."""
        self._closed = True
        self.wind_down()
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})
        await self._supply.close()

    # --- the one refresh ---

    def _refresh_behind(self, now: Instant) -> None:
        if not self._ahead_of_need or self._flight is not None:
            return
        if self._failure is None or now.elapsed >= self._failure.until:
            self._fly()

    def _fly(self) -> asyncio.Task[Token]:
        if self._flight is None:
            log.debug(
                "tenant %s: asking for a token",
                self.client.tenant,
                extra={"event": "token.asked", "tenant": self.client.tenant},
            )
            self._flight = asyncio.get_running_loop().create_task(
                self._fetch(), name=f"token request for {self.client.tenant}"
            )
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, flight: asyncio.Task[Token]) -> None:
        if self._flight is flight:
            self._flight = None  # cancelled before it began
        if not flight.cancelled():
            # Seen here, so that a failure nobody waited for is no "exception was never retrieved".
            flight.exception()
        if self.renewed is not None:
            self.renewed(self)

    async def _join(self, flight: asyncio.Task[Token], patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(flight)
        except TokenError:
            # Kept in self._failure, which decides whether to wait for another attempt.
            return
        except TimeoutError:
            raise TokenUnavailable(
                f"Tenant {self.client.tenant}: the token endpoint has not answered yet.",
                error="timeout",
                retry_after=1.0,
            ) from None

    async def _fetch(self) -> Token:
        self.used = False
        try:
            outcome = await self._supply.next(rejected=(self._refused or self._doubted) is not None)
        except asyncio.CancelledError:
            if not self._closed:
                raise
            # Told to those who wait as what it is, not as if they were cancelled themselves.
            raise self._stopping() from None
        except Exception as error:
            log.exception(
                "tenant %s: a defect of this program ended a token request",
                self.client.tenant,
                extra={"event": "token.defect", "tenant": self.client.tenant},
            )
            failure = TokenUnavailable(f"Tenant {self.client.tenant}: the token request failed here.", error="internal")
            count = 1 if self._failure is None else self._failure.count + 1
            pause = backoff.pause(count, final=False, retry_after=None, jitter=self._jitter())
            self._remember(Refuse(failure, pause, count))
            raise failure from error
        finally:
            # Now, not in a callback: a caller who comes before the next turn of the loop must find no flight that is
            # over, or would wait for it again and again without ever giving the loop its turn.
            self._flight = None
        if isinstance(outcome, Refuse):
            self._remember(outcome)
            raise outcome.error
        return self._take(outcome)

    def _take(self, obtained: Obtained) -> Token:
        ahead = tokens.ahead(obtained.lifetime, self._refresh_ahead, jitter=self._jitter())
        token = Token(obtained.access_token, obtained.obtained, obtained.lifetime, ahead)
        self._failure = self._refused = self._doubted = None
        self._doubted_until = math.inf
        self._token = token
        event, found = {"event": "token.new"}, "new token"
        if obtained.stored:
            event, found = {"event": "token.stored"}, "token from the store"
        tenant = self.client.tenant
        log.info("tenant %s: %s for %.0f s", tenant, found, self.seconds_left(token), extra={**event, "tenant": tenant})
        return token

    def _count(self, grant: str, outcome: str, seconds: float) -> None:
        if self._observe is not None:
            self._observe(self.client.tenant, grant, outcome, seconds)
        for tally in self.tallies:
            tally.count_token_request(grant, outcome, seconds, self._clock().wall)

    def _remember(self, refusal: Refuse) -> None:
        error, before = refusal.error, self._failure
        self._failure = Failure(error, refusal.count, self._clock().elapsed + refusal.pause)
        again = before is not None and (str(before.error), before.count) == (str(error), refusal.count)
        log.log(
            logging.DEBUG if again else logging.WARNING,
            "%s (%s, attempt %d, next in %.1f s)",
            error,
            error.error,
            refusal.count,
            refusal.pause,
            extra={"event": "token.failed", "tenant": self.client.tenant},
        )

    def _stopping(self) -> TokenUnavailable:
        return TokenUnavailable(f"Tenant {self.client.tenant}: the proxy is stopping.", error="cancelled")

    def _remembered(self, failure: Failure, now: float) -> TokenError:
        error = failure.error
        return type(error)(str(error), error=error.error, retry_after=max(0.0, failure.until - now))

"""One client's token: who may use it, who fetches the next, and what a refusal does to it."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.core import backoff, tokens
from proxy.core.grants import Client, TokenAnswer
from proxy.core.replay import COOL_DOWN
from proxy.core.report import Tally, TokenState
from proxy.core.tokens import Instant, Token
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.cache import TokenCache
from proxy.oauth.clock import Clock

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]


class Endpoint(Protocol):
    """What a source needs of the token endpoint."""

    async def ask(self, client: Client) -> TokenAnswer: ...


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
    """Gives one client's access token, and is the only one that asks for it.

    * Of any number of callers who need a token, one request goes out and all wait for it (single-flight). It
      belongs to the source: a caller who leaves cancels only their own waiting.
    * A token is never given out once it is expired, whatever the token endpoint does.
    * While a token lives, a failed refresh is nobody's concern but the log's.
    * After a failure the endpoint is left alone for a while that doubles, for all callers alike.
    """

    def __init__(
        self,
        client: Client,
        endpoint: Endpoint,
        cache: TokenCache,
        tally: Tally,
        *,
        refresh_ahead: float,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.client = client
        self._key = client.key
        self._endpoint = endpoint
        self._cache = cache
        self._tally = tally
        self.refresh_ahead = refresh_ahead
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._flight: asyncio.Task[Token] | None = None
        self._failure: Failure | None = None
        self._cooling_until = -math.inf
        self._token = cache.get(self._key)
        self.used = False
        """Somebody was given a token since the last refresh began; see ``keep_warm``."""

    # --- for callers ---

    def current(self) -> Token | None:
        """The token, if it can be used now without waiting; a stale one is refreshed behind the caller."""
        token = self._token
        if token is None:
            return None
        now = self._clock()
        state = tokens.state(token, now)
        if state is TokenState.EXPIRED:
            return None
        self.used = True
        if state is TokenState.STALE:
            self._refresh_behind(now)
        return token

    async def token(self, patience: float) -> Token:
        """A usable token, after waiting for at most ``patience`` seconds.

        It waits through pauses after failures only while the next attempt can begin in time.

        :raises TokenRefused: the token endpoint refuses this client; answered from memory for a while
        :raises TokenUnavailable: none within ``patience``
        """
        end = self._clock().elapsed + patience
        while (token := self.current()) is None:
            now = self._clock().elapsed
            failure = self._failure
            if self._flight is None and failure is not None and now < failure.until:
                if failure.final or failure.until >= end:
                    raise self._remembered(failure, now)
                await self._sleep(failure.until - now)
                continue
            await self._join(self._fly(), end - now)
        return token

    def reject(self, token: Token) -> None:
        """Throws away exactly this token because the upstream refused it; a newer one stays.

        Any number of requests refused with the same token thus cause one refresh.
        """
        if self._token is token:
            self._token = None
        if self._cache.get(self._key) is token:
            self._cache.discard(self._key)

    @property
    def cooling_down(self) -> bool:
        """A brand-new token was refused just now, so refusals say nothing about the token."""
        return self._clock().elapsed < self._cooling_until

    def cool_down(self) -> None:
        """Notes that a replay with a newer token was refused as well."""
        self._cooling_until = self._clock().elapsed + COOL_DOWN

    def seconds_left(self, token: Token) -> float:
        """Until the token expires."""
        return tokens.remaining(token, self._clock())

    # --- for the keeper and the control plane ---

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
        wait = 0.0 if token is None else max(0.0, tokens.remaining(token, now) - token.ahead)
        pause = 0.0 if self._failure is None else max(0.0, self._failure.until - now.elapsed)
        return max(wait, pause)

    def forgive(self) -> None:
        """Forgets failures and refusals, so that the next caller asks at once (a reload, an operator's button)."""
        self._failure = None
        self._cooling_until = -math.inf

    async def refresh(self) -> Token:
        """A token fetched from now on, or by a request already under way; shielded like any caller's wait.

        :raises TokenError: the request failed
        """
        return await asyncio.shield(self._fly())

    async def close(self) -> None:
        """Waits for a refresh under way, which the token endpoint may already have answered."""
        if self._flight is not None:
            await asyncio.wait({self._flight})

    # --- the one refresh ---

    def _refresh_behind(self, now: Instant) -> None:
        if self._flight is None and (self._failure is None or now.elapsed >= self._failure.until):
            self._fly()

    def _fly(self) -> asyncio.Task[Token]:
        if self._flight is None:
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
        started = time.perf_counter()
        outcome = "cancelled"
        self.used = False
        try:
            token = await self._ask()
            outcome = "ok"
        except TokenError as error:
            outcome = error.error
            self._remember(error)
            raise
        except Exception as error:
            log.exception("tenant %s: a defect of this program ended a token request", self.client.tenant)
            outcome = "internal"
            failure = TokenUnavailable(f"Tenant {self.client.tenant}: the token request failed here.", error=outcome)
            self._remember(failure)
            raise failure from error
        finally:
            # Now, not in a callback: a caller who comes before the next turn of the loop must find no flight that is
            # over, or would wait for it again and again without ever giving the loop its turn.
            self._flight = None
            counted = (self.client.grant, outcome)
            self._tally.token_requests[counted] = self._tally.token_requests.get(counted, 0) + 1
            self._tally.refreshes.observe(time.perf_counter() - started)
        self._failure = None
        self._token = token
        self._cache.put(self._key, token)
        log.info("tenant %s: new token for %.0f s", self.client.tenant, token.lifetime)
        return token

    async def _ask(self) -> Token:
        sent = self._clock()
        answer = await self._endpoint.ask(self.client)
        server_time = self._clock().wall if answer.server_time is None else answer.server_time
        lifetime = tokens.lifetime(answer.expires_in, expiry=_expiry(answer.access_token), server_time=server_time)
        window = tokens.ahead(lifetime, self.refresh_ahead, jitter=self._jitter())
        token = Token(answer.access_token, sent, lifetime, window)
        if lifetime <= 0 or tokens.state(token, self._clock()) is TokenState.EXPIRED:
            raise TokenUnavailable(
                f"Tenant {self.client.tenant}: the token endpoint issued a token that has already expired "
                "(expires_in, or the token's own exp); compare its clock.",
                error="expired_on_arrival",
            )
        return token

    def _remember(self, error: TokenError) -> None:
        count = 1 if self._failure is None else self._failure.count + 1
        final = isinstance(error, TokenRefused)
        pause = backoff.pause(count, final=final, retry_after=error.retry_after, jitter=self._jitter())
        self._failure = Failure(error, count, self._clock().elapsed + pause)
        log.warning("%s (%s, attempt %d, next in %.1f s)", error, error.error, count, pause)

    def _remembered(self, failure: Failure, now: float) -> TokenError:
        error = failure.error
        return type(error)(str(error), error=error.error, retry_after=max(0.0, failure.until - now))


def _expiry(access_token: str) -> float | None:
    """The ``exp`` of an access token that is a JWT (RFC 7519 4.1.4), read without verifying: it is not ours to
    verify, and it only ever shortens the token's life.
    """
    if access_token.count(".") != 2:
        return None
    import jwt  # only guests' and other issuers' tokens are JWTs; the import is dear at start

    try:
        claims = jwt.decode(access_token, options={"verify_signature": False})
        expiry = claims.get("exp")
        if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not math.isfinite(expiry):
            return None
        return float(expiry)
    except (jwt.PyJWTError, ValueError, OverflowError):
        return None

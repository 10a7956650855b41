"""Several tokens of one tenant, and requests spread over them by what is left of each one's rate limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from proxy.core import tokens
from proxy.core.report import Headroom, Tally, TenantReport, headroom
from proxy.core.spread import Share
from proxy.core.sums import tenant_of
from proxy.core.tokens import Instant, Token
from proxy.errors import TokenUnavailable
from proxy.oauth.clock import Clock
from proxy.oauth.source import TokenSource

HEDGE = 1.0
"""Seconds after which another token is asked for as well: a token request that goes well takes less."""


class TokenPool:
    """Gives, for each request, the token with most of its limit left; each token is a source's of its own.

    A pool costs each request a look at all of its tokens. They take turns while as much is left of each; one that
    is not there yet is fetched once half of the best one's limit is used.

    :param sources: at least two
    """

    def __init__(self, sources: Sequence[TokenSource], clock: Clock) -> None:
        self.sources = tuple(sources)
        self._shares = {source: Share() for source in sources}
        self._clock = clock

    # --- for callers ---

    def current(self) -> Token | None:
        """The token of those that can be used now which has most left; None if none can."""
        now = self._clock().elapsed
        best, most = None, 0
        for source, share in self._shares.items():
            left = share.available(now)
            if (best is None or left > most) and source.usable and not source.doubted:
                best, most = source, left
        best = best or next((source for source in self.sources if source.usable), None)
        if best is None:
            return None
        share = self._shares[best]
        share.left -= 1
        if 2 * share.left < share.allowed:
            self._grow()
        return best.current()

    def _grow(self) -> None:
        """Has the next token fetched that is still missing, where they are not all kept warm."""
        missing = next((source for source in self.sources if not source.usable), None)
        if missing is not None:
            missing.fetch_behind()

    async def token(self, patience: float) -> Token:
        """A usable token within ``patience`` seconds, whichever is there first.

        They are asked for one after the other, each once the one before was refused or is not there after ``HEDGE``.

        :raises TokenError: there is none
        """
        end = self._clock().elapsed + patience
        untried = iter(sorted(self.sources, key=lambda source: source.failure is not None))
        asking: set[asyncio.Task[Token]] = set()
        failure: BaseException = TokenUnavailable("There is no token.", error="timeout")
        try:
            while (token := self.current()) is None:
                if (source := next(untried, None)) is not None:
                    asking.add(self._ask(source, end - self._clock().elapsed))
                elif not asking:
                    raise failure
                done, asking = await asyncio.wait(asking, timeout=HEDGE, return_when=asyncio.FIRST_COMPLETED)
                failure = next((error for task in done if (error := task.exception()) is not None), failure)
            return token
        finally:
            for task in asking:
                task.cancel()

    def _ask(self, source: TokenSource, patience: float) -> asyncio.Task[Token]:
        name = f"wait for one of {source.client.tenant}'s tokens"
        return asyncio.get_running_loop().create_task(source.token(patience), name=name)

    async def instead_of(self, refused: Token, patience: float) -> Token:
        """The next token in place of the one that was refused; another one may be refused for the same reason.

        :raises TokenError: there is none
        """
        source = self._source_of(refused)
        return await self.token(patience) if source is None else await source.instead_of(refused, patience)

    def reject(self, token: Token) -> None:
        """Takes this token out of use, and no other."""
        for source in self.sources:
            source.reject(token)

    @property
    def cooling_down(self) -> bool:
        """A token that was new was refused just now."""
        return any(source.cooling_down for source in self.sources)

    def cool_down(self) -> None:
        """Notes that a brand-new token was refused."""
        self.sources[0].cool_down()

    def seconds_left(self, token: Token) -> float:
        """Until the token expires."""
        return self.sources[0].seconds_left(token)

    # --- rate limits ---

    def heard(self, token: Token, said: tuple[bytes, bytes, bytes]) -> None:
        """Takes what an answer to a request with this token said of its limit."""
        source = self._source_of(token)
        if source is not None:
            self._shares[source].hear(said, self._clock().elapsed)

    def limited(self, token: Token, seconds: float) -> bool:
        """Notes that a token's limit was met for so long; whether another one can be used now."""
        now = self._clock().elapsed
        source = self._source_of(token)
        if source is not None:
            self._shares[source].exhaust(seconds, now)
        return any(share.available(now) > 0 and other.usable for other, share in self._shares.items())

    def headroom(self) -> Headroom:
        """What is left of all tokens' limits together."""
        now = self._clock().elapsed
        left = sum(max(0, share.available(now)) for share in self._shares.values())
        return Headroom(left, sum(share.allowed for share in self._shares.values()))

    def _source_of(self, token: Token) -> TokenSource | None:
        return next((source for source in self.sources if source.token_now() is token), None)


def tenant_report(
    name: str, sources: Sequence[TokenSource], pool: TokenPool | None, tally: Tally, now: Instant
) -> TenantReport:
    """A tenant's state: its token's, or of a pool the one that lives longest, and what is left of all."""
    if pool is None:
        return _source_report(name, sources[0], tally, headroom(tally, now.wall), now)
    each = [_source_report(name, source, Tally(), None, now) for source in sources]
    return replace(tenant_of(name, each, Tally()), headroom=pool.headroom(), tally=tally)


def _source_report(name: str, source: TokenSource, tally: Tally, left: Headroom | None, now: Instant) -> TenantReport:
    token, failure = source.token_now(), source.failure
    remaining = None if token is None else tokens.remaining(token, now)
    return TenantReport(
        name=name,
        state=tokens.state(token, now),
        expires_in=remaining,
        lifetime=None if token is None else token.lifetime,
        refresh_in=None if token is None or remaining is None else remaining - token.ahead,
        expires_at=None if remaining is None else now.wall + remaining,
        age=None if token is None else tokens.age(token, now),
        error=None if failure is None else failure.error.error,
        diagnosis=None if failure is None else str(failure.error),
        retry_in=None if failure is None else max(0.0, failure.until - now.elapsed),
        headroom=left,
        tally=tally,
    )

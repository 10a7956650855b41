"""Refresh tokens of several processes, used by the one of them that serves no client.

A process that is killed between the moment at which the token endpoint has rotated a refresh token and the one at
which its answer is stored takes the only valid refresh token along. Workers are what is killed: for their memory, for
a defect, because they hang. So their supervisor asks for them, and is there for the answer whatever becomes of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, Self

from proxy.app import parts
from proxy.core import tokens
from proxy.core.grants import Client
from proxy.core.guests import GuestNews
from proxy.core.tokens import Instant
from proxy.core.turn import Refuse
from proxy.errors import TokenRefused, TokenUnavailable
from proxy.oauth.clock import Clock, system_clock
from proxy.oauth.endpoint import TokenEndpoint
from proxy.oauth.line import Asked, Line, Obtained
from proxy.oauth.store import TokenStore
from proxy.settings import Settings
from proxy.tls import client_context

log = logging.getLogger(__name__)

Request = tuple[str, str, float]
"""What ``oauth.line.Asked`` is told."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A process that needs a newer token."""

    client: str
    """``core.grants.Client.key``"""
    had: str | None = field(repr=False)
    """The newest access token it has had."""
    rejected: bool
    """The upstream refused that one."""
    pardon: bool
    """Failures that there have been are to be forgotten."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``core.turn.Refuse``, as a plain value."""

    message: str
    error: str
    retry_after: float | None
    final: bool
    pause: float
    count: int

    @classmethod
    def of(cls, refuse: Refuse) -> Self:
        error = refuse.error
        final = isinstance(error, TokenRefused)
        return cls(str(error), error.error, error.retry_after, final, refuse.pause, refuse.count)

    def refuse(self) -> Refuse:
        kind = TokenRefused if self.final else TokenUnavailable
        return Refuse(kind(self.message, error=self.error, retry_after=self.retry_after), self.pause, self.count)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a wish brings: a token, or why there is none; neither where a defect ended the request."""

    token: Obtained | None
    refusal: Refusal | None
    asked: tuple[Request, ...] = ()
    """Token requests that nobody has been told of: see ``oauth.line.Asked``."""


class Supervision(Protocol):
    """What a process that serves clients has of the one that supervises it."""

    async def wish(self, wish: Wish) -> Answer | None:
        """Has a wish granted; None where nobody grants any more. Cancelled, it is wished no longer."""

    def tell(self, news: GuestNews) -> None:
        """Tells the other processes of a guest."""


UNKNOWN = Refusal("The configuration is being changed.", "reloading", 1.0, final=False, pause=0.1, count=1)
"""Of a client that the one who has the lines no longer knows, or not yet."""

STOPPING = Refusal("The proxy is stopping.", "cancelled", None, final=False, pause=0.1, count=1)


class RemoteLine:
    """A source's supply whose line another process has, and which goes on alone once that is gone.

    :param alone: makes a line of one's own
    """

    def __init__(self, client: Client, supervision: Supervision, alone: Callable[[Asked], Line], asked: Asked) -> None:
        self.client = client
        self._supervision = supervision
        self._asked = asked
        self._alone = alone
        self._own: Line | None = None
        self._had: str | None = None
        self._pardons = False

    def pardon(self) -> None:
        """Forgets the failures there have been, whichever process noted them."""
        self._pardons = True

    async def next(self, *, rejected: bool = False) -> Obtained | Refuse:
        """A newer token than the last; cancelled, the other process sends nothing for it any more, and what is under
        way there goes on, and may be lost to this one alone.

        :param rejected: the upstream refused the last
        """
        wish = Wish(self.client.key, self._had, rejected, self._pardons)
        self._pardons = False
        answer = await self._supervision.wish(wish)
        if answer is None:
            return await self._next_alone(wish)
        for request in answer.asked:
            self._asked(*request)
        if answer.refusal is not None:
            return answer.refusal.refuse()
        if answer.token is None:
            raise RuntimeError("the log tells what ended the token request in the other process")
        self._had = answer.token.access_token
        return answer.token

    async def _next_alone(self, wish: Wish) -> Obtained | Refuse:
        """As orphans do, which answer what is in flight and end."""
        if self._own is None:
            self._own = self._alone(self._asked)
        outcome = await self._own.next(rejected=wish.rejected)
        if isinstance(outcome, Obtained) and outcome.access_token == wish.had:
            outcome = await self._own.next(rejected=wish.rejected)  # it is news to that line alone
        return outcome

    def forget(self) -> None:
        """Drops from memory what can be had again."""
        self._had = None

    @property
    def unsaved(self) -> bool:
        """It holds a refresh token that is not stored yet."""
        return self._own is not None and self._own.unsaved

    async def close(self) -> None:
        """Stores what is not stored yet, if that can be done in some seconds."""
        if self._own is not None:
            await self._own.close()


class _Shared:
    """One line, for any number who ask at a time; what has not begun when the last of them leaves never begins."""

    def __init__(self, line: Line, asked: list[Request]) -> None:
        self.line = line
        self.asked = asked
        self._newest: Obtained | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._closed = False
        self._flight: asyncio.Task[Obtained | Refuse] | None = None
        self._waiting = 0

    @property
    def busy(self) -> bool:
        return self._flight is not None or self.line.unsaved

    async def next(self, wish: Wish, clock: Clock) -> Obtained | Refuse:
        """The newest token where that is news, or what the one request under way brings."""
        if wish.pardon:
            self.line.pardon()
        while self._flight is not None and self._flight.cancelling():
            await asyncio.wait({self._flight})  # those it was for have left
        if self._closed:
            return STOPPING.refuse()
        newest = self._newest
        if newest is not None and newest.access_token != wish.had and _is_usable(newest, clock()):
            return newest
        if self._flight is None:
            name = f"token request for {self.line.client.tenant}"
            self._flight = asyncio.get_running_loop().create_task(self._fly(rejected=wish.rejected), name=name)
        self._waiting += 1
        try:
            return await asyncio.shield(self._flight)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._leave()

    def _leave(self) -> None:
        """Nobody waits any more."""
        if self._flight is not None and not self.line.begun:
            self._flight.cancel()

    async def _fly(self, *, rejected: bool) -> Obtained | Refuse:
        try:
            outcome = await self.line.next(rejected=rejected)
        except asyncio.CancelledError:
            if not self._closed:
                raise
            return STOPPING.refuse()  # told to those who wait as what it is, not as if they were cancelled themselves
        finally:
            self._flight = None
        if isinstance(outcome, Obtained):
            self._newest = outcome
            self._forget_after(outcome.lifetime)
        return outcome

    def _forget_after(self, seconds: float) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(seconds, self._forget)

    def _forget(self) -> None:
        """Drops an expired token of a tenant whom no process calls; its refresh token is in the store."""
        self._newest = self._forgetting = None
        if self._flight is None:
            self.line.forget()

    async def close(self) -> None:
        """Asks for nothing any more: see ``Line.next`` for what is under way; and stores what is left."""
        self._closed = True
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})
        if self._forgetting is not None:
            self._forgetting.cancel()
        await self.line.close()


class Lines:
    """The lines of all refresh tokens that some settings tell of."""

    def __init__(self, store: TokenStore, endpoint: TokenEndpoint, clock: Clock) -> None:
        self._store = store
        self._endpoint = endpoint
        self._clock = clock
        self._lines: dict[str, _Shared] = {}
        self._retired: list[_Shared] = []
        self._closed = False

    @classmethod
    async def open(cls, settings: Settings, clock: Clock = system_clock) -> Self:
        """Those of these settings, in their store.

        :raises ConfigurationError: it can't be used
        """
        lines = cls(await parts.open_store(settings, clock), parts.token_endpoint(settings), clock)
        lines._follow(settings)
        return lines

    async def adopt(self, settings: Settings) -> None:
        """Serves what the settings say from now on, except for their store.

        :raises OSError: a file of these settings can't be used; then nothing is changed
        """
        tls = await asyncio.to_thread(client_context, settings.upstream.ca_file)
        parts.renew(self._endpoint, settings, tls)
        self._follow(settings)

    def _follow(self, settings: Settings) -> None:
        lines: dict[str, _Shared] = {}
        for tenant in settings.tenants.values():
            if tenant.grant != "refresh_token":
                continue
            for client in parts.clients_of(tenant):
                if client.key in lines:
                    continue  # tenants of one refresh token share its line, called by the first of their names
                shared = lines[client.key] = self._lines.get(client.key) or self._new(client)
                shared.line.client = client
        gone = [shared for key, shared in self._lines.items() if key not in lines]
        self._retired = [shared for shared in (*self._retired, *gone) if shared.busy]
        self._lines = lines

    def _new(self, client: Client) -> _Shared:
        asked: list[Request] = []
        supply = parts.supply(self._store, self._endpoint, client, self._clock)
        return _Shared(supply(lambda *request: asked.append(request)), asked)

    async def grant(self, wish: Wish) -> Answer:
        """A newer token for who wishes for one; cancelled, they have left, and only what has begun goes on."""
        shared = self._lines.get(wish.client)
        if self._closed:
            return Answer(None, STOPPING)
        if shared is None:
            return Answer(None, UNKNOWN)
        try:
            outcome = await shared.next(wish, self._clock)
        except Exception:
            log.exception("a defect of this program ended a token request", extra={"event": "token.defect"})
            return Answer(None, None)
        asked, shared.asked[:] = tuple(shared.asked), ()
        if isinstance(outcome, Obtained):
            return Answer(outcome, None, asked)
        return Answer(None, Refusal.of(outcome), asked)

    async def close(self) -> None:
        """Asks for nothing any more, waits for what has been sent, and stores what it brings, all at the same time."""
        self._closed = True
        await asyncio.gather(*(shared.close() for shared in (*self._lines.values(), *self._retired)))
        await self._endpoint.close()
        await self._store.close()


def _is_usable(token: Obtained, now: Instant) -> bool:
    left = token.lifetime - tokens.passed(token.obtained, now)
    return left > tokens.leeway(token.lifetime)

"""One client's tokens, from one to the next, shared with other processes through a store.

The order is what keeps a refresh token from being lost or sent twice: lease and journal are stored, the request goes
out, its answer is stored, and only then is the access token used by anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from proxy.core import backoff, tokens, turn
from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client
from proxy.core.jwts import expiry
from proxy.core.lineage import Access, Lease, Record, Setback
from proxy.core.organization import REJECTED
from proxy.core.secret import Secret
from proxy.core.tokens import Instant
from proxy.core.turn import Adopt, Ask, GiveUp, Refuse, Wait
from proxy.errors import StoreError, TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.clock import Clock
from proxy.oauth.shelf import ALONE, PROMPT, TOO_SLOW, Shelf, Sleep
from proxy.oauth.store import Reading, TokenStore

T = TypeVar("T")

Asked = Callable[[str, str, float], None]
"""Told of each token request that is over: grant, outcome (``ok`` or the error code), seconds."""

STORE_PAUSE = 1.0
"""Seconds after which a store that could not be used is tried again."""


class Endpoint(Protocol):
    """What a line needs of the token endpoint."""

    def turn(self, client: Client) -> asyncio.Semaphore:
        """Waits until the client's login host has room for one more request."""

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        """Asks for a token, in a turn.

        :raises TokenError: there is none
        """


class Confirmation(Protocol):
    """What tells a line whose its tokens are."""

    async def confirm(self, client: Client, access_token: str) -> None:
        """Returns where the token is of the client's ``org_id``.

        :raises TokenError: it is not, or that can't be told
        """


@dataclass(frozen=True, slots=True)
class Obtained:
    """An access token that may be used: whatever has to be stored with it is stored."""

    access_token: str = field(repr=False)
    obtained: Instant
    lifetime: float
    stored: bool = False
    """It was in the store: another process's, or from before a restart."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What a request brought."""

    token: Obtained
    refresh_token: Secret | None
    usable: bool
    """The access token was not dead on arrival."""


@dataclass(slots=True)
class _Held:
    """The record with our lease, as it was written last."""

    reading: Reading


class Line:
    """Gets one access token after the other; one call at a time.

    :ivar begun: the call under way has sent a token request, or has a token already: its end will tell
    """

    def __init__(
        self,
        client: Client,
        endpoint: Endpoint,
        store: TokenStore,
        *,
        confirmation: Confirmation | None = None,
        asked: Asked,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._shelf = Shelf(client, store, clock, sleep)
        self._endpoint = endpoint
        self._confirmation = confirmation
        self._organization: str | None = None
        self._unconfirmed = 0
        self._asked = asked
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._access: Access | None = None
        self._pardons = True
        self._pardoned: Setback | None = None
        self._watched: tuple[Lease | None, float] = (None, 0.0)
        self.begun = False

    @property
    def client(self) -> Client:
        """Whose tokens these are; may be replaced by a client of the same key."""
        return self._shelf.client

    @client.setter
    def client(self, client: Client) -> None:
        self._shelf.client = client

    def pardon(self) -> None:
        """Forgets the failures there have been, whichever process noted them."""
        self._pardons = True

    async def next(self, *, rejected: bool = False) -> Obtained | Refuse:
        """A newer token than the last: another process's, or one that is asked for now.

        Cancelled, it sends nothing any more and gives up its lease; but what was sent and may be good for one use is
        waited for first, as long as a token request may take, and its answer stored.

        :param rejected: the upstream refused the last
        """
        try:
            while True:
                outcome = await self._attempt(rejected=rejected)
                if isinstance(outcome, Obtained):
                    self.begun = True
                    outcome = await self._confirmed(outcome)
                    rejected = rejected or outcome is None
                if outcome is not None:
                    return outcome
                self.begun = False
        except StoreError as error:
            self._watched = (None, 0.0)  # what happens meanwhile is not seen
            message = f"Tenant {self.client.tenant}: its refresh token can't be used without the store. {error}"
            return Refuse(TokenUnavailable(message, error="store_unavailable"), STORE_PAUSE)
        finally:
            self.begun = False

    def forget(self) -> None:
        """Drops from memory what the store has; for when nobody asks."""
        self._access = None
        self._watched = (None, 0.0)
        self._shelf.forget()

    @property
    def unsaved(self) -> bool:
        """It holds a refresh token that is not stored yet."""
        return self._shelf.unsaved

    async def close(self) -> None:
        """Stores what is not stored yet, if that can be done in some seconds."""
        await self._shelf.close()

    async def _attempt(self, *, rejected: bool) -> Obtained | Refuse | None:
        """Looks, and does what is to be done; None where it is to be looked again."""
        seen, step = await self._look(rejected=rejected)
        if isinstance(step, Ask):
            room = self._endpoint.turn(self.client)
            waited = room.locked()
            async with room:
                if waited:
                    seen, step = await self._look(rejected=rejected)  # that took its time
                if isinstance(step, Ask):
                    return await self._ask(seen, step)
        return await self._do(seen, step)

    async def _look(self, *, rejected: bool) -> tuple[Reading, turn.Step]:
        seen = await self._shelf.look()
        record = seen.record or Record()
        self._organization = record.organization
        if self._pardons:
            self._pardons, self._pardoned = False, record.setback
        lease, since = self._watched
        watched = self._clock().elapsed - since
        seeds = seen.key == self.client.line
        asker = turn.Asker(
            self.client, self._shelf.owner, self._access, rejected, self._pardoned, lease, watched, seeds=seeds
        )
        return seen, turn.next_step(record, asker, seen.now, abandoned=seen.abandoned)

    async def _do(self, seen: Reading, step: Adopt | Wait | Refuse | GiveUp) -> Obtained | Refuse | None:
        """Follows any step but Ask; None where it is to be looked again."""
        match step:
            case Adopt(access):
                return self._adopted(access, seen)
            case Wait(lease, seconds):
                if self._watched[0] != lease:
                    self._watched = (lease, self._clock().elapsed)
                await self._shelf.changed(seen, seconds)
            case GiveUp(record):
                await self._shelf.write(seen, record)
            case Refuse():
                return step
        return None

    async def _confirmed(self, token: Obtained) -> Obtained | Refuse | None:
        """The token, once the API has said that it is of the right organization; asked once for a line. None where it
        does not take one that was in the store, and has ended since.
        """
        client = self.client
        if self._confirmation is None or client.org_id is None or self._organization == client.org_id:
            return token
        try:
            await self._confirmation.confirm(client, token.access_token)
        except TokenError as error:
            if error.error == REJECTED and token.stored:
                return None
            if error.error != REJECTED:
                self._access = None  # the next attempt begins with this token: another would tell no more
            self._unconfirmed += 1
            final = isinstance(error, TokenRefused)
            pause = backoff.pause(self._unconfirmed, final=final, retry_after=error.retry_after, jitter=self._jitter())
            return Refuse(error, pause, self._unconfirmed)
        self._unconfirmed = 0
        with contextlib.suppress(StoreError):  # then it is asked again after a restart
            await self._shelf.confirm(client.org_id)
        return token

    def _adopted(self, access: Access, seen: Reading) -> Obtained:
        self._access = access
        now, age = self._clock(), max(0.0, seen.now - access.obtained)
        return Obtained(access.token.reveal(), Instant(now.elapsed - age, now.wall - age), access.lifetime, stored=True)

    # --- asking ---

    async def _ask(self, seen: Reading, asked: Ask) -> Obtained | Refuse | None:
        """What a request brings; None where it is to be looked again, because somebody was faster."""
        looked = self._clock().elapsed
        try:
            written = await self._shelf.write(seen, asked.record)
            if not asked.client.repeatable and self._clock().elapsed - looked > PROMPT:
                raise StoreError(TOO_SLOW)  # though no timer of ours ran that long, as where the machine slept
        except (StoreError, asyncio.CancelledError):
            self._shelf.take_back(seen, asked)
            raise
        if written is None:
            return None
        if written.version == ALONE:
            self._shelf.take_back(seen, asked)
        self._pardoned, self.begun = None, True
        sending = self._send(written, asked)
        if asked.client.repeatable:
            return await sending
        return await _to_its_end(sending, f"sending for {self.client.tenant}")

    async def _send(self, written: Reading, asked: Ask) -> Obtained | Refuse | None:
        """The request and its answer's way into the store, under a lease that is renewed."""
        held = _Held(written)
        renewing = asyncio.get_running_loop().create_task(self._renew(held), name=f"lease of {self.client.tenant}")
        try:
            arrived = await self._request(asked)
        except TokenError as error:
            return await self._failed(held.reading, asked, error)
        except BaseException:
            await asyncio.shield(self._shelf.release(held.reading, asked))
            raise
        finally:
            renewing.cancel()
        return await self._granted(held.reading, asked, arrived)

    async def _renew(self, held: _Held) -> None:
        while held.reading.version != ALONE and held.reading.record is not None:
            await self._sleep(turn.LEASE / 3)
            record = replace(held.reading.record, lease=Lease(self._shelf.owner, self._shelf.now() + turn.LEASE))
            with contextlib.suppress(StoreError):
                renewed = await self._shelf.write(held.reading, record)
                if renewed is None:
                    return  # lost; what the answer is worth is decided when it is there
                held.reading = renewed

    async def _request(self, asked: Ask) -> _Arrived:
        """One token request, counted."""
        sent, started, outcome = self._clock(), time.perf_counter(), "internal"
        try:
            answer = await self._endpoint.ask(asked.client, asked.refresh_token)
            lifetime = self._lifetime(answer)
            obtained = Obtained(answer.access_token, sent, lifetime)
            usable = lifetime - tokens.passed(sent, self._clock()) > tokens.leeway(lifetime)
            outcome = "ok" if usable else "expired_on_arrival"
        except TokenError as error:
            outcome = error.error
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._asked(asked.client.grant, outcome, time.perf_counter() - started)
        return _Arrived(obtained, None if answer.refresh_token is None else Secret(answer.refresh_token), usable)

    def _lifetime(self, answer: TokenAnswer) -> float:
        server_time = self._clock().wall if answer.server_time is None else answer.server_time
        return tokens.lifetime(answer.expires_in, expiry=expiry(answer.access_token), server_time=server_time)

    async def _granted(self, held: Reading, asked: Ask, arrived: _Arrived) -> Obtained | Refuse | None:
        token, now = arrived.token, self._shelf.now()
        obtained = self._shelf.time_of(token.obtained.elapsed)
        access = Access(Secret(token.access_token), obtained, token.lifetime, self.client.key)
        outcome = turn.granted(asked, access, arrived.refresh_token)
        if not arrived.usable:
            error = TokenUnavailable(
                f"Tenant {self.client.tenant}: the token endpoint issued a token that has already expired "
                "(expires_in, or the token's own exp); compare its clock.",
                error="expired_on_arrival",
            )
            pause = self._pause(asked, error)
            outcome = replace(outcome, access=asked.record.access, setback=asked.record.setback)
            await self._shelf.keep(held, asked, turn.set_back(outcome, error, pause, now))
            return Refuse(error, pause, turn.failures(asked.record) + 1)
        if not await self._shelf.keep(held, asked, outcome):
            return None
        self._access = access
        return token

    async def _failed(self, held: Reading, asked: Ask, error: TokenError) -> Refuse | None:
        pause = self._pause(asked, error)
        outcome = turn.failed(asked, error, pause, self._shelf.now())
        if not await self._shelf.keep(held, asked, outcome) or outcome.setback is None:
            return None
        return Refuse(error, pause, outcome.setback.count)

    def _pause(self, asked: Ask, error: TokenError) -> float:
        count, final = turn.failures(asked.record) + 1, isinstance(error, TokenRefused)
        return backoff.pause(count, final=final, retry_after=error.retry_after, jitter=self._jitter())


async def _to_its_end(work: Coroutine[Any, Any, T], name: str) -> T:
    """Awaits work that must not be broken off: who is cancelled meanwhile goes once it has ended."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen
        raise
    return task.result()

"""One client's record in the store, and what becomes of it while the store can't be used.

A client without refresh tokens does without the store then. One with refresh tokens waits for it, because another
process may be using the same one; what a request has brought at that moment is kept here, and stored as soon as that
can be done. A store that takes too long can't be used either.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from proxy.core import turn
from proxy.core.grants import Client
from proxy.core.lineage import Record
from proxy.core.turn import Ask
from proxy.errors import StoreError
from proxy.oauth.clock import Clock
from proxy.oauth.endpoint import REQUEST_TIMEOUT
from proxy.oauth.home import Home
from proxy.oauth.store import Reading, TokenStore

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]

ALONE = -1
"""Version of a reading that did not come from the store, which can't be used just now."""

PROMPT = turn.LEASE - REQUEST_TIMEOUT
"""Seconds for what a turn asks of the store. With more, the lease might be over before the request under it is."""

PAUSE = 0.5
"""Seconds between attempts to store a refresh token that could not be stored: many fit in ``turn.GRACE``, so that it
is there before anybody tries the old one."""

LONGEST_SILENCE = 60.0
"""Seconds between lines of the log that say so, or that it is done without the store."""

LAST_WRITES = 2.5
"""Seconds for that at the end of the process."""

TOO_SLOW = f"The token store is too slow: it takes more than {PROMPT:.0f} s."

_numbers = itertools.count(1)


@contextlib.asynccontextmanager
async def _promptly(after: float = 0.0) -> AsyncIterator[None]:
    """For what is asked of the store, which may take ``PROMPT`` seconds, and ``after`` before.

    :raises StoreError: it takes longer
    """
    try:
        async with asyncio.timeout(after + PROMPT):
            yield
    except TimeoutError:
        raise StoreError(TOO_SLOW) from None


@dataclass(frozen=True, slots=True)
class _Unsaved:
    """What the store did not take."""

    key: str
    asked: Ask
    outcome: Record

    @property
    def lost_with_us(self) -> bool:
        """It has a refresh token that is nowhere else."""
        return self.outcome.generation > self.asked.record.generation

    def __str__(self) -> str:
        if self.lost_with_us:
            return "its new refresh token is in memory only, and lost if this process ends"
        return "what became of its token request could not be stored"


class Shelf:
    """Reads and writes the record of one client, for one who asks at a time.

    :ivar client: may be replaced by one of the same key
    :ivar owner: of the leases taken here
    """

    def __init__(self, client: Client, store: TokenStore, clock: Clock, sleep: Sleep) -> None:
        self.client = client
        self.owner = f"{store.owner}/{next(_numbers)}"
        self._key = client.line
        self._store = store
        self._home = Home(store)
        self._clock = clock
        self._sleep = sleep
        self._known = Record()
        self._unsaved: _Unsaved | None = None
        self._saving: asyncio.Task[None] | None = None
        self._one_saves = asyncio.Lock()
        self._told_alone = -math.inf
        self._lead = clock().wall - clock().elapsed

    def now(self) -> float:
        """The time by the store's clock, as far as known."""
        return self.time_of(self._clock().elapsed)

    def time_of(self, elapsed: float) -> float:
        """A time of the elapsed clock by the store's."""
        return self._lead + elapsed

    def forget(self) -> None:
        """Drops from memory what the store has."""
        if self._unsaved is None:
            self._known = Record()

    # --- one turn: look, write the lease, keep the outcome ---

    async def look(self) -> Reading:
        """The record now.

        :raises StoreError: the store can't be used, and nothing may be done without
        """
        try:
            async with _promptly():
                await self._save()
                seen = await self._home.load(self.client)
        except StoreError as error:
            return self._go_alone(self._known, error)
        self._lead = seen.now - self._clock().elapsed
        record = seen.record or Record()
        if seen.key != self._key:
            self._key, self._known = seen.key, Record()
        if record.generation < self._known.generation:
            log.error(
                "tenant %s: the store has lost the newest refresh token; it is put back",
                self.client.tenant,
                extra={"event": "store.forgot", "tenant": self.client.tenant},
            )
            return replace(seen, record=replace(self._known, lease=None, journal=None), abandoned=False)
        self._known = record
        return seen

    async def changed(self, seen: Reading, seconds: float) -> None:
        """Waits for another process's writing, at most so long.

        :raises StoreError: the store can't be used, and nothing may be done without
        """
        try:
            async with _promptly(after=seconds):
                await self._store.changed(seen, seconds)
        except StoreError:
            if not self._may_go_alone:
                raise
            await self._sleep(min(PAUSE, seconds))

    async def write(self, seen: Reading, record: Record) -> Reading | None:
        """Writes over what was seen; None where somebody else has written since. It may be there later even so.

        :raises StoreError: the store can't be used, and nothing may be done without
        """
        if seen.version != ALONE:
            try:
                async with _promptly():
                    written = await self._store.replace(seen, record)
            except StoreError as error:
                written = self._go_alone(record, error)
        else:
            written = replace(seen, record=record)
        if written is not None:
            self._known = record
        return written

    async def confirm(self, organization: str) -> None:
        """Notes whose the tokens of this line are, unless there is another line by now.

        Where somebody else writes at this moment, nothing is noted, and the API is asked once more.

        :raises StoreError: the store can't be used
        """
        async with _promptly():
            seen = await self._store.load(self._key)
            if seen.record is not None and seen.record.generation == self._known.generation:
                confirmed = replace(seen.record, organization=organization)
                if await self._store.replace(seen, confirmed) is not None:
                    self._known = confirmed

    async def keep(self, held: Reading, asked: Ask, outcome: Record) -> bool:
        """Stores what a request brought, before anybody uses it; False where the store has something better.

        What the store does not take is kept here, and stored later.
        """
        self._known = outcome
        try:
            if held.version != ALONE:
                async with _promptly():
                    return await self._replace(held, asked, outcome)
        except StoreError as error:
            self._tell_failure("what the token endpoint answered could not be stored", error)
        if not self._may_go_alone or self.unsaved:
            self._save_later(_Unsaved(held.key, asked, outcome))
        return True

    async def release(self, held: Reading, asked: Ask) -> None:
        """Lets others ask, as far as the store can be used; the journal of a refresh token that was sent stays, since
        what became of that is not known.
        """
        journal = None if asked.refresh_token is None else asked.record.journal
        outcome = self._known = replace(asked.record, lease=None, journal=journal)
        if held.version != ALONE:
            with contextlib.suppress(StoreError):
                async with _promptly():
                    await self._replace(held, asked, outcome)

    def take_back(self, seen: Reading, asked: Ask) -> None:
        """Takes a note back that may have been written, though nobody waited for that or the store failed: nothing was
        sent after it.
        """
        if seen.version != ALONE:
            journal = None if seen.record is None else seen.record.journal
            outcome = replace(asked.record, lease=None, journal=journal)
            self._save_later(_Unsaved(seen.key, asked, outcome))

    async def close(self) -> None:
        """Stores what is not stored yet, if that can be done in ``LAST_WRITES`` seconds."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.wait({self._saving})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITES):
                while True:
                    with contextlib.suppress(StoreError):
                        return await self._save()
                    await self._sleep(PAUSE)
        if self._unsaved is not None and self._unsaved.lost_with_us:
            self._tell_loss()
        return None

    def _tell_loss(self) -> None:
        log.error(
            "tenant %s: its new refresh token could not be stored and ends with this process; "
            "run: genesys-auth-proxy login %s",
            self.client.tenant,
            self.client.tenant,
            extra={"event": "token.lost", "tenant": self.client.tenant},
        )

    # --- what the store did not take ---

    @property
    def unsaved(self) -> bool:
        """There is something."""
        return self._unsaved is not None

    @property
    def _may_go_alone(self) -> bool:
        """Another process may do the same at the same time, and no harm is done."""
        return self.client.grant != "refresh_token"

    def _go_alone(self, record: Record, error: StoreError) -> Reading:
        """What to go on from without the store: nobody's lease can be waited for.

        :raises StoreError: nothing may be done without
        """
        if not self._may_go_alone:
            raise error
        if (now := self._clock().elapsed) - self._told_alone >= LONGEST_SILENCE:
            self._told_alone = now
            self._tell_failure("it gets a token without the store, for this process alone", error)
        return Reading(self._key, replace(record, lease=None), ALONE, self.now())

    async def _replace(self, seen: Reading, asked: Ask, outcome: Record) -> bool:
        while await self._store.replace(seen, outcome) is None:
            seen = await self._store.load(seen.key)
            better = turn.merged(seen.record or Record(), asked, outcome, self.owner)
            if better is None:
                return False
            outcome = better
        if seen.key == self._key:
            self._known = outcome
        return True

    async def _save(self) -> None:
        """Stores what could not be stored before.

        :raises StoreError: nor can it now
        """
        async with self._one_saves:
            if (unsaved := self._unsaved) is None:
                return
            seen = await self._store.load(unsaved.key)
            outcome = turn.merged(seen.record or Record(), unsaved.asked, unsaved.outcome, self.owner)
            if outcome is not None:
                await self._replace(seen, unsaved.asked, outcome)
            if self._unsaved is not unsaved:
                return  # there is more to store by now
            self._unsaved = None
        if unsaved.outcome.access == unsaved.asked.record.access:
            return  # no token, nothing that anybody was told of
        log.info(
            "tenant %s: what could not be stored before is stored now",
            self.client.tenant,
            extra={"event": "store.saved", "tenant": self.client.tenant},
        )

    def _save_later(self, unsaved: _Unsaved) -> None:
        self._unsaved = unsaved
        if self._saving is None or self._saving.done():
            name = f"storing tokens of {self.client.tenant}"
            self._saving = asyncio.get_running_loop().create_task(self._save_patiently(), name=name)

    async def _save_patiently(self) -> None:
        silence, told = PAUSE, self._clock().elapsed
        while self._unsaved is not None:
            await self._sleep(PAUSE)
            try:
                await self._save()
            except StoreError as error:
                if (now := self._clock().elapsed) - told >= silence:
                    silence, told = min(2 * silence, LONGEST_SILENCE), now
                    self._tell_failure(str(self._unsaved), error)

    def _tell_failure(self, what: str, error: StoreError) -> None:
        log.error(
            "tenant %s: %s. %s",
            self.client.tenant,
            what,
            error,
            extra={"event": "store.failed", "tenant": self.client.tenant},
        )

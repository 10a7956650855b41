"""One line of tokens: what is stored before what is used, who learns what, and what a store that fails costs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client
from proxy.core.lineage import Lease, Record, digest
from proxy.core.secret import Secret
from proxy.core.turn import LEASE, LOOK_AGAIN, Refuse, supplied
from proxy.errors import StoreError, TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.line import STORE_PAUSE, Line, Obtained
from proxy.oauth.shelf import LAST_WRITES, PROMPT
from proxy.oauth.store import Reading
from proxy.oauth.store.memory import MemoryStore
from tests.oauth import fakes
from tests.oauth.virtual_time import VirtualClock, in_virtual_time, settle

USED_UP = TokenRefused("Tenant acme: used.", error="invalid_grant")
DOWN = TokenUnavailable("Tenant acme: it is down.", error="http_503")


class Rotating:
    """A token endpoint that rotates refresh tokens, and first gives what its script holds.

    :ivar shown: the refresh token of each request
    :ivar latency: seconds that each takes
    :ivar before: called with each request
    :ivar room: for requests at the same time
    """

    def __init__(self) -> None:
        self.script: deque[TokenError] = deque()
        self.shown: list[str | None] = []
        self.latency = 1.0
        self.before: Callable[[], None] = lambda: None
        self.room = asyncio.Semaphore(16)

    def turn(self, client: Client) -> asyncio.Semaphore:
        return self.room

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        self.before()
        self.shown.append(None if refresh_token is None else refresh_token.reveal())
        await asyncio.sleep(self.latency)
        if self.script:
            raise self.script.popleft()
        number = len(self.shown)
        return TokenAnswer(f"access-{number}", 3600, None, None if refresh_token is None else f"refresh-{number}")


class Kept(MemoryStore):
    """A store that processes share, and that a test takes away.

    :ivar down: it can't be used
    :ivar reading: seconds until something is read
    :ivar reads: how often something was
    :ivar writing: seconds until a write is there, which goes on though its caller has left
    :ivar reporting: seconds more until its caller knows
    """

    shared = True

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(lambda: clock.look().wall)
        self.down = False
        self.reading = 0.0
        self.reads: Counter[str] = Counter()
        self.writing = 0.0
        self.reporting = 0.0

    async def load(self, key: str) -> Reading:
        self.reads[key] += 1
        self._reach()
        if self.reading:
            await asyncio.sleep(self.reading)
        return await super().load(key)

    async def changed(self, seen: Reading, seconds: float) -> None:
        await super().changed(seen, min(seconds, 1.0))
        self._reach()

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        self._reach()
        if not self.writing + self.reporting:
            return await super().replace(seen, record)
        write = asyncio.get_running_loop().create_task(self._replace_late(seen, record), name="the store's thread")
        return await asyncio.shield(write)

    async def _replace_late(self, seen: Reading, record: Record) -> Reading | None:
        await asyncio.sleep(self.writing)
        written = await super().replace(seen, record)
        await asyncio.sleep(self.reporting)
        return written

    def _reach(self) -> None:
        if self.down:
            raise StoreError("The store is down.")


class World:
    """An endpoint, a store, and the lines of processes that share them."""

    def __init__(self, grant: str = "refresh_token") -> None:
        self.clock = VirtualClock()
        self.endpoint = Rotating()
        self.store = Kept(self.clock)
        self.client = fakes.client(grant=grant)
        self.counted: list[tuple[str, str]] = []

    def line(self) -> Line:
        return Line(
            self.client,
            self.endpoint,
            self.store,
            asked=lambda grant, outcome, _: self.counted.append((grant, outcome)),
            clock=self.clock,
            jitter=lambda: 0.0,
        )

    def record(self) -> Record:
        """What is kept now."""
        kept = self.store._kept.get(self.client.line)
        return Record() if kept is None else kept[0]

    @property
    def refresh_token(self) -> str | None:
        kept = self.record().refresh_token
        return None if kept is None else kept.reveal()


async def token(line: Line) -> str:
    outcome = await line.next()
    assert isinstance(outcome, Obtained)
    return outcome.access_token


def begin(line: Line) -> asyncio.Task[Obtained | Refuse]:
    """Somebody who needs a token."""
    return asyncio.get_running_loop().create_task(line.next(), name="line")


async def cancel(asking: asyncio.Task[Obtained | Refuse]) -> None:
    asking.cancel()
    await asyncio.wait({asking})


def has_unsaved(line: Line) -> bool:
    return line.unsaved


async def refusal(line: Line) -> Refuse:
    outcome = await line.next()
    assert isinstance(outcome, Refuse)
    return outcome


# --- order ---


@in_virtual_time
async def test_lease_and_note_are_stored_before_a_refresh_token_is_sent() -> None:
    world = World()
    seen: list[Record] = []
    world.endpoint.before = lambda: seen.append(world.record())
    assert await token(world.line()) == "access-1"
    [before] = seen
    assert before.lease is not None
    assert before.journal is not None
    assert before.refresh_token == Secret("refresh-0")
    after = world.record()
    assert (after.lease, after.journal, world.refresh_token) == (None, None, "refresh-1")


@in_virtual_time
async def test_each_answers_refresh_token_is_the_next_to_be_sent() -> None:
    world = World()
    line = world.line()
    assert [await token(line) for _ in range(3)] == ["access-1", "access-2", "access-3"]
    assert world.endpoint.shown == ["refresh-0", "refresh-1", "refresh-2"]
    assert world.counted == [("refresh_token", "ok")] * 3


@in_virtual_time
async def test_a_lease_is_renewed_while_a_request_takes_longer_than_it() -> None:
    world = World()
    world.endpoint.latency = 3 * LEASE
    one, two = world.line(), world.line()
    first = asyncio.create_task(one.next(), name="one")  # noqa: TID251 awaited below
    await asyncio.sleep(1.0)
    assert await token(two) == "access-1"
    assert world.clock.loop.now == 3 * LEASE
    await first
    assert len(world.endpoint.shown) == 1


# --- several ---


@in_virtual_time
async def test_who_waits_learns_of_success_and_asks_for_nothing() -> None:
    world = World()
    tokens = await asyncio.gather(*(token(world.line()) for _ in range(5)))
    assert set(tokens) == {"access-1"}
    assert world.endpoint.shown == ["refresh-0"]
    assert world.clock.loop.now == 1.0


@in_virtual_time
async def test_who_waits_learns_of_failure_and_asks_for_nothing() -> None:
    world = World()
    world.endpoint.script.append(DOWN)
    refusals = await asyncio.gather(*(refusal(world.line()) for _ in range(5)))
    assert {str(each.error) for each in refusals} == {str(DOWN)}
    assert {each.error.error for each in refusals} == {"http_503"}
    assert world.endpoint.shown == ["refresh-0"]
    assert world.clock.loop.now == 1.0
    assert world.record().journal is None


@in_virtual_time
async def test_a_request_that_is_cancelled_gives_its_lease_up() -> None:
    world = World("client_credentials")
    asking = begin(world.line())
    await asyncio.sleep(0.5)
    await cancel(asking)
    assert world.record().lease is None
    assert await token(world.line()) == "access-2"
    assert world.clock.loop.now == 1.5
    assert world.counted == [("client_credentials", "cancelled"), ("client_credentials", "ok")]


@pytest.mark.parametrize(("assertion", "ended"), [(None, 0.5), (Secret("of-somebody-else"), 1.0)])
@in_virtual_time
async def test_an_assertion_that_is_not_signed_here_is_waited_for(assertion: Secret | None, ended: float) -> None:
    world = World("jwt_bearer")
    world.client = replace(world.client, assertion=assertion)
    asking = begin(world.line())
    await asyncio.sleep(0.5)
    await cancel(asking)
    assert world.clock.loop.now == ended
    assert (world.record().lease, world.record().access is None) == (None, assertion is None)


@in_virtual_time
async def test_a_lease_is_given_up_though_it_is_being_renewed() -> None:
    world = World("client_credentials")
    world.endpoint.latency = LEASE
    asking = begin(world.line())
    await asyncio.sleep(LEASE / 3 - 0.1)
    world.store.reporting = 0.2
    await asyncio.sleep(0.2)  # it is prolonged, and its owner does not know yet
    await cancel(asking)
    assert world.record().lease is None


@in_virtual_time
async def test_who_waits_for_a_turn_and_is_cancelled_sends_nothing() -> None:
    world = World()
    world.endpoint.room = asyncio.Semaphore(0)
    asking = begin(world.line())
    await settle()
    await cancel(asking)
    assert world.clock.loop.now == 0.0
    assert world.endpoint.shown == []
    assert world.record() == Record()


@in_virtual_time
async def test_who_waits_for_another_and_is_cancelled_sends_nothing() -> None:
    world = World()
    first, second = begin(world.line()), begin(world.line())
    await asyncio.sleep(0.5)
    await cancel(second)
    assert world.clock.loop.now == 0.5
    await first
    assert world.endpoint.shown == ["refresh-0"]


@pytest.mark.parametrize("part", ["writing", "reporting"])
@in_virtual_time
async def test_a_note_that_was_being_written_is_taken_back_by_who_is_cancelled(part: str) -> None:
    world = World()
    line = world.line()
    setattr(world.store, part, 1.0)
    asking = begin(line)
    await asyncio.sleep(0.5)
    await cancel(asking)
    assert world.clock.loop.now == 0.5
    setattr(world.store, part, 0.0)
    await line.close()
    await asyncio.sleep(1.0)
    assert world.endpoint.shown == []
    assert (world.record().lease, world.record().journal) == (None, None)
    assert await token(world.line()) == "access-1"


@in_virtual_time
async def test_what_was_sent_and_is_good_for_one_use_is_waited_for_and_stored_before_who_is_cancelled_goes() -> None:
    world = World()
    asking = begin(world.line())
    await asyncio.sleep(0.5)
    await cancel(asking)
    assert asking.cancelled()
    assert world.clock.loop.now == 1.0
    assert (world.record().lease, world.record().journal, world.refresh_token) == (None, None, "refresh-1")


@in_virtual_time
async def test_who_finds_another_asking_once_it_has_its_turn_gives_that_to_the_next() -> None:
    world = World()
    world.endpoint.room = asyncio.Semaphore(0)
    asking = begin(world.line())
    await settle()
    seen = await world.store.load(world.client.line)
    first = supplied(Record(), Secret("refresh-0"), seeds=(digest(Secret("refresh-0")),))
    await world.store.replace(seen, replace(first, lease=Lease("another/1", seen.now + LEASE)))
    world.endpoint.room.release()
    await settle()
    assert world.endpoint.shown == []
    assert not world.endpoint.room.locked()
    await cancel(asking)


@in_virtual_time
async def test_who_need_not_wait_for_a_turn_looks_once() -> None:
    world = World()
    line = world.line()
    await token(line)
    world.store.reads.clear()
    assert await token(line) == "access-2"
    assert world.store.reads == {world.client.named: 1, world.client.line: 1}, "at the name, and where that leads"


@in_virtual_time
async def test_who_has_waited_for_a_turn_looks_again_and_takes_a_lease_from_then_on() -> None:
    world = World()
    line = world.line()
    await token(line)
    world.store.reads.clear()
    world.endpoint.room = asyncio.Semaphore(0)
    asking = begin(line)
    await asyncio.sleep(2 * LEASE)
    assert world.store.reads[world.client.line] == 1
    world.endpoint.room.release()
    await settle()
    lease, now = world.record().lease, world.clock.look().wall
    assert world.store.reads[world.client.line] == 2
    assert lease is not None
    assert lease.until == now + LEASE
    await asking


# --- invalid_grant ---


@in_virtual_time
async def test_a_refused_refresh_token_is_sent_once_by_all_together() -> None:
    world = World()
    world.endpoint.script.append(USED_UP)
    lines = [world.line() for _ in range(3)]
    for line in lines * 3:
        found = await refusal(line)
        assert isinstance(found.error, TokenRefused)
        assert "genesys-auth-proxy login acme" in str(found.error)
        assert found.pause == LOOK_AGAIN
        line.pardon()
    assert world.endpoint.shown == ["refresh-0"]


@in_virtual_time
async def test_another_refresh_token_heals_it_at_the_next_look() -> None:
    world = World()
    world.endpoint.script.append(USED_UP)
    line = world.line()
    await refusal(line)
    seen = await world.store.load(world.client.line)
    assert seen.record is not None
    await world.store.replace(seen, supplied(seen.record, Secret("from-a-login")))
    assert await token(line) == "access-2"
    assert world.endpoint.shown == ["refresh-0", "from-a-login"]


# --- the store is gone ---


@in_virtual_time
async def test_a_client_without_refresh_tokens_does_without_the_store() -> None:
    world = World("client_credentials")
    world.store.down = True
    line = world.line()
    assert await token(line) == "access-1"
    world.endpoint.script.append(DOWN)
    assert (await refusal(line)).count == 1
    world.endpoint.script.append(DOWN)
    await asyncio.sleep(1.0)
    assert (await refusal(line)).count == 2
    world.store.down = False
    await asyncio.sleep(5.0)
    assert await token(line) == "access-4"
    assert world.record().access is not None


@in_virtual_time
async def test_a_refresh_token_is_not_sent_without_the_store() -> None:
    world = World()
    world.store.down = True
    found = await refusal(world.line())
    assert isinstance(found.error, TokenUnavailable)
    assert (found.error.error, found.pause) == ("store_unavailable", STORE_PAUSE)
    assert world.endpoint.shown == []


@in_virtual_time
async def test_an_answer_that_can_not_be_stored_is_used_and_stored_later_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    line = world.line()
    world.endpoint.before = lambda: setattr(world.store, "down", True)
    assert await token(line) == "access-1"
    assert has_unsaved(line)
    assert world.refresh_token == "refresh-0"
    assert isinstance((await refusal(line)).error, TokenUnavailable)  # what it has is used once it is stored
    await asyncio.sleep(30.0)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 3 <= len(told) <= 8
    assert "in memory only" in told[-1].getMessage()
    assert "refresh-1" not in caplog.text
    world.store.down = False
    world.endpoint.before = lambda: None
    await asyncio.sleep(1.0)
    assert not has_unsaved(line)
    assert world.refresh_token == "refresh-1"
    assert await token(world.line()) == "access-1"
    assert world.endpoint.shown == ["refresh-0"]


@in_virtual_time
async def test_the_end_waits_for_a_store_that_comes_back() -> None:
    world = World()
    line = world.line()
    world.endpoint.before = lambda: setattr(world.store, "down", True)
    await token(line)
    closing = asyncio.create_task(line.close(), name="end")  # noqa: TID251 awaited below
    await asyncio.sleep(2.0)
    world.store.down = False
    await closing
    assert world.refresh_token == "refresh-1"


@in_virtual_time
async def test_the_end_tells_what_it_loses(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    line = world.line()
    world.endpoint.before = lambda: setattr(world.store, "down", True)
    await token(line)
    await line.close()
    assert world.clock.loop.now <= 10.0
    assert "genesys-auth-proxy login acme" in caplog.text
    assert "refresh-1" not in caplog.text


@in_virtual_time
async def test_a_line_that_has_stored_all_ends_at_once() -> None:
    world = World()
    line = world.line()
    await token(line)
    await line.close()
    assert world.clock.loop.now == 1.0


@in_virtual_time
async def test_what_the_store_has_forgotten_is_put_back(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    line = world.line()
    await token(line)
    await world.store.close()
    assert await token(line) == "access-2"
    assert world.endpoint.shown == ["refresh-0", "refresh-1"]
    assert "has lost the newest refresh token" in caplog.text
    await settle()


@in_virtual_time
async def test_a_client_without_refresh_tokens_waits_for_nobody_once_the_store_is_gone() -> None:
    world = World("client_credentials")
    seen = await world.store.load(world.client.line)
    await world.store.replace(seen, Record(lease=Lease("another/1", seen.now + 2 * LEASE)))
    asking = begin(world.line())
    await settle()
    world.store.down = True
    assert isinstance(await asking, Obtained)
    assert world.clock.loop.now < LEASE / 2


# --- the store is slow ---


@in_virtual_time
async def test_a_client_without_refresh_tokens_does_without_a_store_that_is_slow_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World("client_credentials")
    world.store.writing = PROMPT + 0.3
    line = world.line()
    assert await token(line) == "access-1"
    assert world.clock.loop.now == PROMPT + 1.0
    [told] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "without the store" in told
    assert "too slow" in told
    await asyncio.sleep(10.0)
    assert await token(world.line()) == "access-1"  # it is there in the end, and nobody's lease
    assert world.record().lease is None
    assert "stored now" in caplog.text
    assert await token(line) == "access-2"
    assert len([record for record in caplog.records if "without the store" in record.getMessage()]) == 1


@in_virtual_time
async def test_a_client_without_refresh_tokens_does_without_a_store_that_does_not_answer() -> None:
    world = World("client_credentials")
    world.store.reading = 1e6
    assert await token(world.line()) == "access-1"
    assert world.clock.loop.now == PROMPT + 1.0


@in_virtual_time
async def test_a_refresh_token_is_not_sent_where_the_store_is_slow_and_it_is_said_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.store.writing = PROMPT + 0.3
    line = world.line()
    found = await refusal(line)
    assert world.clock.loop.now == PROMPT
    assert isinstance(found.error, TokenUnavailable)
    assert (found.error.error, found.pause) == ("store_unavailable", STORE_PAUSE)
    assert "The token store is too slow" in str(found.error)
    await asyncio.sleep(10.0)
    assert "stored now" not in caplog.text
    assert world.endpoint.shown == []
    assert (world.record().lease, world.record().journal) == (None, None)
    world.store.writing = 0.0
    assert await token(line) == "access-1"
    assert world.endpoint.shown == ["refresh-0"]


@in_virtual_time
async def test_a_refresh_token_is_not_sent_where_the_store_does_not_answer() -> None:
    world = World()
    world.store.reading = 1e6
    assert "too slow" in str((await refusal(world.line())).error)
    assert world.clock.loop.now == PROMPT
    assert world.endpoint.shown == []


@in_virtual_time
async def test_a_refresh_token_is_not_sent_under_a_lease_that_was_written_before_the_machine_slept() -> None:
    world = World()
    world.store.writing = 1.0
    asking = begin(world.line())
    await asyncio.sleep(1.5)  # what the tenant's name stands for is written first
    world.clock.suspend(PROMPT)
    assert isinstance(await asking, Refuse)
    assert world.endpoint.shown == []


@pytest.mark.parametrize("grant", ["refresh_token", "client_credentials"])
@in_virtual_time
async def test_a_store_that_is_just_fast_enough_is_waited_for(grant: str) -> None:
    world = World(grant)
    world.store.writing = PROMPT - 0.1
    assert await token(world.line()) == "access-1"
    writings = 3 if grant == "refresh_token" else 2  # of which the first is of what the tenant's name stands for
    assert world.clock.loop.now == pytest.approx(writings * world.store.writing + 1.0)
    assert world.record().access is not None


@in_virtual_time
async def test_the_end_is_not_held_up_by_a_store_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    line = world.line()
    asking = begin(line)
    await settle()
    world.store.writing = 1e6
    await cancel(asking)
    await line.close()
    assert world.clock.loop.now == 1.0 + PROMPT + LAST_WRITES
    assert "genesys-auth-proxy login acme" in caplog.text

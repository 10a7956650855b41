"""Refresh tokens of several processes, used by one: who wishes at the same time, leaves, dies, or knows too little."""

from __future__ import annotations

import asyncio
import gc
import itertools
from pathlib import Path
from typing import Any

import pytest

from proxy.app import parts
from proxy.app.lines import Answer, Lines, RemoteLine, Wish
from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client
from proxy.core.guests import GuestNews
from proxy.core.lineage import Record
from proxy.core.secret import Secret
from proxy.core.turn import Refuse, supplied
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.line import Obtained
from proxy.oauth.store import Reading
from proxy.oauth.store.memory import MemoryStore
from proxy.settings import Settings, load
from proxy.workers.codec import pack, unpack
from tests.oauth.virtual_time import VirtualClock, in_virtual_time, settle

LIFETIME = 3600.0
USED_UP = TokenRefused("Tenant acme: used.", error="invalid_grant")
THROTTLED = TokenUnavailable("Tenant acme: it is throttled.", error="http_429", retry_after=42.0)


class Endpoint:
    """A token endpoint that rotates.

    :ivar shown: the refresh token of each request
    :ivar fails: with this, instead of an answer
    :ivar room: for requests at the same time
    """

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.fails: Exception | None = None
        self.room = asyncio.Semaphore(16)

    def turn(self, client: Client) -> asyncio.Semaphore:
        return self.room

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        assert refresh_token is not None
        self.shown.append(refresh_token.reveal())
        await asyncio.sleep(1.0)
        if self.fails is not None:
            raise self.fails
        number = len(self.shown)
        return TokenAnswer(f"access-{number}", LIFETIME, None, f"{client.tenant}-{number}")

    async def close(self) -> None:
        """There is nothing to close."""


class Kept(MemoryStore):
    """A store that can still be looked into when it is closed.

    :ivar slow: seconds that each writing takes, which is there before it is told
    """

    slow = 0.0

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        written = await super().replace(seen, record)
        await asyncio.sleep(self.slow)
        return written

    async def close(self) -> None:
        """It ends with the test."""


class World:
    """A supervisor's lines, and what workers wish over a channel that keeps only what JSON can say."""

    def __init__(self, folder: Path, *tenants: str) -> None:
        self.clock = VirtualClock()
        endpoint: Any = Endpoint()
        self.endpoint = endpoint
        self.store = Kept(lambda: self.clock.look().wall)
        self.lines = Lines(self.store, endpoint, self.clock)
        self.asked: list[tuple[str, str]] = []
        self.orphaned = False
        self._files = (folder / f"{number}.toml" for number in itertools.count())
        self.configure(*tenants)

    def configure(self, *tenants: str) -> Settings:
        """Has the lines follow a configuration of these tenants."""
        file = next(self._files)
        text = '[defaults]\nlogin_url = "http://127.0.0.1:1"\napi_url = "http://127.0.0.1:1"\n'
        for tenant in tenants:
            text += f'[tenants.{tenant}]\nclient_id = "id"\nclient_secret = "secret"\n'
            text += f'grant = "refresh_token"\nrefresh_token = "{tenant}-0"\n'
        file.write_text(text, "utf-8")
        self.settings = load(file)
        self.lines._follow(self.settings)
        return self.settings

    def worker(self, tenant: str = "acme") -> RemoteLine:
        """One worker's end of a tenant's line."""
        [client] = parts.clients_of(self.settings.tenants[tenant])
        alone = parts.supply(self.store, self.endpoint, client, self.clock)
        return RemoteLine(client, self, alone, lambda grant, outcome, _: self.asked.append((grant, outcome)))

    async def wish(self, wish: Wish) -> Answer | None:
        """As over the channel; None to an orphan."""
        if self.orphaned:
            return None
        return unpack(Answer, pack(await self.lines.grant(unpack(Wish, pack(wish)))))

    def tell(self, news: GuestNews) -> None:
        """Lines have no guests."""

    async def kept(self, tenant: str = "acme") -> str | None:
        """The refresh token in the store."""
        [client] = parts.clients_of(self.settings.tenants[tenant])
        record = (await self.store.load(client.line)).record
        return None if record is None or record.refresh_token is None else record.refresh_token.reveal()


async def token(line: RemoteLine, *, rejected: bool = False) -> str:
    outcome = await line.next(rejected=rejected)
    assert isinstance(outcome, Obtained)
    return outcome.access_token


async def refusal(line: RemoteLine) -> Refuse:
    outcome = await line.next()
    assert isinstance(outcome, Refuse)
    return outcome


@in_virtual_time
async def test_workers_that_wish_at_once_share_one_request(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    workers = [world.worker() for _ in range(4)]
    assert await asyncio.gather(*map(token, workers)) == ["access-1"] * 4
    assert world.endpoint.shown == ["acme-0"]
    assert await asyncio.gather(*map(token, workers)) == ["access-2"] * 4
    assert world.endpoint.shown == ["acme-0", "acme-1"]
    assert world.asked == [("refresh_token", "ok")] * 2, "each request is told of once"


@in_virtual_time
async def test_who_has_an_older_token_or_none_gets_the_newest_without_a_request(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    first, second = world.worker(), world.worker()
    await asyncio.gather(token(first), token(second))
    assert await token(first) == "access-2"
    assert await token(second) == "access-2"
    assert await token(world.worker()) == "access-2"
    assert len(world.endpoint.shown) == 2


@in_virtual_time
async def test_a_token_that_has_expired_is_no_news(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    assert await token(world.worker()) == "access-1"
    await asyncio.sleep(LIFETIME)
    assert await token(world.worker()) == "access-2"


@in_virtual_time
async def test_a_token_that_has_expired_is_held_no_longer(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")

    def held() -> int:
        gc.collect()
        return sum(isinstance(each, Obtained) for each in gc.get_objects())

    before = held()
    await token(world.worker())
    assert held() - before == 1
    await asyncio.sleep(LIFETIME + 1)
    assert held() == before
    assert await token(world.worker()) == "access-2"


@in_virtual_time
async def test_a_rejected_token_is_replaced_once_for_all(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    workers = [world.worker() for _ in range(3)]
    await asyncio.gather(*map(token, workers))
    assert await asyncio.gather(*(token(worker, rejected=True) for worker in workers)) == ["access-2"] * 3
    assert len(world.endpoint.shown) == 2


@in_virtual_time
async def test_a_worker_that_dies_leaves_the_request_whose_answer_is_stored(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    wishing = asyncio.get_running_loop().create_task(token(world.worker()), name="worker")
    await asyncio.sleep(0.5)
    assert world.endpoint.shown == ["acme-0"]
    wishing.cancel()
    await asyncio.sleep(1.0)
    assert wishing.cancelled()
    assert await world.kept() == "acme-1"
    assert await token(world.worker()) == "access-1"
    assert len(world.endpoint.shown) == 1


async def wishing(world: World, tenant: str = "acme") -> asyncio.Task[Obtained | Refuse]:
    """A worker's wish, which waits by now."""
    wish = asyncio.get_running_loop().create_task(world.worker(tenant).next(), name=f"wish for {tenant}")
    await settle()
    return wish


async def leave(*wishes: asyncio.Task[Obtained | Refuse]) -> None:
    """They are wished no longer, or their workers have died."""
    for wish in wishes:
        wish.cancel()
    await settle()
    assert all(wish.cancelled() for wish in wishes)


@in_virtual_time
async def test_what_waits_for_its_turn_when_the_last_who_wished_leaves_is_never_sent(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.room = asyncio.Semaphore(0)
    wishes = [await wishing(world) for _ in range(2)]
    await leave(wishes[0])
    await leave(wishes[1])
    world.endpoint.room.release()
    await asyncio.sleep(60.0)
    assert world.endpoint.shown == []
    assert await token(world.worker()) == "access-1"
    assert world.endpoint.shown == ["acme-0"]


@in_virtual_time
async def test_what_waits_for_its_turn_is_sent_while_one_of_those_who_wished_is_there(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.room = asyncio.Semaphore(0)
    wishes = [await wishing(world) for _ in range(3)]
    await leave(*wishes[:2])
    world.endpoint.room.release()
    assert isinstance(await wishes[2], Obtained)
    assert world.endpoint.shown == ["acme-0"]


@in_virtual_time
async def test_who_wishes_as_the_last_leaves_is_served(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.room = asyncio.Semaphore(0)
    first = await wishing(world)
    first.cancel()
    second = await wishing(world)
    assert first.cancelled()
    world.endpoint.room.release()
    outcome = await second
    assert isinstance(outcome, Obtained)
    assert (outcome.access_token, world.endpoint.shown) == ("access-1", ["acme-0"])


@in_virtual_time
async def test_nothing_begins_for_who_wishes_as_the_last_leaves_and_all_ends(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.room = asyncio.Semaphore(0)
    first = await wishing(world)
    loop = asyncio.get_running_loop()
    first.cancel()
    second = loop.create_task(refusal(world.worker()), name="wish")
    await loop.create_task(world.lines.close(), name="end")
    world.endpoint.room.release()
    assert str((await second).error) == "The proxy is stopping."
    await asyncio.sleep(60.0)
    assert world.endpoint.shown == []


@in_virtual_time
async def test_a_line_that_was_asked_before_sends_nothing_either_for_who_has_left(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    worker = world.worker()
    await token(worker)
    wish = asyncio.get_running_loop().create_task(worker.next(), name="wish")
    await asyncio.sleep(0)
    wish.cancel()
    await asyncio.sleep(60.0)
    assert wish.cancelled()
    assert world.endpoint.shown == ["acme-0"]
    assert await token(worker) == "access-2"


@in_virtual_time
async def test_a_note_that_is_written_when_the_last_leaves_is_taken_back(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    world.store.slow = 1.0
    wish = await wishing(world)
    await asyncio.sleep(0.5)
    await leave(wish)
    world.store.slow = 0.0
    await asyncio.sleep(60.0)
    assert world.endpoint.shown == []
    [client] = parts.clients_of(world.settings.tenants["acme"])
    record = (await world.store.load(client.line)).record
    assert record is None or (record.lease, record.journal) == (None, None)
    assert await token(world.worker()) == "access-1"


@in_virtual_time
async def test_what_was_sent_is_news_to_who_wishes_after_all_have_left(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    wish = await wishing(world)
    assert world.endpoint.shown == ["acme-0"]
    await leave(wish)
    assert await token(world.worker()) == "access-1"
    assert world.clock.loop.now == 1.0, "it joined the request under way"
    assert await world.kept() == "acme-1"
    assert world.endpoint.shown == ["acme-0"]


@pytest.mark.parametrize(("error", "known"), [(USED_UP, TokenRefused), (THROTTLED, TokenUnavailable)])
@in_virtual_time
async def test_why_there_is_no_token_arrives_as_it_was(tmp_path: Path, error: TokenError, known: type) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.fails = error
    first, second = await asyncio.gather(refusal(world.worker()), refusal(world.worker()))
    assert (str(first.error), first.pause, first.count) == (str(second.error), second.pause, second.count)
    assert type(first.error) is known
    assert first.error.error == error.error
    assert first.pause >= (error.retry_after or 0.0)
    assert len(world.endpoint.shown) == 1


@in_virtual_time
async def test_a_login_heals_a_line_at_the_next_look(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.fails = USED_UP
    worker = world.worker()
    await refusal(worker)
    assert (await refusal(worker)).error.error == "invalid_grant"
    assert len(world.endpoint.shown) == 1, "final for that refresh token"
    world.endpoint.fails = None
    seen = await world.store.load(worker.client.line)
    assert seen.record is not None
    await world.store.replace(seen, supplied(seen.record, Secret("of-a-login")))
    assert await token(worker) == "access-2"
    assert world.endpoint.shown[1] == "of-a-login"


@in_virtual_time
async def test_a_pardon_reaches_the_line(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.fails = THROTTLED
    worker = world.worker()
    await refusal(worker)
    world.endpoint.fails = None
    assert (await refusal(worker)).error.error == "http_429", "told from memory"
    worker.pardon()
    assert await token(worker) == "access-2"


@in_virtual_time
async def test_tenants_have_lines_of_their_own(tmp_path: Path) -> None:
    world = World(tmp_path, "acme", "globex")
    await asyncio.gather(token(world.worker("acme")), token(world.worker("globex")))
    assert sorted(world.endpoint.shown) == ["acme-0", "globex-0"]


@in_virtual_time
async def test_a_reload_keeps_lines_and_lets_those_of_removed_tenants_finish(tmp_path: Path) -> None:
    world = World(tmp_path, "acme", "globex")
    acme, globex = world.worker("acme"), world.worker("globex")
    await token(acme)
    leaving = asyncio.get_running_loop().create_task(token(globex), name="worker")
    await settle()
    world.configure("acme")
    assert (await refusal(globex)).error.error == "reloading"
    assert await leaving == "access-2"
    assert await token(acme) == "access-3"
    assert world.endpoint.shown == ["acme-0", "globex-0", "acme-1"]
    world.configure("acme", "globex")
    assert await world.kept("globex") == "globex-2"


@in_virtual_time
async def test_the_end_waits_for_a_request_under_way(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    wishing = asyncio.get_running_loop().create_task(token(world.worker()), name="worker")
    await settle()
    wishing.cancel()
    await world.lines.close()
    assert await world.kept() == "acme-1"


@in_virtual_time
async def test_the_end_begins_nothing_and_waits_for_all_that_was_sent_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, "acme", "globex", "initech")
    world.endpoint.room = asyncio.Semaphore(2)
    loop = asyncio.get_running_loop()
    sent = [loop.create_task(refusal(world.worker(tenant)), name=tenant) for tenant in ("acme", "globex")]
    await settle()
    waiting = loop.create_task(refusal(world.worker("initech")), name="initech")
    await asyncio.sleep(0.5)
    await world.lines.close()
    assert world.clock.loop.now == 1.0
    assert world.endpoint.shown == ["acme-0", "globex-0"]
    assert [await world.kept(tenant) for tenant in ("acme", "globex")] == ["acme-2", "globex-2"]
    late = await refusal(world.worker())
    assert {str(each.error) for each in (*await asyncio.gather(*sent), await waiting, late)} == {
        "The proxy is stopping."
    }
    assert len(world.endpoint.shown) == 2


@in_virtual_time
async def test_a_defect_is_told_to_the_worker_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path, "acme")
    world.endpoint.fails = ZeroDivisionError()
    with pytest.raises(RuntimeError, match="log"):
        await world.worker().next()
    assert "ZeroDivisionError" in caplog.text
    world.endpoint.fails = None
    assert await token(world.worker()) == "access-2"


@pytest.mark.parametrize("rejected", [False, True])
@in_virtual_time
async def test_an_orphan_goes_on_alone(tmp_path: Path, *, rejected: bool) -> None:
    world = World(tmp_path, "acme")
    worker = world.worker()
    assert await token(worker) == "access-1"
    world.orphaned = True
    assert await token(worker, rejected=rejected) == "access-2", "and not the one it has, which is what is stored"
    assert world.endpoint.shown == ["acme-0", "acme-1"]
    assert not worker.unsaved
    await worker.close()


@in_virtual_time
async def test_an_orphan_takes_what_its_supervisor_stored_last(tmp_path: Path) -> None:
    world = World(tmp_path, "acme")
    worker = world.worker()
    await token(worker)
    await asyncio.sleep(LIFETIME / 2)
    assert await token(world.worker()) == "access-1"
    other = world.worker()
    await token(other)
    assert await token(other) == "access-2"
    world.orphaned = True
    assert await token(worker) == "access-2"
    assert len(world.endpoint.shown) == 2


def test_no_token_is_in_what_is_shown_of_a_wish_or_an_answer() -> None:
    wish = Wish("key", "the-token", rejected=False, pardon=False)
    assert "the-token" not in repr(wish)

"""What tenants that nobody calls any more leave in memory: nothing of their tokens, while the store has them all."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

from proxy.core.answers import TokenAnswer
from proxy.core.lineage import Access, Record
from proxy.core.secret import Secret
from proxy.core.tokens import Token
from proxy.errors import StoreError
from proxy.oauth.keeper import LONGEST_NAP
from proxy.oauth.store import Reading
from proxy.oauth.store.codec import decode, encode
from tests.oauth.fakes import LIFETIME, World
from tests.oauth.test_keeper import keeping
from tests.oauth.virtual_time import in_virtual_time, settle

TENANTS = 50


class Elsewhere:
    """A store whose records are no objects of this process, as on disk.

    :ivar down: it can't be used
    """

    owner = "elsewhere"
    shared = True

    def __init__(self, world: World) -> None:
        self.kept: dict[str, tuple[bytes, int]] = {}
        self.down = False
        self._world = world

    async def load(self, key: str) -> Reading:
        if self.down:
            raise StoreError("The store is down.")
        value, version = self.kept.get(key, (None, 0))
        return Reading(key, None if value is None else decode(value), version, self._world.clock.look().wall)

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        if (await self.load(seen.key)).version != seen.version:
            return None
        self.kept[seen.key] = (encode(record), seen.version + 1)
        return Reading(seen.key, record, seen.version + 1, self._world.clock.look().wall)

    async def changed(self, seen: Reading, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """There is nothing to close."""


def held() -> Counter[str]:
    """Objects of this process that are tokens, or hold one."""
    gc.collect()
    return Counter(
        type(each).__name__ for each in gc.get_objects() if isinstance(each, Token | Access | Record | Secret)
    )


def world(*, grant: str = "client_credentials") -> tuple[World, Elsewhere]:
    made = World()
    store = Elsewhere(made)
    made.store = store  # type: ignore[assignment]  # what it takes is any store
    if grant == "refresh_token":
        numbers = iter(range(10_000))
        made.endpoint.otherwise = lambda: TokenAnswer("access", LIFETIME, None, f"refresh-{next(numbers)}")
    return made, store


async def _call_once(grant: str) -> tuple[World, Elsewhere, Counter[str], Counter[str]]:
    """What is held after each tenant was called, and some lives later."""
    made, store = world(grant=grant)
    sources = [made.source(f"t{number}", grant=grant) for number in range(TENANTS)]
    before = held()
    async with keeping(made, sources, keep_warm=False):
        for source in sources:
            await source.token(15)
        called = held() - before
        await asyncio.sleep(3 * LIFETIME)
        idle = held() - before
        for source in sources[:3]:
            assert source.current() is None
            assert (await source.token(15)).lifetime == LIFETIME
    return made, store, called, idle


@in_virtual_time
async def test_tokens_of_tenants_that_nobody_calls_leave_memory_and_not_the_store() -> None:
    made, store, called, idle = await _call_once("client_credentials")
    assert called["Token"] == TENANTS
    assert not idle
    assert len(store.kept) == TENANTS
    assert len(made.endpoint.asked) == 2 * TENANTS + 3, "each was used, and so refreshed once; three were called again"


@in_virtual_time
async def test_refresh_tokens_of_tenants_that_nobody_calls_are_in_the_store_alone() -> None:
    _, store, called, idle = await _call_once("refresh_token")
    assert called["Secret"] >= TENANTS
    assert not idle
    assert sum(decode(value).refresh_token is not None for value, _ in store.kept.values()) == TENANTS
    assert sum(decode(value).kept_at is not None for value, _ in store.kept.values()) == TENANTS, "their names"


@in_virtual_time
async def test_a_refresh_token_that_is_not_stored_yet_is_kept() -> None:
    made, store = world(grant="refresh_token")
    source = made.source(grant="refresh_token")
    async with keeping(made, [source], keep_warm=False):
        made.endpoint.latency = 1.0
        asking = asyncio.get_running_loop().create_task(source.token(15), name="caller")
        await asyncio.sleep(0.5)
        store.down = True
        await asking
        await asyncio.sleep(3 * LIFETIME)
        assert source.busy, "it still has what the store has not taken"
        store.down = False
        await asyncio.sleep(LONGEST_NAP)
        value, _ = store.kept[source.client.line]
        assert decode(value).refresh_token == Secret("refresh-0")
        assert not source.busy


@in_virtual_time
async def test_a_token_that_lives_is_not_dropped() -> None:
    made, _ = world()
    source = made.source()
    async with keeping(made, [source], keep_warm=False):
        await source.token(15)
        await asyncio.sleep(2 * LIFETIME - 120)  # it was used, and so refreshed once
        assert source.token_now() is not None
        await asyncio.sleep(240)
        assert source.token_now() is None
        await settle()


@in_virtual_time
async def test_a_token_that_is_kept_warm_is_never_dropped() -> None:
    made, _ = world()
    source = made.source()
    async with keeping(made, [source]):
        for _ in range(40):
            await asyncio.sleep(LIFETIME / 10)
            assert source.token_now() is not None

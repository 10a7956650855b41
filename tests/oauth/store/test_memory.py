"""What is kept in memory goes when it is of no use any more, and a refresh token never does."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.lineage import KEPT_AFTER_EXPIRY, Access, Record
from proxy.core.secret import Secret
from proxy.oauth.store.memory import MemoryStore

ACCESS = Access(Secret("the-access-token"), 1_000.0, 60.0, "client-key")


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_an_access_token_goes_some_time_after_its_expiry() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    await store.replace(await store.load("acme"), Record(access=ACCESS))
    clock.now = 1_060.0 + KEPT_AFTER_EXPIRY - 1
    assert (await store.load("acme")).record is not None
    clock.now += 2
    seen = await store.load("acme")
    assert (seen.record, seen.version) == (None, 0)
    assert await store.replace(seen, Record(access=ACCESS)) is not None


async def test_a_refresh_token_stays_however_many_others_come_and_go() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    await store.replace(await store.load("acme"), Record(access=ACCESS, refresh_token=Secret("the-refresh-token")))
    for number in range(10_000):
        await store.replace(await store.load(f"tenant-{number}"), Record(access=ACCESS))
    clock.now = 1e10
    kept = (await store.load("acme")).record
    assert kept is not None
    assert kept.refresh_token == Secret("the-refresh-token")
    assert (await store.load("tenant-1")).record is None

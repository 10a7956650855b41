"""What every store promises, whatever it is made of."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace

from proxy.core.lineage import Access, Lease, Record
from proxy.core.secret import Secret
from proxy.oauth.store import TokenStore
from tests.oauth.store.places import FULL, KEY, Place


def named(name: str) -> Record:
    return Record(refresh_token=Secret(name), generation=1)


async def put(store: TokenStore, key: str, record: Record) -> None:
    """Writes whatever stands there."""
    assert await store.replace(await store.load(key), record) is not None


async def kept(store: TokenStore, key: str) -> str | None:
    """The name of the record under a key."""
    record = (await store.load(key)).record
    return None if record is None or record.refresh_token is None else record.refresh_token.reveal()


# --- keeping ---


async def test_there_is_nothing_under_a_key_that_was_never_written(place: Place) -> None:
    async with place.opened() as store:
        seen = await store.load("key")
        assert (seen.key, seen.record, seen.version, seen.abandoned) == ("key", None, 0, False)


async def test_a_record_comes_back_as_it_was_written(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "key", FULL)
        assert (await store.load("key")).record == FULL


async def test_an_empty_record_comes_back_as_one(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "key", Record(seeds=("one",)))
        assert (await store.load("key")).record == Record(seeds=("one",))


async def test_a_record_that_leads_elsewhere_comes_back_as_one(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "key", replace(FULL, kept_at="yek"))
        assert (await store.load("key")).record == replace(FULL, kept_at="yek")


async def test_each_key_has_its_own_record(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "a", named("A"))
        await put(store, "b", named("B"))
        await put(store, "a", named("C"))
        assert [await kept(store, key) for key in "abc"] == ["C", "B", None]


async def test_the_time_of_a_reading_is_now(place: Place) -> None:
    async with place.opened() as store:
        before = time.time()
        seen = await store.load("key")
        written = await store.replace(seen, FULL)
        assert written is not None
        times = [before, seen.now, written.now, (await store.load("key")).now, time.time()]
        assert all(later - earlier > -0.01 for earlier, later in itertools.pairwise(times)), times


# --- replacing ---


async def test_replacing_tells_what_is_kept_now(place: Place) -> None:
    async with place.opened() as store:
        written = await store.replace(await store.load("key"), FULL)
        assert written is not None
        seen = await store.load("key")
        assert (written.key, written.record, written.version) == ("key", FULL, seen.version)


async def test_a_slow_loser_never_overwrites_a_winner(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "key", named("first"))
        seen = await store.load("key")
        assert await store.replace(seen, named("winner")) is not None
        assert await store.replace(seen, named("loser")) is None
        assert await kept(store, "key") == "winner"


async def test_a_first_record_is_written_once(place: Place) -> None:
    async with place.opened() as store:
        nothing = await store.load("key")
        assert await store.replace(nothing, named("winner")) is not None
        assert await store.replace(nothing, named("loser")) is None
        assert await kept(store, "key") == "winner"


async def test_writing_the_same_again_is_a_writing_too(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "key", FULL)
        seen = await store.load("key")
        assert await store.replace(seen, FULL) is not None
        assert await store.replace(seen, FULL) is None


async def test_of_many_at_once_one_wins(place: Place) -> None:
    async with place.opened() as one, place.opened() as two, place.opened() as three:
        await put(one, "key", named("first"))
        stores = [one, two, three] * 5
        readings = [await store.load("key") for store in stores]
        results = await asyncio.gather(
            *(
                store.replace(seen, named(f"{at}"))
                for at, (store, seen) in enumerate(zip(stores, readings, strict=True))
            )
        )
        [winner] = [at for at, result in enumerate(results) if result is not None]
        assert [await kept(store, "key") for store in (one, two, three)] == [f"{winner}"] * 3


async def test_no_writing_is_lost_among_stores_that_count_together(place: Place) -> None:
    async def count(store: TokenStore) -> None:
        for _ in range(10):
            while True:
                seen = await store.load("key")
                record = seen.record or Record(seeds=("counter",))
                if await store.replace(seen, replace(record, generation=record.generation + 1)) is not None:
                    break

    async with place.opened() as one, place.opened() as two, place.opened() as three:
        await asyncio.gather(*map(count, (one, two, three)))
        record = (await one.load("key")).record
        assert record is not None
        assert record.generation == 30


# --- waiting ---


async def test_who_waits_is_woken_by_the_next_writing(place: Place) -> None:
    async with place.opened() as one, place.opened() as two:
        await put(one, "key", FULL)
        seen = await two.load("key")
        waiting = asyncio.create_task(two.changed(seen, 20.0))  # noqa: TID251 awaited below
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await put(one, "key", named("new"))
        async with asyncio.timeout(10):
            await waiting
        assert await kept(two, "key") == "new"


async def test_who_waits_for_a_first_record_is_woken_by_it(place: Place) -> None:
    async with place.opened() as one, place.opened() as two:
        waiting = asyncio.create_task(two.changed(await two.load("key"), 20.0))  # noqa: TID251 awaited below
        await asyncio.sleep(0.05)
        await put(one, "key", FULL)
        async with asyncio.timeout(10):
            await waiting


async def test_all_who_wait_are_woken(place: Place) -> None:
    async with place.opened() as one, place.opened() as two:
        seen = await one.load("key")
        waiting = [asyncio.create_task(store.changed(seen, 20.0)) for store in (one, two) * 5]  # noqa: TID251
        await asyncio.sleep(0.05)
        await put(one, "key", FULL)
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)


async def test_who_begins_to_wait_after_the_writing_does_not_wait(place: Place) -> None:
    async with place.opened() as store:
        seen = await store.load("key")
        await put(store, "key", FULL)
        async with asyncio.timeout(10):
            await store.changed(seen, 20.0)


async def test_waiting_has_an_end(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "key", FULL)
        seen = await store.load("key")
        began = time.monotonic()
        await store.changed(seen, 0.1)
        assert time.monotonic() - began >= 0.09


async def test_a_writing_of_another_key_wakes_nobody(place: Place) -> None:
    async with place.opened() as store:
        waiting = asyncio.create_task(store.changed(await store.load("a"), 20.0))  # noqa: TID251 ends below
        await put(store, "b", FULL)
        await asyncio.sleep(0.15)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


# --- outliving ---


async def test_what_is_kept_outlives_the_store(shared_place: Place) -> None:
    async with shared_place.opened() as store:
        await put(store, "key", FULL)
        version = (await store.load("key")).version
    async with shared_place.opened() as store:
        seen = await store.load("key")
        assert (seen.record, seen.version) == (FULL, version)


async def test_an_owner_is_another_with_every_opening(shared_place: Place) -> None:
    async with shared_place.opened() as one, shared_place.opened() as two:
        assert one.owner
        assert one.owner != two.owner
        assert one.shared


async def test_the_lease_of_an_owner_who_lives_is_not_abandoned(shared_place: Place) -> None:
    async with shared_place.opened() as one, shared_place.opened() as two:
        await put(one, "key", Record(lease=Lease(one.owner, time.time() + 12.0)))
        assert [(await store.load("key")).abandoned for store in (one, two)] == [False, False]


async def test_an_expired_access_token_is_forgotten_and_a_refresh_token_never(shared_place: Place) -> None:
    old = Access(Secret("old"), time.time() - 3 * 86_400.0, 3600.0, "client")
    async with shared_place.opened() as store:
        await put(store, "access", Record(access=old))
        await put(store, "refresh", replace(named("kept"), access=old))
        await put(store, "new", Record(access=replace(old, obtained=time.time())))
        await put(store, "leading", Record(kept_at="refresh"))
    async with shared_place.opened() as store:
        assert (await store.load("access")).record is None
        assert (await store.load("refresh")).record is not None
        assert (await store.load("new")).record is not None
        assert (await store.load("leading")).record is not None


# --- secrecy ---


async def test_with_a_key_nothing_is_kept_in_the_clear(shared_place: Place) -> None:
    async with shared_place.opened() as store:
        await put(store, "key", FULL)
        await put(store, "yek", named("another-refresh-token"))
        everything = shared_place.everything()
    for secret in (b"the-access-token", b"the-refresh-token", b"another-refresh-token", b"the-org"):
        assert (secret in everything) == (not shared_place.encrypted), secret
    assert KEY.reveal().encode() not in everything


async def test_nothing_shows_a_token_in_its_repr(place: Place) -> None:
    async with place.opened() as store:
        await put(store, "key", FULL)
        seen = await store.load("key")
        for shown in (repr(seen), repr(store), str(seen.record)):
            assert "the-access-token" not in shown
            assert "the-refresh-token" not in shown

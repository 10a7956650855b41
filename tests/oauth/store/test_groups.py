"""What a store in a file is asked at the same time: one transaction, and to each caller their own outcome."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.lineage import Record
from proxy.core.secret import Secret
from proxy.errors import StoreError
from proxy.oauth.store import Reading, TokenStore
from proxy.oauth.store.memory import MemoryStore
from proxy.oauth.store.seal import Seal
from proxy.oauth.store.sqlite import SqliteStore
from tests.oauth.store import process
from tests.oauth.store.places import in_file
from tests.oauth.store.test_sqlite import limit, no_file_longer_than

PATIENCE = 20.0
KEYS = 12
LARGE = Record(refresh_token=Secret("x" * 200_000))


def named(name: str) -> Record:
    return Record(refresh_token=Secret(name), generation=1)


async def name_of(store: TokenStore, key: str) -> str | None:
    record = (await store.load(key)).record
    return None if record is None or record.refresh_token is None else record.refresh_token.reveal()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, Seal())
    await store.open()
    yield store
    await store.close()


@contextlib.asynccontextmanager
async def busy(store: SqliteStore) -> AsyncIterator[Callable[[], None]]:
    """Has the store's thread hang in a call, until it is told or the block ends: what is asked meanwhile waits."""
    began, over = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        over.wait(PATIENCE)

    hanging = asyncio.get_running_loop().create_task(store._do(hang), name="hanging")
    await asyncio.to_thread(began.wait, PATIENCE)
    try:
        yield over.set
    finally:
        over.set()
        await asyncio.wait({hanging})


@contextlib.asynccontextmanager
async def statements(store: SqliteStore) -> AsyncIterator[list[str]]:
    """The first word of each statement that SQLite is given."""
    given: list[str] = []
    await store._do(lambda: store._database.set_trace_callback(lambda text: given.append(text.split()[0])))
    yield given
    await store._do(lambda: store._database.set_trace_callback(None))


async def outcomes(*asked: Any) -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_what_is_asked_at_the_same_time_is_one_transaction(store: SqliteStore) -> None:
    seen = [await store.load(f"{number}") for number in range(5)]
    async with statements(store) as given:
        written = await outcomes(*(store.replace(each, named(each.key)) for each in seen), store.load("0"))
    assert given == ["BEGIN", *["INSERT"] * 5, "SELECT", "COMMIT"]
    assert [each.key for each in written] == ["0", "1", "2", "3", "4", "0"]


async def test_nobody_is_told_before_all_is_committed(store: SqliteStore) -> None:
    loop = asyncio.get_running_loop()
    seen = [await store.load(key) for key in "abc"]
    writing = [loop.create_task(store.replace(each, named(each.key)), name=each.key) for each in seen]
    told: list[int] = []

    async def look() -> None:
        await asyncio.sleep(0.05)
        told.append(sum(task.done() for task in writing))

    def trace(statement: str) -> None:  # as it begins, on the store's thread
        if statement == "COMMIT":
            asyncio.run_coroutine_threadsafe(look(), loop).result(PATIENCE)

    hook = loop.create_task(store._do(lambda: store._database.set_trace_callback(trace)), name="hook")
    await asyncio.wait({hook, *writing})
    await store._do(lambda: store._database.set_trace_callback(None))
    assert told == [0]
    assert all(task.result() for task in writing)


async def test_one_writing_needs_no_transaction_of_several(store: SqliteStore) -> None:
    seen = await store.load("key")
    async with statements(store) as given:
        await outcomes(store.load("other"), store.replace(seen, named("new")), store.load("key"))
    assert given == ["SELECT", "INSERT", "SELECT"]


async def test_whoever_loses_among_others_loses_alone(store: SqliteStore) -> None:
    old = await store.load("contested")
    assert await store.replace(old, named("winner")) is not None
    nothing = [await store.load(key) for key in ("a", "b")]
    a, loser, b = await outcomes(
        store.replace(nothing[0], named("A")), store.replace(old, named("loser")), store.replace(nothing[1], named("B"))
    )
    assert (a.record, loser, b.record) == (named("A"), None, named("B"))
    assert [await name_of(store, key) for key in ("a", "contested", "b")] == ["A", "winner", "B"]


async def test_the_first_of_a_group_wins(store: SqliteStore) -> None:
    seen = await store.load("key")
    results = await outcomes(*(store.replace(seen, named(f"{number}")) for number in range(4)))
    assert [result is not None for result in results] == [True, False, False, False]
    assert await name_of(store, "key") == "0"


async def test_an_entry_that_can_not_be_read_is_the_trouble_of_whoever_reads_it(store: SqliteStore, path: Path) -> None:
    seen = [await store.load(key) for key in ("a", "b", "bad")]
    await store.replace(seen[2], named("bad"))
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE tokens SET value = X'7B7D' WHERE key = 'bad'")
        database.commit()
    async with statements(store) as given:
        a, bad, b = await outcomes(
            store.replace(seen[0], named("A")), store.load("bad"), store.replace(seen[1], named("B"))
        )
    assert isinstance(bad, StoreError)
    assert given == ["BEGIN", "INSERT", "SELECT", "INSERT", "COMMIT"], "written once"
    assert [a.record, b.record] == [named("A"), named("B")]


_STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["load", "newest", "old", "nothing"])), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(before=_STEPS, group=_STEPS)
def test_a_group_does_what_its_parts_would_one_after_the_other(
    before: list[tuple[str, str]], group: list[tuple[str, str]]
) -> None:
    """Against the store in memory, which is asked one by one."""

    async def both() -> tuple[list[object], list[object]]:
        with tempfile.TemporaryDirectory() as folder:
            async with in_file(Path(folder) / "tokens.db").opened() as grouped:
                return await told(grouped, together=True), await told(MemoryStore(), together=False)

    async def told(store: TokenStore, *, together: bool) -> list[object]:
        old: dict[str, Reading] = {}
        for number, (key, _) in enumerate(before):
            seen = await store.load(key)
            old.setdefault(key, seen)
            await store.replace(seen, named(f"before-{number}"))
        newest = {key: await store.load(key) for key in "ab"}
        asked: list[Any] = []
        for number, (key, what) in enumerate(group):
            readings = {"newest": newest[key], "old": old.get(key), "nothing": Reading(key, None, 0, 0.0)}
            seen_then = readings.get(what)
            asked.append(store.load(key) if seen_then is None else store.replace(seen_then, named(f"{number}")))
        results = await asyncio.gather(*asked) if together else [await each for each in asked]
        results += [await store.load(key) for key in "ab"]
        return [None if result is None else (result.key, result.record) for result in results]

    grouped, one_by_one = asyncio.run(both())
    assert grouped == one_by_one


# --- trouble ---


async def test_what_finds_no_room_fails_alone(store: SqliteStore, path: Path) -> None:
    seen = [await store.load(key) for key in ("a", "large", "b")]
    [(pages,)] = await store._do(lambda: store._database.execute("PRAGMA page_count").fetchall())
    await limit(store, f"PRAGMA max_page_count = {pages + 5}")
    a, large, b = await outcomes(
        store.replace(seen[0], named("A")), store.replace(seen[1], LARGE), store.replace(seen[2], named("B"))
    )
    assert isinstance(large, StoreError)
    assert "full" in str(large)
    assert [a.record, b.record] == [named("A"), named("B")]
    async with in_file(path).opened() as other:
        assert [await name_of(other, key) for key in ("a", "large", "b")] == ["A", None, "B"]


async def test_what_the_system_does_not_write_is_told_to_all_and_is_not_there(store: SqliteStore, path: Path) -> None:
    kept = await store.load("kept")
    assert await store.replace(kept, named("before")) is not None
    seen = [await store.load(key) for key in ("kept", "a", "b")]
    with no_file_longer_than(0):
        results = await outcomes(*(store.replace(each, named("after")) for each in seen), store.load("kept"))
    assert [type(result) for result in results] == [StoreError] * 3 + [Reading]
    assert results[3].record == named("before")
    async with in_file(path).opened() as other:
        assert [await name_of(other, key) for key in ("kept", "a", "b")] == ["before", None, None]
    healed = await outcomes(*(store.replace(each, named("after")) for each in seen))
    assert [each.record for each in healed] == [named("after")] * 3


@contextlib.contextmanager
def writing_elsewhere(path: Path) -> Iterator[Callable[[], object]]:
    """As another process in the middle of a writing, which ends when it is told to, or with the block."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield lambda: database.execute("COMMIT")


async def test_all_wait_once_for_another_process_that_writes(store: SqliteStore, path: Path) -> None:
    await limit(store, "PRAGMA busy_timeout = 200")
    seen = [await store.load(f"{number}") for number in range(5)]
    with writing_elsewhere(path):
        async with statements(store) as given:
            *written, read = await outcomes(*(store.replace(each, named(each.key)) for each in seen), store.load("0"))
    assert given == ["BEGIN", "SELECT"]
    assert [type(each) for each in written] == [StoreError] * 5
    assert "locked" in str(written[0])
    assert read.record is None
    results = await outcomes(*(store.replace(each, named(each.key)) for each in seen))
    assert [each.record for each in results] == [named(each.key) for each in seen]


async def test_a_group_that_another_process_keeps_waiting_is_written_after_it(store: SqliteStore, path: Path) -> None:
    seen = [await store.load(f"{number}") for number in range(5)]
    with writing_elsewhere(path) as end:
        waiting = asyncio.gather(*(store.replace(each, named(each.key)) for each in seen))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        end()
        assert all(await waiting)


async def test_who_leaves_before_the_group_begins_has_written_nothing(store: SqliteStore) -> None:
    seen = [await store.load(key) for key in "abc"]
    loop = asyncio.get_running_loop()
    async with busy(store) as end:
        tasks = [loop.create_task(store.replace(each, named(each.key)), name=each.key) for each in seen]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait({tasks[1]})
        end()
        await asyncio.wait(tasks)
    assert [await name_of(store, key) for key in "abc"] == ["a", None, "c"]


async def test_what_waits_when_it_is_closed_is_written(path: Path) -> None:
    store = SqliteStore(path, Seal())
    await store.open()
    seen = [await store.load(f"{number}") for number in range(5)]
    async with busy(store) as end:
        waiting = asyncio.gather(*(store.replace(each, named(each.key)) for each in seen))
        await asyncio.sleep(0)
        closing = asyncio.get_running_loop().create_task(store.close(), name="closing")
        await asyncio.sleep(0)
        end()
        await closing
    assert all(await waiting)
    assert sorted(file.name for file in path.parent.iterdir()) == ["tokens.db", "tokens.db-live"], "closed in order"
    async with in_file(path).opened() as other:
        assert [await name_of(other, each.key) for each in seen] == [each.key for each in seen]


async def test_whoever_is_killed_while_a_group_is_written_leaves_all_of_it_or_nothing(path: Path) -> None:
    told = 0
    for attempt in range(8):
        one = process.start(path, "groups", f"{KEYS}")
        assert one.stdout is not None
        for _ in range(2 * KEYS):
            told = int(await asyncio.to_thread(one.stdout.readline))
        await asyncio.sleep(0.0003 * attempt)
        rest = await asyncio.to_thread(process.kill, one)
        told = max([told, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))])
        async with in_file(path).opened() as store:
            records = [(await store.load(f"{number}")).record for number in range(KEYS)]
        [generation] = {record and record.generation for record in records}  # all keys are always written together
        assert generation in (told, told + 1)
        assert generation is not None
        told = generation

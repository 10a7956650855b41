"""The file removed or replaced under those who have it open: they notice, and nothing that was kept is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.core.lineage import Journal, Record
from proxy.core.secret import Secret
from proxy.errors import ConfigurationError, StoreError
from proxy.oauth.store import files, sqlite
from proxy.oauth.store.codec import encode
from proxy.oauth.store.seal import Seal
from proxy.oauth.store.sqlite import SqliteStore
from tests.oauth.store import process
from tests.oauth.store.places import FULL, KEY, in_file
from tests.support.stages import until

ALL = ("", "-wal", "-shm", "-live")
GONE = [("",), ("-wal",), ("-shm",), ("-wal", "-shm"), ALL]
NOTICED = "removed or replaced while it was in use"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tokens.db"


@contextlib.asynccontextmanager
async def opened(path: Path, *keys: Secret) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, Seal(keys))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def record(generation: int) -> Record:
    return Record(refresh_token=Secret(f"of-{generation}"), generation=generation)


async def put(store: SqliteStore, key: str, *generations: int) -> None:
    for generation in generations:
        assert await store.replace(await store.load(key), record(generation)) is not None


async def generation(store: SqliteStore, key: str) -> int | None:
    found = (await store.load(key)).record
    return None if found is None else found.generation


async def another(path: Path, *command: str) -> str:
    """What another process says that begins now and ends."""
    one = process.start(path, *command)
    said, trouble = await asyncio.to_thread(one.communicate, timeout=60)
    assert one.returncode == 0, trouble
    return said.strip()


def named(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in suffixes]


def remove(path: Path, suffixes: tuple[str, ...]) -> None:
    for file in named(path, suffixes):
        file.unlink()


def put_in_its_place(other: Path, path: Path) -> None:
    other.replace(path)


def copy_of(path: Path) -> Path:
    """All that is in the database now, in a file as a backup leaves it."""
    copy = path.with_name("copy.db")
    with contextlib.closing(sqlite3.connect(path)) as database, contextlib.closing(sqlite3.connect(copy)) as target:
        database.backup(target)
    return copy


def state(path: Path) -> tuple[bytes, int]:
    return path.read_bytes(), stat.S_IMODE(path.stat().st_mode)


# --- removed ---


@pytest.mark.parametrize("suffixes", GONE, ids="".join)
async def test_what_was_in_files_that_are_gone_is_there_for_all(
    path: Path, suffixes: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        await put(store, "used", 1, 2)
        await put(store, "idle", 1)
        remove(path, suffixes)
        assert await generation(store, "used") == 2
        assert NOTICED in caplog.text
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
        assert await another(path, "tell", "used", "idle") == "2 1"
        await put(store, "used", 3)
        assert await another(path, "tell", "used", "idle") == "3 1"
        await another(path, "put", "idle", "2")
        assert await generation(store, "idle") == 2
    assert await another(path, "tell", "used", "idle") == "3 2"


@pytest.mark.parametrize("suffixes", [("",), ("-wal", "-shm")], ids="".join)
async def test_a_lease_that_was_seen_before_is_written_over_after(path: Path, suffixes: tuple[str, ...]) -> None:
    async with opened(path) as store:
        await put(store, "key", 1)
        held = await store.load("key")
        remove(path, suffixes)
        assert await store.replace(held, record(2)) is not None
    assert await another(path, "tell", "key") == "2"


async def test_a_folder_that_is_gone_is_made_anew(path: Path) -> None:
    async with opened(path) as store:
        await put(store, "key", 1)
        shutil.rmtree(path.parent)
        assert await generation(store, "key") == 1
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert await another(path, "tell", "key") == "1"


@pytest.mark.parametrize("suffixes", [("",), ("-wal", "-shm")], ids="".join)
async def test_it_is_noticed_though_nobody_uses_the_store(
    path: Path, suffixes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOOK", 0.2)
    async with opened(path) as store:
        await put(store, "key", 1)
        remove(path, suffixes)
        await until(
            lambda: all(path.with_name(path.name + suffix).exists() for suffix in suffixes if suffix != "-live")
        )
        assert await another(path, "tell", "key") == "1"


@pytest.mark.parametrize("suffixes", [("",), ("-wal", "-shm")], ids="".join)
async def test_it_is_noticed_at_the_end(path: Path, suffixes: tuple[str, ...]) -> None:
    async with opened(path) as store:
        await put(store, "key", 1)
        remove(path, suffixes)
    assert await another(path, "tell", "key") == "1"


async def test_a_file_that_was_moved_away_has_all_that_was_in_it(path: Path) -> None:
    async with opened(path) as store:
        await put(store, "key", 1, 2)
        away = path.with_name("away.db")
        put_in_its_place(path, away)
        assert await generation(store, "key") == 2
    assert await another(away, "tell", "key") == "2"


async def test_whoever_comes_before_it_is_noticed_shares_nothing_with_the_file_that_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOOK", 3600.0)
    async with opened(path) as store:
        await put(store, "ours", 1)
        remove(path, ("",))
        await another(path, "put", "theirs", "1")
        assert [await generation(store, key) for key in ("ours", "theirs")] == [1, 1]
    assert await another(path, "tell", "ours", "theirs") == "1 1"


async def test_what_is_written_into_a_file_that_goes_at_that_moment_is_in_doubt_and_there(path: Path) -> None:
    async with opened(path) as store:
        await put(store, "key", 1)
        held = await store.load("key")

        def write() -> None:
            store._replace(held, record(2), Seal().close("key", encode(record(2))))
            remove(path, ("", "-wal", "-shm"))

        with pytest.raises(StoreError, match="while it was written"):
            await store._do(write, writes=True)
        assert await generation(store, "key") == 2


async def test_processes_open_it_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as store:
        await put(store, "key", 1)
    with files.alone(path.parent):
        monkeypatch.setattr(files, "PATIENCE", 0.05)
        with pytest.raises(ConfigurationError, match="can't be opened"):
            await SqliteStore(path, Seal()).open()
        monkeypatch.undo()
        waiting = asyncio.get_running_loop().create_task(another(path, "tell", "key"), name="waiting")
        await asyncio.sleep(1)
        assert not waiting.done()
    assert await waiting == "1"


async def test_processes_that_count_on_while_files_are_removed_lose_no_number(path: Path) -> None:
    async with opened(path):
        pass
    counting = [process.start(path, "count-on") for _ in range(2)]
    for one in counting:
        assert one.stdout is not None
        await asyncio.to_thread(one.stdout.readline)
    for suffixes in (*GONE[:4], *GONE[:4], ALL[:3]):
        await asyncio.sleep(0.2)
        await until(lambda: all(file.exists() for file in named(path, ALL[:3])))
        remove(path, suffixes)
    ended = [await asyncio.to_thread(one.communicate, timeout=60) for one in counting]
    assert [one.returncode for one in counting] == [0, 0], ended
    numbers = [[int(number) for number in said.split()] for said, _ in ended]
    done, doubtful = (sum(column) for column in zip(*numbers, strict=True))
    assert done > 0
    assert done <= int(await another(path, "tell", "counter")) <= done + doubtful
    assert all(NOTICED in trouble for _, trouble in ended)


# --- replaced ---


@pytest.mark.parametrize("stale", [True, False], ids=["side files stay", "side files go"])
async def test_an_older_copy_does_not_win_and_a_newer_one_does(path: Path, *, stale: bool) -> None:
    async with opened(path) as store:
        for key in ("older", "newer", "same"):
            await put(store, key, 1)
        copy = copy_of(path)
        await another(copy, "put", "newer", "9")
        copy.chmod(0o644)
        await put(store, "older", 2, 3)
        if not stale:
            remove(path, ("-wal", "-shm"))
        put_in_its_place(copy, path)
        assert [await generation(store, key) for key in ("older", "newer", "same")] == [3, 9, 1]
        assert state(path)[1] == 0o600
        assert await another(path, "tell", "older", "newer", "same") == "3 9 1"
    assert await another(path, "tell", "older", "newer", "same") == "3 9 1"


async def test_what_is_beside_the_file_that_is_gone_is_not_shared_with_those_who_have_it_open_still(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOOK", 3600.0)
    keys = [f"{number}" for number in range(40)]
    async with opened(path) as store:
        await put_all(store, keys, 1)
        copy = copy_of(path)
        idle = process.start(path, "lease")
        assert idle.stdout is not None
        assert idle.stderr is not None
        await asyncio.to_thread(idle.stdout.readline)
        await put_all(store, keys, 2)
        put_in_its_place(copy, path)
        await put_all(store, keys, 3)
        noticed = await asyncio.to_thread(idle.stderr.readline)
        assert f"{NOTICED}; 0 entries are put back" in noticed, "it has read what was written into the other file"
        await asyncio.to_thread(idle.communicate, timeout=60)
        assert await another(path, "tell", *keys) == " ".join("3" * len(keys))
    assert await another(path, "tell", *keys) == " ".join("3" * len(keys))


async def put_all(store: SqliteStore, keys: list[str], generation: int) -> None:
    """Many pages of them."""
    for key in keys:
        kept = Record(refresh_token=Secret(f"{generation}" * 1000 * generation), generation=generation)
        assert await store.replace(await store.load(key), kept) is not None


@pytest.mark.parametrize(
    "later",
    [replace(record(1), journal=Journal(5.0)), Record(generation=1, kept_at="a login's")],
    ids=["a refresh token was sent", "a login"],
)
async def test_a_copy_from_before_does_not_win(path: Path, later: Record) -> None:
    before = replace(later, journal=None, kept_at=None)
    async with opened(path) as store:
        assert await store.replace(await store.load("key"), before) is not None
        copy = copy_of(path)
        assert await store.replace(await store.load("key"), later) is not None
        put_in_its_place(copy, path)
        assert (await store.load("key")).record == later


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE customers (name TEXT)")


def text(path: Path) -> None:
    path.write_bytes(b"notes of mine, in a text file " * 50)


def encrypted(path: Path) -> None:
    fill(path, KEY)


def fill(path: Path, *keys: Secret) -> None:
    async def fill() -> None:
        async with opened(path, *keys) as store:
            for number in range(200):
                await store.replace(await store.load(f"{number}"), FULL)

    asyncio.run(fill())


def damaged(path: Path) -> None:
    fill(path)
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(3 * 4096))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (foreign, "another program"),
        (text, "no SQLite database"),
        (encrypted, "store.encryption_keys"),
        (damaged, "is damaged"),
    ],
)
async def test_what_can_not_be_used_in_its_place_is_left_alone_and_told(
    path: Path,
    make: Callable[[Path], None],
    said: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite, "LOOK", 0.2)
    async with opened(path) as store:
        await put(store, "key", 1, 2)
        other = path.with_name("other.db")
        await asyncio.to_thread(make, other)
        other.chmod(0o640)
        before = state(other)
        put_in_its_place(other, path)
        for _ in range(2):
            with pytest.raises(StoreError, match=f"(?s){NOTICED}.*{said}"):
                await store.load("key")
        await until(lambda: said in caplog.text)
        assert state(path) == before
        remove(path, ("",))
        assert await generation(store, "key") == 2
    assert await another(path, "tell", "key") == "2"


async def test_what_was_in_it_is_told_as_lost_at_the_end(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as store:
        await put(store, "key", 1)
        remove(path, ("",))
        (path / "folder").mkdir(parents=True)
    assert "what was in it is lost" in caplog.text


async def test_entries_are_put_back_encrypted(path: Path) -> None:
    async with opened(path, KEY) as store:
        await put(store, "key", 1)
        remove(path, ALL)
        assert await generation(store, "key") == 1
        assert b"of-1" not in in_file(path).everything()
    async with opened(path, KEY) as store:
        assert await generation(store, "key") == 1

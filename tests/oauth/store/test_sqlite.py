"""The file: who may read it, what it survives, and what is refused instead of overwritten."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.core.lineage import Lease, Record
from proxy.core.secret import Secret
from proxy.errors import ConfigurationError, StoreError
from proxy.oauth.store import TokenStore, alive
from proxy.oauth.store.database import StoreNotWritable
from proxy.oauth.store.seal import Seal
from proxy.oauth.store.sqlite import SqliteStore
from tests.oauth.store import process
from tests.oauth.store.places import FULL, KEY, OLDER, Place, as_nobody, in_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


async def put(place: Place, key: str, record: Record) -> None:
    async with place.opened() as store:
        assert await store.replace(await store.load(key), record) is not None


async def get(place: Place, key: str) -> Record | None:
    async with place.opened() as store:
        return (await store.load(key)).record


def change(path: Path, content: bytes | None = None, *, mode: int | None = None) -> None:
    if content is not None:
        path.write_bytes(content)
    if mode is not None:
        path.chmod(mode)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def refusal(path: Path, *keys: Secret) -> ConfigurationError:
    """The error of opening what must not be opened, which must leave everything as it was."""
    before = {file: (file.read_bytes(), mode(file)) for file in path.parent.iterdir()}
    with pytest.raises(ConfigurationError) as caught:
        await SqliteStore(path, Seal(keys)).open()
    assert {file: (file.read_bytes(), mode(file)) for file in path.parent.iterdir()} == before
    assert len(caught.value.problems) == 1
    return caught.value


# --- who may read it ---


@pytest.fixture
def _umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
async def test_all_files_are_their_owners_alone_from_the_first_byte(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    async with in_file(folder / "tokens.db").opened() as store:
        await store.replace(await store.load("key"), FULL)
        files = {file.name: mode(file) for file in folder.iterdir()}
    assert {"tokens.db", "tokens.db-wal", "tokens.db-shm"} <= files.keys()
    assert set(files.values()) == {0o600}
    assert mode(folder) == 0o700


async def test_a_file_that_others_could_read_is_closed_to_them(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await put(in_file(path), "key", FULL)
    change(path, mode=0o644)
    async with in_file(path).opened() as store:
        assert (await store.load("key")).record == FULL
        assert {mode(file) for file in path.parent.iterdir()} == {0o600}
    assert "could be read by others" in caplog.text


async def test_what_stands_beside_a_file_is_closed_to_others_as_well(path: Path) -> None:
    async with in_file(path).opened() as left_open:
        await left_open.replace(await left_open.load("key"), FULL)
        beside = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
        for file in beside:
            change(file, mode=0o644)
        async with in_file(path).opened():
            assert [mode(file) for file in beside] == [0o600] * 3


async def test_a_file_that_is_not_ours_keeps_its_mode(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(path, b"notes of mine, in a text file " * 50, mode=0o644)
    assert "no SQLite database" in str(await refusal(path))
    with sqlite3.connect(path.with_name("other.db")) as database:
        database.execute("CREATE TABLE customers (name TEXT)")
    database.close()
    change(path.with_name("other.db"), mode=0o644)
    assert "another program" in str(await refusal(path.with_name("other.db")))
    assert mode(path) == mode(path.with_name("other.db")) == 0o644
    assert "could be read" not in caplog.text


async def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    change(tmp_path, mode=0o755)
    await put(in_file(tmp_path / "tokens.db"), "key", FULL)
    assert mode(tmp_path) == 0o755


async def test_what_is_replaced_does_not_linger_in_the_file(path: Path) -> None:
    place = in_file(path)
    for name in ("first-refresh-token", "second-refresh-token"):
        await put(place, "key", Record(refresh_token=Secret(name)))
    assert b"second-refresh-token" in place.everything()
    assert b"first-refresh-token" not in place.everything()


# --- what is refused ---


async def test_the_database_of_another_program_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE customers (name TEXT)")
    database.close()
    assert "store.url" in str(error := await refusal(path))
    assert "another program" in str(error)


async def test_a_folder_is_told_to_be_one(path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await SqliteStore(path.parent, Seal(())).open()
    assert caught.value.problems == [f"store.url: {path.parent} is a folder; name a file in it"]
    assert list(path.parent.iterdir()) == []


async def test_another_program_may_have_left_its_database_empty(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA application_id = 7")
    database.close()
    assert "another program" in str(await refusal(path))


@pytest.mark.parametrize("content", [b"x", b"hello " * 1000, b"\0" * 8192])
async def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    change(path, content)
    assert "no SQLite database" in str(await refusal(path))


async def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.url"):
        await SqliteStore(tmp_path, Seal()).open()


async def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    await put(in_file(path), "key", FULL)
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 2")
    database.close()
    assert "later version" in str(await refusal(path))


async def test_a_damaged_file_is_refused(path: Path) -> None:
    place = in_file(path)
    async with place.opened() as store:
        for index in range(200):
            await store.replace(await store.load(f"key-{index}"), FULL)
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(os.urandom(4096 * 3))
    change(path, mode=0o640)
    error = await refusal(path)
    assert "is damaged" in str(error)
    assert "login" in str(error)


async def test_a_file_cut_short_is_refused(path: Path) -> None:
    place = in_file(path)
    async with place.opened() as store:
        for index in range(200):
            await store.replace(await store.load(f"key-{index}"), FULL)
    os.truncate(path, 3 * 4096)
    assert "is damaged" in str(await refusal(path))


async def test_an_entry_that_is_none_is_refused_and_not_overwritten(path: Path) -> None:
    place = in_file(path)
    await put(place, "key", FULL)
    database = sqlite3.connect(path)
    database.execute("UPDATE tokens SET value = X'7B7D'")
    database.commit()
    database.close()
    async with place.opened() as store:
        with pytest.raises(StoreError, match="not readable"):
            await store.load("key")


# --- keys ---


@pytest.mark.parametrize("keys", [[], [OLDER]])
async def test_a_missing_or_wrong_key_is_an_error_and_destroys_nothing(path: Path, keys: list[Secret]) -> None:
    await put(in_file(path, [KEY]), "key", FULL)
    change(path, mode=0o640)
    assert "store.encryption_keys" in str(await refusal(path, *keys))
    assert await get(in_file(path, [KEY]), "key") == FULL


async def test_all_is_encrypted_with_the_newest_key_as_it_is_opened(path: Path) -> None:
    await put(in_file(path, [OLDER]), "key", FULL)
    assert await get(in_file(path, [KEY, OLDER]), "key") == FULL
    assert await get(in_file(path, [KEY]), "key") == FULL
    assert "store.encryption_keys" in str(await refusal(path, OLDER))


async def test_what_was_written_before_there_was_a_key_is_encrypted_and_found_nowhere(path: Path) -> None:
    await put(in_file(path), "key", FULL)
    place = in_file(path, [KEY])
    assert b"the-refresh-token" in place.everything()
    async with place.opened() as store:
        assert (await store.load("key")).record == FULL
        assert b"the-refresh-token" not in place.everything()
    assert b"the-refresh-token" not in place.everything()


async def test_an_entry_that_was_put_in_anothers_place_does_not_open(path: Path) -> None:
    place = in_file(path, [KEY])
    await put(place, "a", FULL)
    await put(place, "b", FULL)
    database = sqlite3.connect(path)
    database.execute("UPDATE tokens SET value = (SELECT value FROM tokens WHERE key = 'a') WHERE key = 'b'")
    database.commit()
    database.close()
    async with place.opened() as store:
        with pytest.raises(StoreError, match="damaged"):
            await store.load("b")


# --- where nothing can be written ---


async def test_a_full_disk_is_an_error_and_what_was_kept_is_still_there(path: Path) -> None:
    store = SqliteStore(path, Seal())
    await store.open()
    await store.replace(await store.load("key"), FULL)
    await limit(store, "PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="full"):
        await store.replace(await store.load("other"), Record(refresh_token=Secret("x" * 100_000)))
    assert (await store.load("key")).record == FULL
    await limit(store, "PRAGMA max_page_count = 1000")
    assert await store.replace(await store.load("other"), FULL) is not None
    await store.close()


async def limit(store: SqliteStore, statement: str) -> None:
    """What only the store's own connection can be told."""
    await store._do(lambda: store._database.execute(statement).fetchall())


async def test_a_write_that_the_system_refuses_is_an_error_and_heals(path: Path) -> None:
    place = in_file(path)
    async with place.opened() as store:
        await store.replace(await store.load("key"), FULL)
        with no_file_longer_than(200_000), pytest.raises(StoreError, match="can't be used now"):
            await fill(store)
        assert (await store.load("key")).record == FULL
        assert await store.replace(await store.load("last"), FULL) is not None
    assert await get(place, "last") == FULL


async def fill(store: TokenStore) -> None:
    for index in range(100):
        await store.replace(await store.load(f"{index}"), Record(refresh_token=Secret("x" * 10_000)))


@contextlib.contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """What this process writes beyond fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder where nobody may write but root; a file of ours is there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        asyncio.run(put(in_file(path / "kept.db"), "key", FULL))
        change(path / "kept.db", mode=0o444)
        change(path, mode=0o555)
        yield path
        change(path, mode=0o755)


@pytest.mark.parametrize("name", ["tokens.db", "folder/tokens.db", "kept.db"])
async def test_a_place_that_is_read_only_is_told_from_other_trouble(read_only: Path, name: str) -> None:
    with as_nobody(), pytest.raises(StoreNotWritable, match=r"store\.url"):
        await SqliteStore(read_only / name, Seal()).open()


# --- processes ---


async def test_processes_that_count_together_lose_no_number(path: Path) -> None:
    counting = [process.start(path, "count", "25") for _ in range(3)]
    for one in counting:
        await asyncio.to_thread(one.communicate, timeout=60)
        assert one.returncode == 0
    record = await get(in_file(path), "counter")
    assert record is not None
    assert record.generation == 75


async def test_whoever_is_killed_while_writing_leaves_all_that_was_reported(path: Path) -> None:
    reported = 0
    for said in (1, 2, 3, 5, 8):
        one = process.start(path, "count", "1000000")
        assert one.stdout is not None
        for _ in range(said):
            await asyncio.to_thread(one.stdout.readline)
        rest = await asyncio.to_thread(process.kill, one)
        reported += said + len(rest.split("\n")) - 1
        record = await get(in_file(path), "counter")
        assert record is not None
        assert reported <= record.generation <= reported + 1  # one was written, perhaps, and not reported yet
        reported = record.generation


@pytest.mark.skipif(not alive.AVAILABLE, reason="this system has no open file description locks")
async def test_the_lease_of_a_killed_process_is_abandoned_at_once(path: Path) -> None:
    one = process.start(path, "lease")
    assert one.stdout is not None
    assert await asyncio.to_thread(one.stdout.readline) == "taken\n"
    async with in_file(path).opened() as store:
        seen = await store.load("key")
        assert not seen.abandoned
        waiting = asyncio.create_task(store.changed(seen, 50.0))  # noqa: TID251 awaited below
        await asyncio.sleep(0.1)
        assert not waiting.done()
        one.kill()
        async with asyncio.timeout(20):
            await waiting
        assert (await store.load("key")).abandoned
    await asyncio.to_thread(one.communicate, timeout=60)


async def test_a_process_ends_though_its_disk_hangs(path: Path) -> None:
    one = process.start(path, "hang")
    _, said = await asyncio.to_thread(one.communicate, timeout=60)
    assert one.returncode == 0
    assert "its disk does not answer" in said


async def test_a_lease_of_nobody_known_is_not_abandoned(path: Path) -> None:
    place = in_file(path)
    for owner in ("", "somebody", "abc-def", "-1", "0-zz", "1-ffffffffffffffffff"):
        await put(place, "key", Record(lease=Lease(owner, 1e12)))
        async with place.opened() as store:
            assert not (await store.load("key")).abandoned

"""A process of its own that has a store open: python process.py PATH COMMAND …; it says what it has done."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from proxy.core.lineage import Lease, Record
from proxy.core.secret import Secret
from proxy.errors import StoreError
from proxy.oauth.store import Reading
from proxy.oauth.store.seal import Seal
from proxy.oauth.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[3]


def start(path: Path, *command: str) -> subprocess.Popen[str]:
    """Runs this file, whose output can be read line by line."""
    return subprocess.Popen(
        [sys.executable, __file__, str(path), *command], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> str:
    """Kills it; what it had said since it was listened to last."""
    assert process.stdout is not None
    process.kill()
    rest = process.stdout.read()  # ``communicate`` would pass over what ``readline`` has taken from the pipe already
    process.communicate(timeout=60)
    return rest


async def take_lease(store: SqliteStore) -> None:
    """Takes the lease of "key" for an hour and keeps it until standard input ends."""
    record = Record(refresh_token=Secret("old"), lease=Lease(f"{store.owner}/1", time.time() + 3600.0))
    assert await store.replace(await store.load("key"), record) is not None
    print("taken", flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def count(store: SqliteStore, times: int) -> None:
    """Adds to the number that all processes count together."""
    done = 0
    while done < times:
        seen = await store.load("counter")
        record = seen.record or Record(seeds=("counter",))
        if await store.replace(seen, replace(record, generation=record.generation + 1)) is not None:
            done += 1
            print(done, flush=True)


async def count_together(store: SqliteStore, keys: int) -> None:
    """Counts on under so many keys, all at the same time, and says every number that it is told is written."""

    async def write(seen: Reading) -> None:
        record = seen.record or Record(seeds=("counter",))
        written = await store.replace(seen, replace(record, generation=record.generation + 1))
        assert written is not None
        assert written.record is not None
        print(written.record.generation, flush=True)

    while True:
        seen = await asyncio.gather(*(store.load(f"{number}") for number in range(keys)))
        await asyncio.gather(*map(write, seen))


async def count_on(store: SqliteStore) -> None:
    """Counts until standard input ends, and says then how often that was done, and how often nobody knows."""
    reading = asyncio.get_running_loop().create_task(asyncio.to_thread(sys.stdin.read), name="reading")
    done = doubtful = 0
    print("counting", flush=True)
    while not reading.done():
        try:
            seen = await store.load("counter")
        except StoreError:
            continue
        record = seen.record or Record(seeds=("counter",))
        try:
            done += await store.replace(seen, replace(record, generation=record.generation + 1)) is not None
        except StoreError:
            doubtful += 1
    print(done, doubtful, flush=True)


async def put(store: SqliteStore, key: str, generation: int) -> None:
    """Puts a record there."""
    record = Record(refresh_token=Secret(f"of-{generation}"), generation=generation)
    assert await store.replace(await store.load(key), record) is not None


async def tell(store: SqliteStore, *keys: str) -> None:
    """Says the generations that are kept under keys, 0 for none."""
    records = [(await store.load(key)).record for key in keys]
    print(*(0 if record is None else record.generation for record in records))


async def hang(store: SqliteStore) -> None:
    """Has the store's thread in a call that does not return while the store is closed and the program ends."""
    hanging = asyncio.get_running_loop().create_task(store._do(lambda: time.sleep(3600)), name="hanging")
    await asyncio.sleep(0.1)
    hanging.cancel()


async def main(path: str, command: str, *arguments: str) -> None:
    store = SqliteStore(Path(path), Seal())
    await store.open()
    match command:
        case "lease":
            await take_lease(store)
        case "count":
            await count(store, int(arguments[0]))
        case "groups":
            await count_together(store, int(arguments[0]))
        case "count-on":
            await count_on(store)
        case "put":
            await put(store, arguments[0], int(arguments[1]))
        case "tell":
            await tell(store, *arguments)
        case "hang":
            await hang(store)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A store in one file of this machine, for any number of its processes: SQLite, durable with every write.

The database is in WAL mode with full sync: ``replace`` returns once the value is on disk, and whatever dies at
whatever moment leaves a database that can be read. Whoever has it open notices where its files were removed or
replaced, goes over to what is there now, and puts back what that has lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from proxy.core.lineage import Record
from proxy.errors import ConfigurationError, StoreError
from proxy.oauth.store import Reading
from proxy.oauth.store.alive import Lifeline
from proxy.oauth.store.codec import decode, encode
from proxy.oauth.store.database import is_busy, open_database, settle, transaction
from proxy.oauth.store.files import Files
from proxy.oauth.store.moving import Row, leave, put_back
from proxy.oauth.store.polling import poll
from proxy.oauth.store.seal import Seal, key_id_of
from proxy.oauth.store.thread import Job, StoreThread

log = logging.getLogger(__name__)

CLOSING = 2.0
"""Seconds for what is under way at the end; a call that takes longer may never return."""

LOOK = 2.0
"""Seconds between looks whether the file is in its place, beside those at each use: one may be hours from the next."""

T = TypeVar("T")


class SqliteStore:
    """Keeps records in a file; ``open`` comes first. All of SQLite runs on one thread, never on the event loop's.

    What is asked while that thread is busy is then done in one transaction, with one wait for the disk; each caller is
    told of their own part, once it is on disk.
    """

    shared = True

    def __init__(self, path: Path, seal: Seal) -> None:
        self.owner = ""
        self._path = path
        self._seal = seal
        self._thread = StoreThread("token store", self._together, self._close)
        self._opened = contextlib.ExitStack()
        self._files: Files | None = None
        self._left: list[Row] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the file, or makes it.

        :raises ConfigurationError: it can't be used; nothing in it was changed
        """
        self._thread.start()
        try:
            await self._do(self._open)
        except BaseException:
            await self.close()
            raise
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="looking after the token file")

    async def load(self, key: str) -> Reading:
        return await self._do(lambda: self._load(key))

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        value = self._seal.close(seen.key, encode(record))
        return await self._do(lambda: self._replace(seen, record, value), writes=True)

    async def changed(self, seen: Reading, seconds: float) -> None:
        await poll(lambda: self._do(lambda: self._has_changed(seen)), seconds)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        if not await self._thread.close(CLOSING):
            log.error(
                "%s: its disk does not answer, and is not waited for; what was to be stored last may be missing",
                self._path,
                extra={"event": "store.hung"},
            )

    async def _do(self, work: Callable[[], T], *, writes: bool = False) -> T:
        try:
            return await self._thread.do(work, writes=writes)
        except sqlite3.Error as error:
            raise StoreError(f"The token store {self._path} can't be used now ({error}).") from None

    async def _look(self) -> None:
        """Has it noticed, though nobody uses the store, that the file is not in its place."""
        told = False
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self._do(lambda: None)
                told = False
            except StoreError as error:
                if not told:
                    log.error("%s", error, extra={"event": "store.failed"})
                told = True

    # --- on the store's thread ---

    def _together(self, jobs: Sequence[Job[Any]]) -> None:
        """In the file that is at the path, and what is written is told as written only if it is there still."""
        self._follow()
        self._run(jobs)
        if any(job.writes for job in jobs) and self._follow():
            raise StoreError(f"The token file {self._path} was removed or replaced while it was written.")

    def _run(self, jobs: Sequence[Job[Any]]) -> None:
        """All in one transaction; where that fails, each by itself, so that none fails for another's sake."""
        if sum(job.writes for job in jobs) < 2:
            for job in jobs:
                job.run()
            return
        try:
            with transaction(self._database):
                for job in jobs:
                    job.run()
                    if isinstance(job.error, sqlite3.Error):
                        raise job.error
        except sqlite3.Error as error:
            for job in jobs:
                if job.writes and is_busy(error):
                    job.error = error  # it has waited for the other process, and does not once more
                else:
                    job.run()

    def _open(self) -> None:
        with contextlib.ExitStack() as opened:
            files = self._connect()
            opened.callback(lambda: self._database.close())  # noqa: PLW0108 - whichever that is by then
            self._lifeline = opened.enter_context(contextlib.closing(self._live()))
            self._opened = opened.pop_all()
        self.owner = self._lifeline.owner
        self._files = files

    def _connect(self) -> Files:
        self._database, files = open_database(self._path)
        try:
            self._check_keys()
            settle(self._database, self._path)
            files.complete()
        except BaseException:
            self._database.close()
            raise
        return files

    def _follow(self) -> bool:
        """Goes over to what is at the path, if that is not what is open, and puts back what it has lost.

        :return: whether it was something else
        :raises StoreError: what is there can't be used; nothing in it was changed
        """
        if self._files is None or (self._left is None and self._files.are_in_place()):
            return False
        try:
            if self._left is None:
                self._left = leave(self._database, self._files)
            files = self._connect()
        except (ConfigurationError, OSError) as error:
            raise StoreError(f"The token file was removed or replaced while it was in use. {error}") from None
        try:
            count = put_back(self._database, self._left, self._seal)
        except BaseException:
            self._database.close()
            raise
        self._files, self._left = files, None
        log.error(
            "%s, or a file beside it, was removed or replaced while it was in use; %d entries are put back",
            self._path,
            count,
            extra={"event": "store.forgot"},
        )
        return True

    def _live(self) -> Lifeline:
        path = self._path.with_name(f"{self._path.name}-live")
        try:
            return Lifeline(path)
        except OSError as error:
            raise ConfigurationError([f"store.url: {path} can't be opened ({error.strerror})"]) from None

    def _close(self) -> None:
        try:
            self._follow()
        except (StoreError, sqlite3.Error) as error:
            log.error("%s: what was in it is lost. %s", self._path, error, extra={"event": "store.failed"})
        with contextlib.suppress(sqlite3.Error):
            self._opened.close()

    def _load(self, key: str) -> Reading:
        row = self._database.execute("SELECT version, value FROM tokens WHERE key = ?", (key,)).fetchone()
        if row is None:
            return Reading(key, None, 0, time.time())
        version, value = row
        record = decode(self._seal.open(key, value))
        return Reading(key, record, version, time.time(), self._is_abandoned(record))

    def _replace(self, seen: Reading, record: Record, value: bytes) -> Reading | None:
        version = secrets.randbits(62) + 1
        if seen.version:
            written = self._database.execute(
                "UPDATE tokens SET version = ?, forget_after = ?, value = ? WHERE key = ? AND version = ?",
                (version, record.forget_after, value, seen.key, seen.version),
            )
        else:
            written = self._database.execute(
                "INSERT INTO tokens (key, version, forget_after, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (seen.key, version, record.forget_after, value),
            )
        return Reading(seen.key, record, version, time.time()) if written.rowcount == 1 else None

    def _has_changed(self, seen: Reading) -> bool:
        row = self._database.execute("SELECT version FROM tokens WHERE key = ?", (seen.key,)).fetchone()
        return (0 if row is None else row[0]) != seen.version or self._is_abandoned(seen.record)

    def _is_abandoned(self, record: Record | None) -> bool:
        return record is not None and record.lease is not None and self._lifeline.lost(record.lease.owner)

    def _check_keys(self) -> None:
        """Sees that every value can be opened, and seals with the newest key what is not."""
        heads = self._database.execute("SELECT key, substr(value, 1, 9) FROM tokens").fetchall()
        ids = {key: key_id_of(head) for key, head in heads}
        if set(ids.values()) - {None, *self._seal.ids}:
            which = "expected the key too" if self._seal.ids else "expected the key"
            problem = f"store.encryption_keys: {which} that {self._path} is encrypted with; nothing in it was changed"
            raise ConfigurationError([problem])
        if self._seal.ids and (stale := [key for key, key_id in ids.items() if key_id != self._seal.ids[0]]):
            self._seal_again(stale)

    def _seal_again(self, keys: list[str]) -> None:
        with transaction(self._database):
            for key in keys:
                [value] = self._database.execute("SELECT value FROM tokens WHERE key = ?", (key,)).fetchone()
                sealed = self._seal.close(key, self._seal.open(key, value))
                self._database.execute("UPDATE tokens SET value = ? WHERE key = ?", (sealed, key))
        log.info(
            "%s: %d entries are encrypted with the newest key now",
            self._path,
            len(keys),
            extra={"event": "store.encrypted"},
        )
        # What stood there in the clear is not to be found in pages that are free or in the log of writes.
        self._database.execute("VACUUM")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

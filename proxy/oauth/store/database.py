"""The SQLite file beneath a store: made so that nobody else can read it, and opened only if it is ours and sound."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from proxy.errors import ConfigurationError
from proxy.oauth.store.files import Files, alone, beside

log = logging.getLogger(__name__)

APPLICATION_ID = 0x47415078
"""``PRAGMA application_id`` of our files, by which another program's are told."""

SHAPE = 1
"""``PRAGMA user_version``: of the tables; that of the values is ``codec.SHAPE``."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process's write; each takes milliseconds."""

SMALLEST = 512
"""Bytes of the smallest page; SQLite takes a file that is shorter for an empty one, and would write over it."""

_NO_DATABASE = "is no SQLite database; name another file"

_TABLE = """
    CREATE TABLE tokens (
        key TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL, forget_after REAL, value BLOB NOT NULL
    ) WITHOUT ROWID
"""

_DAMAGED = (
    "is damaged; nothing in it was changed. Move it away, or put a copy from before in its place: without it, "
    "tenants with a refresh token need a new login"
)


class StoreNotWritable(ConfigurationError):
    """The place of the file is one where this process may not write."""


def open_database(path: Path) -> tuple[sqlite3.Connection, Files]:
    """A connection to the file, which is made if there is none; for the calling thread alone.

    :raises ConfigurationError: it can't be used; nothing in it was changed
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(path.parent):
            return _open(path)
    except sqlite3.Error as error:
        raise _refused(path, error) from None
    except OSError as error:
        kind = StoreNotWritable if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else ConfigurationError
        raise kind([f"store.url: {path} can't be opened ({_reason(path, error)})"]) from None


def settle(database: sqlite3.Connection, path: Path) -> None:
    """What is done to a file that is ours and can be read, each time that it is opened; all that belongs beside it is
    there then.

    :raises ConfigurationError: it can't be used
    """
    try:
        _close_up(path)
        database.execute("DELETE FROM tokens WHERE forget_after < ?", (time.time(),))
    except sqlite3.Error as error:
        raise _refused(path, error) from None


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it is written, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def is_busy(error: sqlite3.Error) -> bool:
    """Another process has been writing for all the time that we wait."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _open(path: Path) -> tuple[sqlite3.Connection, Files]:
    _make(path)
    if path.is_dir():
        raise ConfigurationError([f"store.url: {path} is a folder; name a file in it"])
    if 0 < path.stat().st_size < SMALLEST:
        raise ConfigurationError([f"store.url: {path} {_NO_DATABASE}"])
    files = Files(path)
    uri = f"{path.absolute().as_uri()}?mode=rw"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT)
    try:
        _prepare(database, path)
    except BaseException:
        database.close()
        raise
    return database, files


def _make(path: Path) -> None:
    """An empty file with mode 0600, where SQLite alone would make one that all can read; side files take its mode.

    Those that are left of a file that is gone belong to no other: whoever has that one open still would be sharing
    memory with us.
    """
    if not path.exists():
        for file in beside(path):
            file.unlink(missing_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))
    except FileExistsError:
        # Not opened: closing it again would let go of all locks that this process has on it (POSIX, fcntl).
        return
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _close_up(path: Path) -> None:
    """Takes a file of ours, and what stands beside it, from all others."""
    if os.name != "posix":
        return
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
                log.warning(
                    "%s could be read by others; its mode is 0600 now", file, extra={"event": "store.closed_up"}
                )


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    if _pragma(database, "schema_version") == 0 and _pragma(database, "application_id") == 0:
        _set_up(database)
    if _pragma(database, "application_id") != APPLICATION_ID:
        raise ConfigurationError([f"store.url: {path} is the database of another program; name another file"])
    if _pragma(database, "user_version") != SHAPE:
        raise ConfigurationError([f"store.url: {path} was written by a later version of this program; use that one"])
    if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise ConfigurationError([f"store.url: {path} {_DAMAGED}"])
    _patiently(lambda: database.execute("PRAGMA journal_mode = WAL"))
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA secure_delete = ON")  # what is replaced does not linger in the file


def _set_up(database: sqlite3.Connection) -> None:
    with transaction(database):
        if _pragma(database, "schema_version") != 0:
            return  # another process was faster
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {SHAPE}")
        database.execute(_TABLE)


def _reason(path: Path, error: OSError) -> str:
    """Why there is no such file, and none can be made."""
    for folder in path.parents:
        if folder.is_file():
            return f"{folder} is a file, not a folder"
    return str(error.strerror)


def _pragma(database: sqlite3.Connection, name: str) -> int:
    [value] = database.execute(f"PRAGMA {name}").fetchone()
    assert isinstance(value, int)
    return value


def _patiently(change: Callable[[], object]) -> None:
    """SQLite itself does not wait for other processes where the journal's mode changes."""
    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            change()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _refused(path: Path, error: sqlite3.Error) -> ConfigurationError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return ConfigurationError([f"store.url: {path} {_NO_DATABASE}"])
        case sqlite3.SQLITE_CORRUPT:
            return ConfigurationError([f"store.url: {path} {_DAMAGED}"])
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreNotWritable([f"store.url: {path} can't be written ({error})"])
    return ConfigurationError([f"store.url: {path} can't be used ({error})"])

"""From a database whose files have gone from their paths to the one that is there now, with all that was in it."""

from __future__ import annotations

import contextlib
import sqlite3
import time

from proxy.core.turn import has_lost
from proxy.errors import StoreError
from proxy.oauth.store.codec import decode
from proxy.oauth.store.database import BUSY_TIMEOUT, is_busy, transaction
from proxy.oauth.store.files import Files
from proxy.oauth.store.seal import Seal

Row = tuple[str, int, float | None, bytes]
"""Key, version, when it is of no use any more, value."""


def leave(database: sqlite3.Connection, files: Files) -> list[Row]:
    """Closes the database, whose files can still be read as long as it is open.

    :return: all that is in it; nothing where that can't be read, and what is in memory has to do
    :raises sqlite3.Error: not now; it stays open
    """
    rows = _read(database)
    if not files.has_database():
        with contextlib.suppress(sqlite3.Error):
            _write_down(database)  # for whoever moved it away
    elif not files.are_others_beside():
        _write_down(database)
    # else another process has begun new files beside, and pages of ours would damage what is there
    files.clear_beside()
    database.close()
    return rows


def put_back(database: sqlite3.Connection, rows: list[Row], seal: Seal) -> int:
    """Writes what the database has not, or has lost; how many entries that were."""
    with transaction(database):
        lost = [row for row in rows if _is_lost(database, row, seal)]
        database.executemany(
            "INSERT OR REPLACE INTO tokens (key, version, forget_after, value) VALUES (?, ?, ?, ?)", lost
        )
    return len(lost)


def _read(database: sqlite3.Connection) -> list[Row]:
    try:
        return database.execute("SELECT key, version, forget_after, value FROM tokens").fetchall()
    except sqlite3.Error as error:
        if is_busy(error):
            raise
        return []


def _is_lost(database: sqlite3.Connection, row: Row, seal: Seal) -> bool:
    key, version, _, value = row
    found = database.execute("SELECT version, value FROM tokens WHERE key = ?", (key,)).fetchone()
    if found is None or found[0] == version:
        return found is None
    try:
        return has_lost(decode(seal.open(key, found[1])), decode(seal.open(key, value)))
    except StoreError:
        return False  # what can't be read is not written over


def _write_down(database: sqlite3.Connection) -> None:
    """Takes into the database itself what is beside it.

    :raises sqlite3.OperationalError: it is in use for all the time that we wait
    """
    end = time.monotonic() + BUSY_TIMEOUT
    while database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        # It does not wait itself where another process does the same.
        if time.monotonic() > end:
            raise sqlite3.OperationalError("another process is using it")
        time.sleep(0.01)

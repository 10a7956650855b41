"""The files of an open database, told by their inodes: what stands at their paths may be others by now.

SQLite itself does not notice. It goes on in files that are gone with the process, while whoever comes next makes new
ones, or finds an older copy in their place.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PATIENCE = 5.0
"""Seconds to wait for another process that opens the same; it takes milliseconds."""

Identity = tuple[int, int] | None
"""File system and inode, which is no other file's while somebody has it open; None where there is no file."""


class Files:
    """The database and what stands beside it; made before it is opened, complete once it is.

    :param path: of the database
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = _identity(path)
        self._beside: dict[Path, Identity] = {}

    def complete(self) -> None:
        """Takes in what SQLite has made beside."""
        self._beside = {file: _identity(file) for file in beside(self._path)}

    def are_in_place(self) -> bool:
        """Whether they stand at their paths; so, too, where that can't be told."""
        try:
            return self.has_database() and all(_identity(file) == ours for file, ours in self._beside.items())
        except OSError:
            return True

    def has_database(self) -> bool:
        """Whether that of the path is the one that was opened."""
        return _identity(self._path) == self._database

    def are_others_beside(self) -> bool:
        """Whether another process has made new files beside, where these have gone."""
        return any(_identity(file) not in (None, ours) for file, ours in self._beside.items())

    def clear_beside(self) -> None:
        """Removes those beside that are left of these; another database must not be opened with them.

        To be called while they are open still.
        """
        with contextlib.suppress(FileNotFoundError), alone(self._path.parent):
            for file, ours in self._beside.items():
                if ours is not None and _identity(file) == ours:
                    file.unlink(missing_ok=True)


def beside(path: Path) -> list[Path]:
    """Where SQLite keeps what belongs to a database in WAL mode: beside the file itself, not beside a link to it."""
    real = Path(os.path.realpath(path))
    return [real.with_name(real.name + suffix) for suffix in ("-wal", "-shm")]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time makes, opens or clears up what stands in a folder, where the system has locks for that.

    :raises OSError: there is no such folder, or another process takes longer than ``PATIENCE``
    """
    if sys.platform == "win32":  # an open file can't be removed there
        yield
        return
    try:
        place = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # to list it; its files may be open to us all the same
        yield
        return
    try:
        _lock(place)
        yield
    finally:
        os.close(place)


if sys.platform != "win32":

    def _lock(place: int) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            except OSError:
                return None  # this file system has none


def _identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino

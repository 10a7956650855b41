"""Which processes of this machine are alive: each holds a byte of one file, and the kernel lets go of it at its end.

A lease whose owner died (``kill -9``, out of memory) is thus free at once, on one machine and across containers that
share the file. Where the kernel has no such locks (open file description locks: Linux), a lease just runs out.
"""

from __future__ import annotations

import os
import secrets
import struct
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FLOCK = "hhqqi4x"
"""``struct flock`` of 64-bit Linux: type, whence, start, length, process."""

AVAILABLE = hasattr(fcntl, "F_OFD_SETLK") and struct.calcsize("P") == 8


class Lifeline:
    """This process's byte, held until it is closed or the process ends.

    :ivar owner: names file and byte
    :param path: of the file, made with mode 0600 if there is none; nothing is ever written to it
    :raises OSError: it can't be opened
    """

    def __init__(self, path: Path) -> None:
        self._file = -1
        self._inode = ""
        position = secrets.randbits(62)
        if AVAILABLE:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._inode = f"{os.fstat(self._file).st_ino:x}"
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _write_lock(position))
        self.owner = f"{self._inode}-{position:x}"

    def lost(self, owner: str) -> bool:
        """Whether the process that a name begins with is known to be gone; anything may follow it after a slash.

        Of one that holds a byte of another file nothing is known: somebody removed that file while it ran.
        """
        process = owner.partition("/")[0]
        inode, _, position = process.partition("-")
        if self._file < 0 or process == self.owner or inode != self._inode:
            return False
        try:
            asked = _write_lock(int(position, 16))
            kind, *_ = struct.unpack(_FLOCK, fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked))
        except (ValueError, struct.error, OSError):
            return False
        return bool(kind == fcntl.F_UNLCK)

    def close(self) -> None:
        """Lets go; whatever this process still has a lease of is free."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_lock(position: int) -> bytes:
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, position, 1, 0)

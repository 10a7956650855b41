"""A Unix socket to listen on: who may connect is a matter of its file's mode and of the connecting process's user."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PEERS_ARE_KNOWN = hasattr(socket, "SO_PEERCRED")
"""Whether the system tells whose process connects (Linux)."""

_UCRED = struct.Struct("iII")  # pid, uid, gid: struct ucred of unix(7)


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A socket that listens at a path, until it is closed and ``remove`` takes the path away."""

    path: Path
    sock: socket.socket
    inode: int

    @classmethod
    def open(cls, path: Path, mode: int) -> Self:
        """Listens at a path; nobody can connect before it has its mode.

        What a program that is no more has left there is replaced.

        :raises OSError: another program listens there, it is no socket, or not ours to make; ``filename`` is the path
        """
        try:
            return cls._open(path, mode)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None

    @classmethod
    def _open(cls, path: Path, mode: int) -> Self:
        _clear(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Bound with no rights at all: between bind() and chmod() everybody could connect.
            before = os.umask(0o777)
            try:
                sock.bind(os.fspath(path))
            finally:
                os.umask(before)
            path.chmod(mode)
            sock.listen()
            sock.setblocking(False)
            return cls(path, sock, path.stat().st_ino)
        except BaseException:
            sock.close()
            raise

    def remove(self) -> None:
        """Takes the path away, unless another program listens there by now."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def peer_uid(transport: asyncio.BaseTransport) -> int:
    """The user of the process that connected, as the kernel noted it then (``SO_PEERCRED``)."""
    sock = transport.get_extra_info("socket")
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def is_unix(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection came over a Unix socket."""
    return bool(transport.get_extra_info("socket").family == getattr(socket, "AF_UNIX", None))

"""Where log lines go: a file descriptor that is never waited for."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable

PIECE = 4096
"""Bytes that a pipe with room takes whole and unmixed with those of other processes (PIPE_BUF of Linux)."""

FILE_PIECE = 65_536
"""The same for a file, which always has room."""

MOST = 1 << 20
"""Bytes kept for a reader that takes none; past that, lines are left out, and their number is told later."""

BATCH = 0.1
"""Seconds for which lines of requests are gathered: a write for each would cost more than making it."""


class Lines:
    """Writes lines to a descriptor in the order they come; where its reader stalls, no request waits for it.

    A pipe that is full would hold the event loop, and with it every request, for as long as a log collector is
    stuck. So each write is one that the descriptor has room for.

    :param left_out: the line that tells how many are missing
    """

    def __init__(self, descriptor: int, left_out: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._left_out = left_out
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._piece = FILE_PIECE if self._is_file else PIECE
        self._pending: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing = threading.Lock()

    def put(self, line: str) -> None:
        """Adds a line that is written with those of the next tenth of a second; on the event loop only."""
        self.write(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH, self._on_time)

    def write(self, text: str) -> None:
        """Adds lines, to be written at the next ``flush``."""
        data = text.removesuffix("\n").encode("utf-8", "backslashreplace") + b"\n"
        if self._size + len(data) > MOST:
            self._lost += 1
        else:
            self._size += len(data)
            self._pending.append(data)

    def flush(self) -> None:
        """Writes what there is room for now."""
        self.close(patience=0.0)

    def close(self, patience: float = 1.0) -> None:
        """Writes everything, as far as its reader takes it within ``patience`` seconds."""
        due = time.monotonic() + patience
        with self._writing:
            while self._pending and self._has_room(max(0.0, due - time.monotonic())):
                self._write_piece()
                if self._lost and not self._pending:
                    lost, self._lost = self._lost, 0
                    self.write(self._left_out(lost))

    def _on_time(self) -> None:
        self._timer = None
        self.flush()
        if self._pending:
            self._timer = asyncio.get_running_loop().call_later(BATCH, self._on_time)

    def _has_room(self, patience: float) -> bool:
        if self._is_file or not hasattr(select, "poll"):
            return True  # Windows can ask only sockets
        asked = select.poll()
        asked.register(self._descriptor, select.POLLOUT)
        return bool(asked.poll(patience * 1000))

    def _write_piece(self) -> None:
        """As many whole lines as go into a piece, or as much of one as does."""
        lines = [self._pending.popleft()]
        size = len(lines[0])
        while self._pending and (size := size + len(self._pending[0])) <= self._piece:
            lines.append(self._pending.popleft())
        piece = b"".join(lines)
        try:
            written = os.write(self._descriptor, piece[: self._piece])
        except OSError:
            written = len(piece)  # nobody reads any more, and there is nowhere to say so
        self._size -= written
        if written < len(piece):
            self._pending.appendleft(piece[written:])

"""The log's way out: whole lines in order, and nobody waits for a reader that stalls."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli.lines import BATCH, MOST, PIECE, Lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sizes of pipes are Linux's")

ROOM = 4 * PIECE


class Pipe:
    """A pipe with room for ``ROOM`` bytes, and the lines that go into it."""

    def __init__(self) -> None:
        self.end, self.descriptor = os.pipe()
        fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, ROOM)
        self.lines = Lines(self.descriptor, lambda lost: f"{lost} lost")

    def read(self) -> list[str]:
        """What is in the pipe now."""
        os.set_blocking(self.end, False)
        try:
            return os.read(self.end, ROOM).decode().splitlines()
        except BlockingIOError:
            return []

    def close(self) -> None:
        for descriptor in (self.end, self.descriptor):
            with contextlib.suppress(OSError):  # a test has closed it
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_are_written_in_order_at_a_flush(pipe: Pipe) -> None:
    pipe.lines.write("one\n")
    pipe.lines.write("two")
    assert pipe.read() == []
    pipe.lines.flush()
    assert pipe.read() == ["one", "two"]


async def test_lines_of_requests_are_written_together_and_soon(pipe: Pipe) -> None:
    for number in range(3):
        pipe.lines.put(str(number))
    assert pipe.read() == []
    async with asyncio.timeout(20):
        while not (written := pipe.read()):  # noqa: ASYNC110 - a pipe tells nobody
            await asyncio.sleep(BATCH / 4)
    assert written == ["0", "1", "2"]


def test_a_reader_that_stalls_holds_nobody_and_gets_everything_later(pipe: Pipe) -> None:
    sent = [f"{number:0199d}" for number in range(10 * ROOM // 200)]
    for line in sent:
        pipe.lines.write(line)
        pipe.lines.flush()
    received = []
    while got := pipe.read():
        assert all(len(line) == 199 for line in got), "only whole lines"
        received += got
        pipe.lines.flush()
    assert received == sent


def test_what_is_too_much_is_left_out_and_told(pipe: Pipe) -> None:
    line = "x" * 999
    while not pipe.lines._lost:
        pipe.lines.write(line)
    pipe.lines.write(line)
    received = []
    pipe.lines.flush()
    while got := pipe.read():
        received += got
        pipe.lines.flush()
    assert received == [line] * (MOST // 1000) + ["2 lost"]


def test_a_line_longer_than_a_piece_is_written_whole(pipe: Pipe) -> None:
    pipe.lines.write("x" * (2 * PIECE))
    pipe.lines.write("y")
    pipe.lines.flush()
    assert pipe.read() == ["x" * (2 * PIECE), "y"]


def test_the_end_waits_for_a_reader_who_reads(pipe: Pipe) -> None:
    for _ in range(2 * ROOM // 100):
        pipe.lines.write("x" * 99)
    received = bytearray()

    def read() -> None:
        while piece := os.read(pipe.end, 1000):
            received.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    pipe.lines.close(patience=20)
    os.close(pipe.descriptor)
    reader.join(20)
    assert len(received) == 2 * ROOM // 100 * 100


def test_the_end_does_not_wait_for_one_who_does_not(pipe: Pipe) -> None:
    for _ in range(2 * ROOM // 100):
        pipe.lines.write("x" * 99)
    pipe.lines.close(patience=0.05)
    assert 0 < len(pipe.read()) <= ROOM // 100


def test_without_a_reader_lines_are_dropped(pipe: Pipe) -> None:
    os.close(pipe.end)
    pipe.lines.write("x")
    pipe.lines.flush()
    assert not pipe.lines._pending


def test_a_file_takes_all_at_once(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as opened:
        lines = Lines(opened.fileno(), str)
        for number in range(1000):
            lines.write(f"{number:099d}")
        lines.flush()
    assert file.read_text("utf-8").splitlines() == [f"{number:099d}" for number in range(1000)]

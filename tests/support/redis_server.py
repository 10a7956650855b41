"""A real Redis server on a socket in a folder of its own, to be stopped, started and starved by tests."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis

STARTING = 60.0
"""Seconds until it answers; it takes some milliseconds on an idle machine."""


class RedisServer:
    """Keeps what it is told in its folder, so that it is there again when it is started again.

    :ivar url: for ``store.url``
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def start(self, *options: str) -> None:
        """Starts it and waits until it answers.

        :param options: of its command line, such as ``--requirepass x``
        """
        program = shutil.which("redis-server")
        assert program is not None
        command = [program, "--port", "0", "--unixsocket", str(self._socket), "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *options]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + STARTING
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                client.ping()
        except redis.AuthenticationError:
            return True
        except (redis.RedisError, OSError):
            return False
        return True

    def client(self) -> redis.Redis:
        """A plain client, to look at what is kept."""
        return redis.Redis(unix_socket_path=str(self._socket), socket_timeout=20)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP: it is silent; SIGCONT: it answers."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ends it; what it keeps stays in its folder."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A server while the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        try:
            server.start(*options)
            yield server
        finally:
            server.stop()

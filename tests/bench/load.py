"""Load: many connections by wrk or, without it, by an asyncio client; and one connection to measure latency."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import cast

from tests.bench.programs import BIG, BIG_BYTES, PATH, ROOT

CONNECTIONS = 32

FIELDS = {
    "Accept": "application/json",
    "User-Agent": "PureCloud SDK/python",
    "Content-Type": "application/json",
    "purecloud-sdk": "269.0.0",
    "Accept-Encoding": "gzip, deflate",
    "Authorization": "Bearer ",
}
"""As the Python SDK sends them without a token of its own."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


_EACH_ANOTHER = """\
local number = 0
request = function()
  number = number + 1
  return wrk.format("GET", wrk.path .. "&number=" .. number)
end
"""


class BadAnswer(Exception):
    """An answer that is no 200, so that what was measured is not what was meant."""


def generator() -> str:
    """What ``requests`` uses."""
    return "wrk" if shutil.which("wrk") else "asyncio"


def requests(port: int, seconds: float, folder: Path, *, same: bool) -> int:
    """Requests answered in ``seconds``, each connection sending the next as soon as the last is answered.

    :param same: all for one target; otherwise each for another, so that nothing remembered of one serves the next
    :raises BadAnswer: one of them was not 200
    """
    if generator() == "asyncio":
        command = [sys.executable, "-m", "tests.bench.load", str(port), str(seconds), str(int(same))]
        counted = re.compile(r"(\d+) requests, (\d+) bad")
    else:
        script = folder / "fields.lua"
        fields = "".join(f'wrk.headers["{name}"]="{value}"\n' for name, value in FIELDS.items())
        script.write_text(fields + ("" if same else _EACH_ANOTHER), "utf-8")
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        command.append(f"http://127.0.0.1:{port}/t/acme{PATH}")
        counted = re.compile(r"(\d+) requests in (?:.|\n)*?(?:Non-2xx or 3xx responses: (\d+)|\Z)")
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 10, check=True)
    found = counted.search(ran.stdout)
    if found is None or int(found[2] or 0) or not int(found[1]):
        raise BadAnswer(ran.stdout)
    return int(found[1])


def latency(port: int, prefix: str, seconds: float, fields: dict[str, str] | None = None) -> float:
    """Seconds that one request takes on a connection of its own, the median of those made in ``seconds``.

    :raises BadAnswer: one of them was not 200
    """
    request = head(port, prefix, FIELDS | (fields or {}))
    took = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            connection.sendall(request)
            received = b""
            while (rest := _behind(received)) is None:
                piece = connection.recv(65_536)
                if not piece:
                    raise BadAnswer("the connection was closed")
                received += piece
            took.append(time.perf_counter() - started)
            if rest or not received.startswith(b"HTTP/1.1 200 "):
                raise BadAnswer(received.decode("latin-1"))
    return statistics.median(took)


def download(port: int) -> float:
    """Seconds for one answer of ``BIG_BYTES``.

    :raises BadAnswer: it was not 200, or shorter
    """
    request = head(port, "/t/acme", FIELDS).replace(PATH.encode(), BIG.encode())
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        started = time.perf_counter()
        connection.sendall(request)
        received = connection.recv(65_536)
        if not received.startswith(b"HTTP/1.1 200 ") or b"\r\n\r\n" not in received:
            raise BadAnswer(received.decode("latin-1"))
        left = BIG_BYTES - len(received.partition(b"\r\n\r\n")[2])
        while left > 0:
            size = connection.recv_into(buffer)
            if not size:
                raise BadAnswer(f"{left} bytes are missing")
            left -= size
        return time.perf_counter() - started


@contextlib.contextmanager
def idle(port: int, count: int) -> Iterator[None]:
    """So many connections, each of which has had an answer."""
    request = head(port, "/t/acme", FIELDS)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            connection.sendall(request)
            received = b""
            while _behind(received) is None:
                piece = connection.recv(65_536)
                if not piece:
                    raise BadAnswer("the connection was closed")
                received += piece
        yield


def head(port: int, prefix: str, fields: dict[str, str]) -> bytes:
    """A whole request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {prefix}{PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n".encode()


def _behind(received: bytes) -> bytes | None:
    """What came behind the first answer, None until that is whole."""
    end = received.find(b"\r\n\r\n")
    length = _LENGTH.search(received, 0, end + 2) if end >= 0 else None
    if end < 0:
        return None
    if length is None:
        raise BadAnswer("an answer without Content-Length")
    whole = end + 4 + int(length[1])
    return received[whole:] if len(received) >= whole else None


class Client(asyncio.Protocol):
    """One connection of the asyncio client."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self.answered = 0
        self.bad = 0
        self._requests = requests
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._received += data
        rest = _behind(self._received)
        if rest is None:
            return
        self.answered += 1
        self.bad += not self._received.startswith(b"HTTP/1.1 200 ")
        self._received = rest
        assert self._transport is not None
        self._transport.write(next(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        self.bad += exc is not None

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()


async def _run(port: int, seconds: float, *, same: bool) -> None:
    loop = asyncio.get_running_loop()
    request = head(port, "/t/acme", FIELDS)
    path = PATH.encode()
    each = (request if same else request.replace(path, b"%b&number=%d" % (path, number)) for number in count())
    made = [await loop.create_connection(lambda: Client(each), "127.0.0.1", port) for _ in range(CONNECTIONS)]
    clients = [client for _, client in made]
    await asyncio.sleep(seconds)
    answered, bad = sum(client.answered for client in clients), sum(client.bad for client in clients)
    for client in clients:
        client.close()
    print(f"{answered} requests, {bad} bad")


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(int(sys.argv[1]), float(sys.argv[2]), same=sys.argv[3] == "1"))

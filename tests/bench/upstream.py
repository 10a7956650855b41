"""API and login of the benchmark on a machine without nginx: ``python -m tests.bench.upstream PORT``."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

from tests.bench.programs import ANSWER, ISSUED, RATE_LIMIT, TOKEN

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n")
_CREDENTIAL = b"\r\nauthorization: bearer %b\r\n" % TOKEN.encode()


def _answer(status: str, body: str, fields: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    return (head + body).encode()


_OK, _ISSUED, _REFUSED = _answer("200 OK", ANSWER, RATE_LIMIT), _answer("200 OK", ISSUED), _answer("401 No", "")


class Upstream(asyncio.Protocol):
    """Answers requests in their order; bodies are skipped, and come with a Content-Length."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[: end + 4].lower()
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            self._received = self._received[whole:]
            assert self._transport is not None
            if b" /oauth/token " in head:
                self._transport.write(_ISSUED)
            else:
                self._transport.write(_OK if _CREDENTIAL in head else _REFUSED)


async def serve(port: int) -> None:
    """Serves until the program is ended."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))

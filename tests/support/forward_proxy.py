"""A corporate forward proxy: tunnels to where the test says, whatever name is asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.peers import Message, Peer, Server


class ForwardingProxy:
    """Answers CONNECT and relays bytes.

    :ivar asked: the requests so far
    :ivar answer: what it says to them; a tunnel follows where that is a 200
    :ivar ports: where it leads, by the authority asked for
    """

    def __init__(self) -> None:
        self.server = Server()
        self.asked: list[Message] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self.ports: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://user:pass%20word@127.0.0.1:{self.server.port}"

    async def run(self) -> None:
        """Serves until it is cancelled."""
        async with asyncio.TaskGroup() as tunnels:
            while True:
                tunnels.create_task(self._tunnel(await self.server.next()), name="forward proxy's tunnel")

    async def _tunnel(self, client: Peer) -> None:
        client.patience = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await client.head()
            self.asked.append(request)
            client.send(self.answer)
            if not self.answer.startswith(b"HTTP/1.1 200"):
                return client.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[request.target.decode()])
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(client.copy_to(writer), name="up")
                    both.create_task(client.copy_from(reader), name="down")
            except* OSError:
                pass
            finally:
                writer.transport.abort()


@contextlib.asynccontextmanager
async def forward_proxy() -> AsyncIterator[ForwardingProxy]:
    """One that runs for as long as the context lasts."""
    made = ForwardingProxy()
    async with made.server:
        serving = asyncio.get_running_loop().create_task(made.run(), name="forward proxy")
        try:
            yield made
        finally:
            serving.cancel()
            await asyncio.wait({serving})

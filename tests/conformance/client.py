"""The client of a case: raw bytes out, raw bytes in."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial

from tests.conformance import script
from tests.conformance.cases import Case
from tests.conformance.messages import read_answers
from tests.conformance.observation import Bell, Observation
from tests.conformance.upstream import reset

_PIECE = 64 * 1024
_DRAIN = 3.0
"""Seconds in which the proxy has to take what the client sends."""
_CLOSING = 1.5
"""Seconds for a connection to close after the last answer, where a case is about that."""
_SURPLUS = 0.03
"""Seconds in which an answer too many would follow the last."""
_LEAVING = 5.0
"""Seconds for the proxy to leave the upstream, where a case is about that."""


async def converse(case: Case, host: str, port: int, seen: Observation, bell: Bell) -> None:
    """Play the client's part and note what it gets; at the end the client is gone.

    Raises OSError where the proxy can't be reached.
    """
    reader, writer = await asyncio.open_connection(host, port, limit=64 * 1024 * 1024)
    client = _Client(case, reader, writer, seen, bell)
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(client.listen(), name=f"client of {case.id}")
        try:
            await client.follow_script()
            await client.wait_for_the_end()
        finally:
            listening.cancel()
            writer.transport.abort()
    seen.answers, seen.tunnel = read_answers(bytes(seen.raw), case.methods, ended=seen.ended)


class _Client:
    def __init__(
        self,
        case: Case,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seen: Observation,
        bell: Bell,
    ) -> None:
        self._case = case
        self._reader = reader
        self._writer = writer
        self._seen = seen
        self._bell = bell
        seen.started = time.monotonic()
        self._deadline = seen.started + case.limit

    async def listen(self) -> None:
        """Note whatever comes, to the connection's end."""
        try:
            while data := await self._reader.read(_PIECE):
                self._seen.raw += data
                self._bell.ring()
        except OSError:
            self._seen.reset = True
        self._seen.ended = True
        self._bell.ring()

    async def follow_script(self) -> None:
        # A proxy may close while the client still sends; what it answered before counts.
        with contextlib.suppress(OSError, TimeoutError):
            for step in self._case.client:
                await self._perform(step)

    async def wait_for_the_end(self) -> None:
        """Give the answers, and what must not follow them, the time to come."""
        if self._seen.left_at is None:
            await self._until(lambda: self._seen.ended or self._has_answers(self._case.answers))
            if self._case.linger or self._case.needs_an_end:
                await self._until(lambda: self._seen.ended, self._case.linger or _CLOSING)
            elif self._case.answers == 1:
                await asyncio.sleep(_SURPLUS)
        if self._case.watches_upstream:
            await self._until(lambda: self._seen.upstream.all_ended, _LEAVING)

    async def _perform(self, step: script.ClientStep) -> None:
        match step:
            case script.Send(data, times):
                await self._send(data * times)
            case script.Pause(seconds):
                await asyncio.sleep(seconds)
            case script.Await(data, within):
                await self._until(lambda: data in self._seen.raw or self._seen.ended, within)
                if data in self._seen.raw:
                    self._seen.arrived[data] = time.monotonic() - self._seen.started
            case script.AwaitAnswers(count, within):
                await self._until(lambda: self._seen.ended or self._has_answers(count), within)
            case script.AwaitRequest(within):
                await self._until(lambda: bool(self._seen.upstream.requests), within)
            case script.AwaitUpstream(data, within):
                if await self._until(partial(self._reached_upstream, data), within):
                    self._seen.reached.add(data)
            case _:
                self._leave(step)

    def _leave(self, step: script.Close | script.HalfClose | script.Reset) -> None:
        match step:
            case script.HalfClose():
                self._writer.write_eof()
                return
            case script.Close():
                self._writer.close()
            case script.Reset():
                reset(self._writer)
        self._seen.left_at = time.monotonic()

    async def _send(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE):
            self._writer.write(data[at : at + _PIECE])
            async with asyncio.timeout(_DRAIN):
                await self._writer.drain()

    async def _until(self, condition: Callable[[], bool], seconds: float = float("inf")) -> bool:
        left = self._deadline - time.monotonic()
        return await self._bell.until(condition, min(left, seconds))

    def _has_answers(self, count: int) -> bool:
        answers, _ = read_answers(bytes(self._seen.raw), self._case.methods, ended=False)
        return sum(answer.complete for answer in answers) >= count

    def _reached_upstream(self, data: bytes) -> bool:
        return data in b"\0".join(self._seen.upstream.raw)

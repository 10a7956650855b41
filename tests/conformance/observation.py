"""What was seen at both ends of the proxy while one case was played."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.conformance.messages import Answer, Field


@dataclass(slots=True)
class Request:
    """A request as the upstream received it."""

    line: str = ""
    fields: list[Field] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    framing: str = "none"
    complete: bool = False
    """Head and content are there; False for good where the proxy left in the middle."""


@dataclass(slots=True)
class Record:
    """What the upstream saw. Connections are numbered from 0."""

    requests: list[Request] = field(default_factory=list)
    raw: list[bytearray] = field(default_factory=list)
    """All bytes of each connection."""
    ended: dict[int, float] = field(default_factory=dict)
    """When a connection was over, on the clock of ``time.monotonic``."""

    @property
    def all_ended(self) -> bool:
        """There were connections, and none is left."""
        return 0 < len(self.raw) == len(self.ended)


@dataclass(slots=True)
class Observation:
    """What the client saw, and the upstream's record."""

    upstream: Record
    raw: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """The proxy closed the client's connection."""
    reset: bool = False
    """It did so with RST."""
    left_at: float | None = None
    """When the client closed its side, on the clock of ``time.monotonic``."""
    arrived: dict[bytes, float] = field(default_factory=dict)
    """Awaited bytes, and the seconds since the connection opened until they were there."""
    reached: set[bytes] = field(default_factory=set)
    """Awaited bytes that reached the upstream in time."""
    started: float = field(default_factory=time.monotonic)
    answers: list[Answer] = field(default_factory=list)
    tunnel: bytes = b""
    """What followed the answers; after a 101 that is the tunnel."""


class Bell:
    """Wakes those who wait for a condition whenever something has happened at either end."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for the condition, at most so long; whether it holds. One waiter at a time."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                while not condition():
                    self._rung.clear()
                    await self._rung.wait()
        except TimeoutError:
            return condition()
        return True

"""The demo's clients: each asks for contacts and creates some, without a token of its own."""

from __future__ import annotations

import asyncio
import random
from uuid import uuid4

import aiohttp

from proxy.cli.demo.figures import ClientCounts

CLIENTS = 4
"""For each org."""

PAUSE = 0.06
"""Seconds between a client's requests, on average."""

TIMEOUT = 20.0
"""Seconds; more than the proxy takes for its own answer, so that its answer is what counts."""

_PATH = "/api/v2/messaging/contacts"


class Traffic:
    """Clients of several orgs that call the API through one proxy until they are told to stop.

    :ivar counts: what they saw, by org
    """

    def __init__(self, proxy_url: str, orgs: list[str]) -> None:
        self._urls = {org: f"{proxy_url}/t/{org}{_PATH}" for org in orgs}
        self.counts = {org: ClientCounts() for org in orgs}
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Lets the clients call; returns after ``stop``, once every request is answered."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            asyncio.TaskGroup() as group,
        ):
            for org in self.counts:
                for number in range(CLIENTS):
                    group.create_task(self._client(session, org), name=f"client {number} of {org}")

    def stop(self) -> None:
        """Has the clients finish."""
        self._stopped.set()

    async def _client(self, session: aiohttp.ClientSession, org: str) -> None:
        while not self._stopped.is_set():
            await self._call(session, org, post=random.random() < 0.3)  # noqa: S311 - no secret
            await self._pause(random.uniform(0.5, 1.5) * PAUSE)  # noqa: S311

    async def _call(self, session: aiohttp.ClientSession, org: str, *, post: bool) -> None:
        counts = self.counts[org]
        body = {"externalId": str(uuid4()), "firstName": "Ada"} if post else None
        try:
            async with session.request("POST" if post else "GET", self._urls[org], json=body) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            counts.failures[type(error).__name__] += 1
            return
        if status != 200:
            counts.failures[str(status)] += 1
            return
        counts.answered += 1
        counts.posts += post

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return

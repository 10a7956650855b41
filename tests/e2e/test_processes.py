"""Real processes, killed and started again, on one store, at a token endpoint that punishes every reuse.

The endpoint is the sandbox's: a refresh token that is shown twice revokes all that came of its login.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.core.secret import Secret
from proxy.core.turn import supplied
from proxy.sandbox import Client, Org, Sandbox, SandboxOptions
from tests.e2e import asker
from tests.support.redis_server import redis_server
from tests.support.stages import until

LIFETIME = 1.5
SEED = "the-first-refresh-token"
CLIENT = Client("client-id", "client-secret", refresh_token=SEED)
ORG = Org("org-id", "acme", (CLIENT,), ())


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "tokens.db")
        return
    with redis_server() as server:
        yield server.url


class Process:
    """One asker.

    :ivar said: its lines so far
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.said: list[str] = []
        self._process = process
        self._reading = asyncio.create_task(self._read(), name="asker's output")  # noqa: TID251 ends with the process

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.said.append(line.decode().strip())

    async def kill(self) -> None:
        """With SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


class World:
    """A sandbox with one login, and processes that share its refresh tokens."""

    def __init__(self, sandbox: Sandbox, store: str) -> None:
        self.sandbox = sandbox
        self.processes: list[Process] = []
        self._client = (f"{sandbox.base_url}/oauth/token", CLIENT.id, str(CLIENT.secret), SEED)
        self._store = store

    async def start(self) -> Process:
        process = Process(await asker.start(self._store, *self._client))
        self.processes.append(process)
        return process

    async def kill(self, process: Process) -> None:
        self.processes.remove(process)
        await process.kill()

    @property
    def reuses(self) -> int:
        return self.sandbox.ledger.refresh_token_reuses

    @property
    def refreshes(self) -> int:
        return self.sandbox.ledger.token_requests["acme", "refresh_token", "ok"]

    async def log_in(self) -> None:
        """Puts the refresh token of a new login into the store, as ``login`` does."""
        family = self.sandbox.tokens.login(CLIENT, ORG, ORG, ())
        opened = await asker.open_store(self._store)
        key = asker.person(*self._client).line
        while True:
            seen = await opened.load(key)
            assert seen.record is not None
            if await opened.replace(seen, supplied(seen.record, Secret(family.current))) is not None:
                break
        await opened.close()

    async def all_have_a_new_token(self) -> None:
        """Waits until each process has got one more."""
        counts = {process: len(process.said) for process in self.processes}
        await until(lambda: all(self._got(process, count) for process, count in counts.items()), 60)

    @staticmethod
    def _got(process: Process, count: int) -> bool:
        return any(line.startswith("token ") for line in process.said[count:])


@contextlib.asynccontextmanager
async def world(store: str) -> AsyncIterator[World]:
    async with Sandbox(SandboxOptions(orgs=(ORG,), token_lifetime=LIFETIME)) as sandbox:
        world = World(sandbox, store)
        try:
            yield world
        finally:
            for process in list(world.processes):
                await world.kill(process)


async def test_processes_refresh_in_turns_and_use_no_refresh_token_twice(store: str) -> None:
    async with world(store) as shared:
        for _ in range(3):
            await shared.start()
        for _ in range(3):
            await shared.all_have_a_new_token()
        assert shared.reuses == 0
        assert shared.refreshes >= 3
        assert not [line for process in shared.processes for line in process.said if line.startswith("refused")]
        tokens = {line for process in shared.processes for line in process.said}
        assert len(tokens) <= shared.refreshes + 1  # each was got once and shared


@pytest.mark.slow
async def test_whoever_is_killed_between_requests_takes_no_refresh_token_along(store: str) -> None:
    async with world(store) as shared:
        for _ in range(2):
            await shared.start()
        for _ in range(4):
            await shared.all_have_a_new_token()
            # Each has said so: whatever it asked for is stored.
            await shared.kill(shared.processes[0])
            await shared.start()
        await shared.all_have_a_new_token()
        assert shared.reuses <= 1  # on a slow machine, one was killed in its next request


async def test_a_request_that_died_before_the_endpoint_saw_it_is_made_again(store: str) -> None:
    async with world(store) as shared:
        first = await shared.start()
        await shared.all_have_a_new_token()
        shared.sandbox.faults.set("token_latency", 30.0, count=1)
        await until(lambda: not shared.sandbox.faults.as_json(), 30)
        refreshes = shared.refreshes
        await shared.kill(first)
        await shared.start()
        await until(lambda: shared.refreshes > refreshes, 30)  # the first token may be the one that still lives
        assert shared.reuses == 0


async def test_a_login_heals_processes_that_run(store: str) -> None:
    async with world(store) as shared:
        for _ in range(2):
            await shared.start()
        await shared.all_have_a_new_token()
        shared.sandbox.revoke("acme", refresh_tokens=True)
        await until(lambda: all(process.said[-1] == "refused invalid_grant" for process in shared.processes), 30)
        asked = sum(shared.sandbox.ledger.token_requests.values())
        await asyncio.sleep(1.0)
        assert sum(shared.sandbox.ledger.token_requests.values()) == asked  # final for that refresh token
        await shared.log_in()
        await shared.all_have_a_new_token()
        assert shared.reuses == 0


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
async def test_after_any_kill_the_store_can_be_read_and_at_most_a_login_is_needed(store: str, kills: int) -> None:
    chance = random.Random(kills)
    lost = 0
    async with world(store) as shared:
        for _ in range(2):
            await shared.start()
        await shared.all_have_a_new_token()
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.0, LIFETIME))
            await shared.kill(chance.choice(shared.processes))
            await shared.start()
            if await _needs_login(shared):
                lost += 1
                await shared.log_in()
        await shared.all_have_a_new_token()
        assert shared.reuses == lost <= kills
        print(f"{kills} kills, {lost} within the window, {shared.refreshes} refreshes")


async def _needs_login(shared: World) -> bool:
    """Waits until every process has said something new."""
    began = time.monotonic()
    counts = {process: len(process.said) for process in shared.processes}
    await until(lambda: all(len(process.said) > count for process, count in counts.items()), 60)
    assert time.monotonic() - began < 60
    return any(process.said[-1] == "refused invalid_grant" for process in shared.processes)

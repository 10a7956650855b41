"""``run --workers``: real processes that are told to end, killed and reloaded while clients go on asking."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from proxy.cli.orgs import tenants_toml
from proxy.sandbox import DEFAULT_ORGS, Sandbox, SandboxOptions
from tests.cli.program import PATIENCE
from tests.support.proxies import RunningProxy, run_proxy
from tests.workers.load import alive, load

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHO = "/api/v2/organizations/me"


@dataclass(frozen=True, slots=True)
class Workers:
    """A proxy of two workers, and the sandbox behind it."""

    proxy: RunningProxy
    sandbox: Sandbox
    session: aiohttp.ClientSession

    async def status(self) -> dict[str, Any]:
        async with self.session.get(self.proxy.admin_url + "/status.json") as response:
            status: dict[str, Any] = await response.json()
            return status

    async def post(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.session.post(self.proxy.admin_url + path) as response:
            return response.status, await response.json()

    async def pids(self) -> list[int]:
        """Of the workers that serve."""
        return [worker["pid"] for worker in (await self.status())["workers"] if worker["pid"] is not None]

    async def started(self) -> int:
        """Worker processes so far."""
        return sum(worker["started"] for worker in (await self.status())["workers"])

    async def two(self, satisfied: Callable[[list[int]], bool]) -> list[int]:
        """Waits until two workers serve whose process ids satisfy this."""
        async with asyncio.timeout(PATIENCE):
            while len(pids := await self.pids()) != 2 or not satisfied(pids):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            return pids

    async def without(self, pid: int) -> list[int]:
        """Waits until two workers serve, and this is none of them."""
        return await self.two(lambda pids: pid not in pids)

    async def ask(self, tenant: str) -> int:
        """The status of a request on a connection of its own."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.proxy.url}/t/{tenant}{WHO}") as response:
            return response.status

    async def fault_met(self) -> None:
        """Waits until requests have met all of a fault."""
        async with asyncio.timeout(PATIENCE):
            while self.sandbox.faults.as_json():  # noqa: ASYNC110 - the sandbox tells nobody
                await asyncio.sleep(0.01)

    async def counted(self, tenant: str = "acme") -> int:
        """Answers to a tenant's requests, as the admin port adds them up."""
        tenants = {each["name"]: each for each in (await self.status())["tenants"]}
        return sum(tenants[tenant]["requests"].values())


@contextlib.asynccontextmanager
async def two_workers(*, ends_with: int = 0) -> AsyncIterator[Workers]:
    """Two workers, whose program ends so."""
    unexpected = pytest.raises(ChildProcessError, match=f"ended with {ends_with}") if ends_with else None
    async with Sandbox(SandboxOptions(rate_limit=None, org_rate_limit=None)) as sandbox:
        configuration = "[listen]\nport = 0\n[admin]\nport = 0\n" + tenants_toml(sandbox.base_url, DEFAULT_ORGS)
        with unexpected or contextlib.nullcontext():
            async with run_proxy(configuration, "--workers", "2") as proxy, aiohttp.ClientSession() as session:
                yield Workers(proxy, sandbox, session)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Workers]:
    """Started once: each test leaves two workers behind that serve."""
    async with two_workers() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def workers(shared: Workers) -> AsyncIterator[Workers]:
    before = shared.proxy.configuration.read_text("utf-8")
    yield shared
    shared.sandbox.faults.clear()
    shared.proxy.configuration.write_text(before, "utf-8")
    assert (await shared.post("/reload"))[0] == 200


async def gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while alive(pid):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_restarting_one_worker_after_the_other_fails_no_request(workers: Workers) -> None:
    before = await workers.counted()
    async with load(workers.proxy.port) as seen:
        await seen.answers(50)
        for pid in await workers.pids():
            os.kill(pid, signal.SIGTERM)
            await workers.without(pid)
            await gone(pid)
            await seen.answers(50)
    assert not seen.failures
    assert set(seen.statuses) == {200}
    assert await workers.counted() - before == seen.statuses[200]


async def test_a_worker_that_is_killed_is_replaced_and_takes_nobody_elses_connection_along(workers: Workers) -> None:
    victim, other = await workers.pids()
    started = await workers.started()
    async with load(workers.proxy.port, clients=12) as seen:
        await seen.answers(50)
        os.kill(victim, signal.SIGKILL)
        now = await workers.without(victim)
        await seen.answers(50)
    assert other in now
    assert set(seen.statuses) == {200}
    # Connections of the killed process are reset; new ones are accepted all the time.
    assert not [failure for failure in seen.failures if failure.startswith("connect")], seen.failures
    assert seen.failures.total() <= 12
    assert await workers.started() == started + 1


async def test_a_reload_reaches_every_worker_and_fails_no_request(workers: Workers) -> None:
    file = workers.proxy.configuration
    added = "".join(file.read_text("utf-8").partition("[tenants.acme]")[1:]).replace("[tenants.", "[tenants.new-")
    async with load(workers.proxy.port) as seen:
        await seen.answers(20)
        file.write_text(file.read_text("utf-8") + added, "utf-8")
        workers.proxy.signal(signal.SIGHUP)
        async with asyncio.timeout(PATIENCE):
            while len((await workers.status())["tenants"]) != 4:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        assert {await workers.ask("new-acme") for _ in range(20)} == {200}
        await seen.answers(20)
    assert not seen.failures
    assert set(seen.statuses) == {200}


async def test_a_reload_that_fails_changes_no_worker_and_says_why(workers: Workers) -> None:
    file = workers.proxy.configuration
    good = file.read_text("utf-8")
    file.write_text(good + "colour = 1\n", "utf-8")
    status, answer = await workers.post("/reload")
    assert status == 409
    assert "colour" in answer["message"]
    assert {await workers.ask("acme") for _ in range(10)} == {200}
    file.write_text(good, "utf-8")
    assert (await workers.post("/reload"))[0] == 200


async def test_a_worker_started_after_a_file_broke_has_the_settings_of_the_others(workers: Workers) -> None:
    victim, _ = await workers.pids()
    workers.proxy.configuration.write_text("colour = 1\n", "utf-8")
    os.kill(victim, signal.SIGKILL)
    assert {await workers.ask("acme") for _ in range(20)} == {200}
    await workers.without(victim)
    assert {await workers.ask("acme") for _ in range(20)} == {200}


async def test_what_dead_workers_counted_still_counts(workers: Workers) -> None:
    before = await workers.counted("globex")
    for _ in range(20):
        assert await workers.ask("globex") == 200
    assert await workers.counted("globex") == before + 20
    victim, _ = await workers.pids()
    os.kill(victim, signal.SIGKILL)
    await workers.without(victim)
    assert await workers.counted("globex") == before + 20
    assert await workers.ask("globex") == 200
    assert await workers.counted("globex") == before + 21


async def test_workers_share_each_tenants_one_token_dead_or_alive(workers: Workers) -> None:
    assert {await workers.ask("acme") for _ in range(20)} == {200}
    issued = workers.sandbox.ledger.tokens_issued()
    victim, _ = await workers.pids()
    os.kill(victim, signal.SIGKILL)
    await workers.without(victim)
    assert {await workers.ask("acme") for _ in range(20)} == {200}
    assert workers.sandbox.ledger.tokens_issued() == issued == len(DEFAULT_ORGS)


async def test_a_refresh_by_hand_gets_all_workers_one_new_token(workers: Workers) -> None:
    issued = workers.sandbox.ledger.tokens_issued()
    status, answer = await workers.post("/tenants/acme/refresh")
    assert (status, answer["tenant"]["state"]) == (200, "fresh")
    assert {await workers.ask("acme") for _ in range(10)} == {200}
    assert workers.sandbox.ledger.tokens_issued() == issued + 1


async def test_a_refresh_that_fails_says_why(workers: Workers) -> None:
    assert (await workers.post("/tenants/nobody/refresh"))[0] == 404
    workers.sandbox.faults.set("token_status", 503)
    assert (await workers.post("/tenants/acme/refresh"))[0] == 503


@pytest.mark.asyncio(loop_scope="function")
async def test_the_end_waits_for_requests_in_flight_in_every_worker() -> None:
    async with two_workers() as workers:
        workers.sandbox.faults.set("api_latency", 1.0, count=6)
        async with asyncio.TaskGroup() as asking:
            answers = [asking.create_task(workers.ask("acme"), name="in flight") for _ in range(6)]
            await workers.fault_met()
            workers.proxy.signal(signal.SIGTERM)
        assert [answer.result() for answer in answers] == [200] * 6
        assert await workers.proxy.ended() == 0


@pytest.mark.asyncio(loop_scope="function")
async def test_the_last_worker_answers_what_still_waits_at_the_sockets_of_others() -> None:
    async with two_workers() as workers:
        first, last = await workers.pids()
        assert {await workers.ask("acme") for _ in range(8)} == {200}
        os.kill(last, signal.SIGSTOP)
        try:
            workers.proxy.signal(signal.SIGTERM)
            await gone(first)
            queued = [asyncio.create_task(workers.ask("acme"), name="queued") for _ in range(12)]  # noqa: TID251
            await asyncio.sleep(0.2)  # they have connected: the sockets are open as long as the last worker has them
        finally:
            os.kill(last, signal.SIGCONT)
        assert await asyncio.gather(*queued) == [200] * 12
        assert await workers.proxy.ended() == 0


@pytest.mark.asyncio(loop_scope="function")
async def test_a_second_signal_ends_the_workers_at_once_too() -> None:
    async with two_workers(ends_with=143) as workers:
        pids = await workers.pids()
        workers.sandbox.faults.set("api_latency", 600.0, count=1)
        asking = asyncio.gather(workers.ask("acme"), return_exceptions=True)
        await workers.fault_met()
        workers.proxy.signal(signal.SIGTERM)
        await workers.proxy.said("stopping")
        workers.proxy.signal(signal.SIGTERM)
        for pid in pids:
            await gone(pid)
        assert isinstance((await asking)[0], aiohttp.ClientError)


@pytest.mark.asyncio(loop_scope="function")
async def test_workers_end_when_their_supervisor_is_killed() -> None:
    async with two_workers(ends_with=-9) as workers:
        pids = await workers.pids()
        workers.proxy.signal(signal.SIGKILL)
        for pid in pids:
            await gone(pid)

"""A full disk, or a folder that is read-only, while the proxy runs: what is cached is served, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from proxy.sandbox import Org, Sandbox, SandboxOptions
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import ECHO, make_orgs, ports_toml, tenant_toml, until

pytestmark = pytest.mark.timeout(120)

REFRESHING, PLAIN = make_orgs(["refreshing", "plain"])
PATIENCE = 20.0


class World:
    """A tenant with refresh tokens and one without, on one file."""

    def __init__(self, sandbox: Sandbox, store: Path) -> None:
        self.sandbox = sandbox
        seed = REFRESHING.clients[0].refresh_token
        self._configuration = (
            f'{ports_toml(sandbox.base_url)}\n[store]\nurl = "sqlite:{store}"\n{tenant_toml(PLAIN)}\n'
            + tenant_toml(REFRESHING, grant="refresh_token", refresh_token=seed)
        )

    @contextlib.asynccontextmanager
    async def proxy(self, *options: str) -> AsyncIterator[Caller]:
        async with run_proxy(self._configuration, *options) as proxy, aiohttp.ClientSession() as session:
            yield Caller(proxy, session)

    def granted(self, org: Org) -> int:
        return sum(
            count for (name, _, outcome), count in self.sandbox.ledger.token_requests.items()
            if name == org.name and outcome == "ok"
        )  # fmt: skip

    @property
    def reuses(self) -> int:
        return self.sandbox.ledger.refresh_token_reuses


class Caller:
    """Who calls one proxy."""

    def __init__(self, proxy: RunningProxy, session: aiohttp.ClientSession) -> None:
        self.proxy = proxy
        self._session = session

    async def get(self, org: Org) -> int:
        async with self._session.get(f"{self.proxy.url}/t/{org.name}{ECHO}") as response:
            return response.status

    async def refresh(self, org: Org) -> int:
        async with self._session.post(f"{self.proxy.admin_url}/tenants/{org.name}/refresh") as response:
            return response.status


@contextlib.asynccontextmanager
async def world(store: Path) -> AsyncIterator[World]:
    async with Sandbox(SandboxOptions(orgs=(REFRESHING, PLAIN), rate_limit=None, org_rate_limit=None)) as sandbox:
        yield World(sandbox, store)


def no_room(pid: int) -> Callable[[], None]:
    """Fails every write to a file that this process makes, as a full disk does; what is returned makes room again."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))

    def make_room() -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    return make_room


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
async def test_a_refresh_token_that_found_no_room_is_kept_and_stored_when_there_is(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With workers, it is the supervisor that has the refresh tokens."""
    async with world(tmp_path / "tokens.db") as shared:
        async with shared.proxy(*options) as caller:
            assert [await caller.get(org) for org in (REFRESHING, PLAIN)] == [200, 200]
            shared.sandbox.faults.set("token_late", 2.0, count=1, org=REFRESHING.name)
            async with asyncio.TaskGroup() as group:
                refreshing = group.create_task(caller.refresh(REFRESHING), name="refresh")
                await until(lambda: not shared.sandbox.faults.as_json(), PATIENCE)
                make_room = no_room(caller.proxy.pid)  # the server has rotated, and its answer is on the way
            assert refreshing.result() == 200
            await caller.proxy.said("its new refresh token is in memory only")
            assert [await caller.get(org) for org in (REFRESHING, PLAIN) * 3] == [200] * 6
            assert await caller.refresh(REFRESHING) == 503, "nothing is asked that could not be stored"
            assert [await caller.get(REFRESHING) for _ in range(3)] == [200] * 3
            assert shared.granted(REFRESHING) == 2
            make_room()
            await caller.proxy.said("what could not be stored before is stored now")
            assert await caller.refresh(REFRESHING) == 200
            assert (shared.granted(REFRESHING), shared.reuses) == (3, 0)
        if not options:
            async with shared.proxy() as caller:
                assert await caller.get(REFRESHING) == 200
                assert shared.granted(REFRESHING) == 3, "the token of before is there"
                assert await caller.refresh(REFRESHING) == 200
                assert shared.reuses == 0


async def test_a_client_without_refresh_tokens_does_without_a_full_disk(tmp_path: Path) -> None:
    async with world(tmp_path / "tokens.db") as shared, shared.proxy() as caller:
        assert await caller.get(PLAIN) == 200
        make_room = no_room(caller.proxy.pid)
        assert await caller.refresh(PLAIN) == 200
        shared.sandbox.revoke(PLAIN.name)
        assert await caller.get(PLAIN) == 200
        assert shared.granted(PLAIN) == 3
        make_room()


async def test_a_folder_that_becomes_read_only_costs_nothing_while_the_files_are_open(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with world(folder / "tokens.db") as shared:
        async with shared.proxy() as caller:
            assert await caller.get(REFRESHING) == 200
            folder.chmod(0o500)
            try:
                assert await caller.refresh(REFRESHING) == 200
                assert await caller.get(REFRESHING) == 200
            finally:
                folder.chmod(0o700)
        async with shared.proxy() as caller:
            assert await caller.refresh(REFRESHING) == 200
        assert (shared.granted(REFRESHING), shared.reuses) == (3, 0)


# --- a file system of our own, which takes a mount ---


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.needs("mount")
async def test_a_full_disk_loses_nothing_on_the_way_back(disk: Path) -> None:
    filler = disk / "filler"

    def begin() -> None:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))

    async with world(disk / "tokens.db") as shared:
        with pytest.raises(ChildProcessError, match="ended with -9"):
            await _meet(shared, begin, filler.unlink)
        granted = shared.granted(REFRESHING)
        async with shared.proxy() as caller:
            assert await caller.get(REFRESHING) == 200
            assert shared.granted(REFRESHING) == granted, "what was stored last is there after kill -9"
            assert await caller.refresh(REFRESHING) == 200
        assert shared.reuses == 0


async def _meet(shared: World, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Refreshes before, in and after the trouble, which begins once the server has rotated; ends with ``kill -9``."""
    async with shared.proxy() as caller:
        for _ in range(3):
            assert await caller.refresh(REFRESHING) == 200
        shared.sandbox.faults.set("token_late", 2.0, count=1, org=REFRESHING.name)
        async with asyncio.TaskGroup() as group:
            refreshing = group.create_task(caller.refresh(REFRESHING), name="refresh")
            await until(lambda: not shared.sandbox.faults.as_json(), PATIENCE)
            begin()
        assert refreshing.result() == 200
        for _ in range(40):  # until the log of writes has to grow
            if "in memory only" in caller.proxy.output:
                break
            before = shared.granted(REFRESHING)
            assert await caller.refresh(REFRESHING) in (200, 503)
            if shared.granted(REFRESHING) == before:
                break
        assert [await caller.get(org) for org in (REFRESHING, PLAIN) * 3] == [200] * 6
        granted = shared.granted(REFRESHING)
        assert await caller.refresh(REFRESHING) == 503
        assert shared.granted(REFRESHING) == granted
        end()
        async with asyncio.timeout(PATIENCE):
            while await caller.refresh(REFRESHING) != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        caller.proxy.signal(signal.SIGKILL)
        await caller.proxy.ended()

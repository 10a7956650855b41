"""Whether it has come up, lives and is ready: three questions, asked of the running program."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from proxy.sandbox import Sandbox, SandboxOptions
from tests.support.proxies import run_proxy
from tests.support.stages import make_orgs, ports_toml, tenant_toml, until

pytestmark = pytest.mark.asyncio(loop_scope="function")

ORGS = make_orgs(["acme", "globex"])


class Probe:
    """Asks the admin port of a proxy."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.session = session

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(path) as response:
            return response.status, await response.json()

    async def post(self, path: str) -> int:
        async with self.session.post(path) as response:
            return response.status

    async def started(self) -> bool:
        return (await self.get("/startupz"))[0] == 200


@contextlib.asynccontextmanager
async def probing(*faults: tuple[str, object]) -> AsyncIterator[Probe]:
    """A proxy of two tenants, started while these faults are in force."""
    async with Sandbox(SandboxOptions(orgs=ORGS)) as sandbox:
        for name, value in faults:
            sandbox.faults.set(name, value)
        text = ports_toml(sandbox.base_url) + "".join(map(tenant_toml, ORGS))
        async with run_proxy(text) as proxy, aiohttp.ClientSession(proxy.admin_url) as session:
            yield Probe(sandbox, session)


async def test_it_has_started_once_every_tenants_first_token_request_was_answered() -> None:
    async with probing(("token_latency", 2.0)) as probe:
        status, starting = await probe.get("/startupz")
        assert (status, starting["code"]) == (503, "starting")
        assert set(starting["waiting"]) == {"acme", "globex"}
        assert (await probe.get("/healthz"))[0] == 200
        assert (await probe.get("/readyz"))[0] == 200, "requests may come, and wait for their token"
        await until(probe.started)
        assert (await probe.get("/readyz"))[1]["tenants"] == {"acme": "fresh", "globex": "fresh"}


async def test_tenants_that_can_get_no_token_keep_it_from_being_ready_but_not_from_starting() -> None:
    async with probing(("token_invalid_client", "client not found")) as probe:
        await until(probe.started)
        status, body = await probe.get("/readyz")
        assert (status, body["code"], body["ready_for"]) == (503, "no.token", 0.0)
        assert body["failing"].keys() == {"acme", "globex"}
        assert (await probe.get("/healthz"))[0] == 200
        probe.sandbox.faults.clear()
        assert await probe.post("/tenants/acme/refresh") == 200
        assert (await probe.get("/readyz"))[0] == 200
        assert await probe.started(), "what has started stays so"


async def test_while_login_is_down_it_is_ready_for_as_long_as_its_tokens_last() -> None:
    async with probing() as probe:
        await until(probe.started)
        probe.sandbox.faults.set("token_status", 503)
        for name in ("acme", "globex"):
            assert await probe.post(f"/tenants/{name}/refresh") == 503
        status, body = await probe.get("/readyz")
        assert status == 200
        assert 80_000 < body["ready_for"] <= 86_400
        assert body["lasts"].keys() == body["failing"].keys() == {"acme", "globex"}
        status, body = await probe.get("/readyz?tenant=acme")
        assert status == 200
        assert 80_000 < body["ready_for"] <= 86_400

"""Four workers on one store, with tokens that live for three seconds, killed at random under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

import aiohttp
import pytest

from proxy.cli.orgs import tenants_toml
from proxy.sandbox import DEFAULT_ORGS, Sandbox, SandboxOptions
from tests.support.proxies import run_proxy
from tests.workers.load import load

SECONDS = 60
LIFETIME = 3


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
async def test_killing_workers_costs_their_own_connections_and_nothing_else() -> None:
    moments = random.Random(1)
    kills = 0
    async with Sandbox(SandboxOptions(rate_limit=None, org_rate_limit=None, token_lifetime=LIFETIME)) as sandbox:
        configuration = "[listen]\nport = 0\n[admin]\nport = 0\n" + tenants_toml(sandbox.base_url, DEFAULT_ORGS)
        async with run_proxy(configuration, "--workers", "4") as proxy, aiohttp.ClientSession() as session:
            end = asyncio.get_running_loop().time() + SECONDS
            async with load(proxy.port, clients=8) as seen:
                while asyncio.get_running_loop().time() < end:
                    await asyncio.sleep(moments.uniform(1, 4))
                    async with session.get(proxy.admin_url + "/status.json") as response:
                        workers = (await response.json())["workers"]
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(moments.choice([each["pid"] for each in workers if each["pid"]]), signal.SIGKILL)
                        kills += 1
    assert kills >= 10
    assert set(seen.statuses) == {200}
    assert seen.failures.keys() <= {"ConnectionResetError", "IncompleteReadError"}
    assert seen.failures.total() <= 8 * kills
    # Refreshed a fifth of their life ahead: a few more for those whose request died with its process.
    assert sandbox.ledger.tokens_issued() <= len(DEFAULT_ORGS) * SECONDS / (LIFETIME * 0.7) + 2 * kills

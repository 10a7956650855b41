"""The proxy under test, reached over as many tenants as cases are in play."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio

from tests.conformance.cases import entries
from tests.conformance.play import Lane, Stage
from tests.conformance.token_endpoint import token_endpoint
from tests.conformance.upstream import ScriptedUpstream
from tests.support.proxies import run_proxy

_CALLER_KEY = "caller-key-for-tests"

_LANES = {
    "default": 1,
    "any": 32,
    # A refused token makes the proxy wary of its tenant for some seconds, so these share none.
    "own": sum(entry.tenant == "own" for entry in entries()),
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """The one place where these tests meet the proxy: two of them, one of which wants a caller key."""
    async with AsyncExitStack() as open_parts:
        login = await open_parts.enter_async_context(token_endpoint())
        upstreams = {
            f"{kind}-{number}": await _upstream(open_parts) for kind, count in _LANES.items() for number in range(count)
        }
        proxy = await open_parts.enter_async_context(run_proxy(_configuration(login, upstreams)))
        lanes = [
            Lane(tenant.partition("-")[0], proxy.host, proxy.port, upstream, f"/t/{tenant}")
            for tenant, upstream in upstreams.items()
        ]
        guarded = {"guarded-0": await _upstream(open_parts)}
        access = f'[access]\ncaller_keys = ["{_CALLER_KEY}"]\n'
        proxy = await open_parts.enter_async_context(run_proxy(_configuration(login, guarded) + access))
        key = f"X-Proxy-Key: {_CALLER_KEY}\r\n"
        lanes.append(Lane("guarded", proxy.host, proxy.port, guarded["guarded-0"], "/t/guarded-0", key))
        yield Stage(lanes)


async def _upstream(open_parts: AsyncExitStack) -> ScriptedUpstream:
    upstream = ScriptedUpstream()
    await upstream.start()
    open_parts.push_async_callback(upstream.close)
    return upstream


def _configuration(login: str, upstreams: dict[str, ScriptedUpstream]) -> str:
    tenants = "".join(
        f'[tenants.{tenant}]\napi_url = "http://localhost:{upstream.port}"\nclient_id = "{tenant}"\n'
        for tenant, upstream in upstreams.items()
    )
    return f"""
[listen]
host = "127.0.0.1"
port = 0
[admin]
host = "127.0.0.1"
port = 0
[routing]
default_tenant = "{next(iter(upstreams))}"
[defaults]
login_url = "{login}"
client_secret = "fake-secret-for-tests"
{tenants}"""

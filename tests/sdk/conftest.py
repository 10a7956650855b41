"""A stage whose tokens live for seconds, and each official SDK in a program of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.sdk.drivers import Sdk, run_sdk
from tests.support.stages import Stage, Tenant, make_orgs, open_stage

LIFETIME = 2.0
"""Seconds that a token lives."""

DEFAULT = "default-org"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    orgs = (*make_orgs(f"org-{number}" for number in range(80)), *make_orgs([DEFAULT]))
    configuration = f'keep_warm = false\n[routing]\ndefault_tenant = "{DEFAULT}"\n'
    async with open_stage(orgs, configuration, token_lifetime=LIFETIME) as stage:
        yield stage


@pytest.fixture
def tenant(stage: Stage) -> Tenant:
    """One that no other test uses."""
    return stage.tenant()


@pytest.fixture
def default(stage: Stage) -> Tenant:
    """That of requests which name none."""
    return Tenant(stage, stage.sandbox.options.orgs[-1])


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=["python", pytest.param("javascript", marks=pytest.mark.needs("javascript-sdk"))],
)
async def sdk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sdk]:
    async with run_sdk(request.param, tmp_path_factory.mktemp("home")) as sdk:
        yield sdk

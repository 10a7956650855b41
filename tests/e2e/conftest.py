"""A stage for each module, which the module may shape, and a tenant of it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.stages import Stage, Tenant, make_orgs, open_stage

_TENANTS = 40
"""More than any module has tests."""


@pytest.fixture(scope="module")
def configuration() -> str:
    """What a module adds to the proxy's configuration; see ``open_stage``."""
    return "keep_warm = false\n"


@pytest.fixture(scope="module")
def sandbox_options() -> dict[str, Any]:
    """What a module chooses for its sandbox, by the names in ``SandboxOptions``."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(configuration: str, sandbox_options: dict[str, Any]) -> AsyncIterator[Stage]:
    orgs = make_orgs(f"org-{number}" for number in range(_TENANTS))
    async with open_stage(orgs, configuration, **sandbox_options) as stage:
        yield stage


@pytest.fixture
def tenant(stage: Stage) -> Tenant:
    """One that no other test uses."""
    return stage.tenant()

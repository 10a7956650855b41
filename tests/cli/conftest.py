"""A sandbox, and a configuration file whose tenants are its orgs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.cli.orgs import tenants_toml
from proxy.sandbox import DEFAULT_ORGS, Sandbox

PORTS = "[listen]\nport = 0\n[admin]\nport = 0\n"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def config(sandbox: Sandbox, tmp_path: Path) -> Path:
    """Both orgs of the sandbox, on free ports."""
    file = tmp_path / "proxy.toml"
    file.write_text(PORTS + tenants_toml(sandbox.base_url, DEFAULT_ORGS), "utf-8")
    return file

"""The demo's stage: the sandbox, and a proxy in front of it, in one process on free ports."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.app import Proxy
from proxy.cli.options import set_faults
from proxy.cli.orgs import tenants_toml
from proxy.sandbox import Sandbox, SandboxOptions
from proxy.settings import Settings, load

TOKEN_LIFETIME = 10.0
"""Seconds; Genesys Cloud's live a day, which is a long time to watch."""


@asynccontextmanager
async def stage(faults: tuple[str, ...]) -> AsyncIterator[tuple[Sandbox, Proxy]]:
    """Both running; the sandbox has no rate limit, for the demo makes more calls than a token may."""
    options = SandboxOptions(token_lifetime=TOKEN_LIFETIME, rate_limit=None, org_rate_limit=None)
    async with Sandbox(options) as sandbox:
        set_faults(sandbox.faults, faults)
        proxy = Proxy(_settings(sandbox))
        await proxy.start()
        try:
            yield sandbox, proxy
        finally:
            await proxy.drain()


def _settings(sandbox: Sandbox) -> Settings:
    """Read from a file as any configuration is; the file is not needed afterwards."""
    sections = '[listen]\nport = 0\n[admin]\nport = 0\n[store]\nurl = "memory:"\n'
    text = sections + tenants_toml(sandbox.base_url, sandbox.options.orgs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "demo.toml")
        file.write_text(text, "utf-8")
        return load(file)

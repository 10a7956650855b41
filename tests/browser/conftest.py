"""One headless Chromium for all tests here; each has pages of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.system import chromium

_OPTIONS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    # Names of our own lead to this machine: an attacker's, and those of a vendor's pages.
    "--host-resolver-rules=MAP *.example 127.0.0.1",
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=list(_OPTIONS), chromium_sandbox=False
        )
        yield browser
        await browser.close()

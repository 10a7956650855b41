"""A certified OAuth server that nobody here wrote: npm's oidc-provider, with rotation and reuse detection.

``@pytest.mark.needs("oidc-provider")``; what it serves stands in ``tests/sdk/javascript/authorization_server.mjs``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import aiohttp

from tests.system import JAVASCRIPT, find

CALLBACK = "http://127.0.0.1:8085/callback"
RESOURCE = "https://partner.example"
"""The one resource that it knows (RFC 8707)."""

_STARTING = 60.0
"""Seconds until it listens."""


def confidential(client_id: str, secret: str, organization: str = "acme", **metadata: object) -> dict[str, object]:
    """A client with a secret, for client credentials; metadata as in OpenID Connect Registration."""
    return {
        "client_id": client_id,
        "client_secret": secret,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "organization": {"id": f"id-of-{organization}", "name": organization},
        **metadata,
    }


def refreshing(client_id: str, secret: str, organization: str = "acme", **metadata: object) -> dict[str, object]:
    """A client that people log in with, and whose tokens are refreshed."""
    usual = {
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "redirect_uris": [CALLBACK],
    }
    return confidential(client_id, secret, organization, **usual | metadata)


class AuthorizationServer:
    """The program while it runs: login and API at one URL.

    :ivar url: without a slash at the end
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def login(self, client_id: str) -> str:
        """A new refresh token, as if somebody had logged in."""
        async with self._session.post(f"{self.url}/control/login", json={"client": client_id}) as response:
            found: str = (await response.json())["refresh_token"]
            return found

    async def ledger(self) -> Any:
        """What became of token requests (granted, refused, reuses) and of calls (accepted, rejected)."""
        async with self._session.get(f"{self.url}/control/ledger") as response:
            return await response.json()


@contextlib.asynccontextmanager
async def run_authorization_server(
    clients: Iterable[Mapping[str, object]], *, lifetime: int = 3
) -> AsyncIterator[AuthorizationServer]:
    """The server with these clients, for as long as the context lasts.

    :param lifetime: seconds of an access token
    """
    options = json.dumps({"clients": list(clients), "lifetime": lifetime})
    process = await asyncio.create_subprocess_exec(
        *(find("node") or "node", str(JAVASCRIPT / "authorization_server.mjs"), options),
        env={**os.environ, "NODE_ENV": "test"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_STARTING):
            url = (await process.stdout.readline()).decode().strip()
        assert url, "the authorization server does not start"
        async with aiohttp.ClientSession() as session:
            yield AuthorizationServer(url, session)
    finally:
        process.stdin.close()
        await process.wait()

"""A process that keeps one line of refresh tokens going: asker.py STORE TOKEN_URL CLIENT_ID SECRET REFRESH_TOKEN.

It says ``token NAME`` for each access token it has got, ``refused ERROR`` where there is none, and begins the next
refresh in the last half of each token's life.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import sys
from pathlib import Path

from proxy.core.grants import Client
from proxy.core.secret import Secret
from proxy.core.turn import Refuse
from proxy.oauth.clock import system_clock
from proxy.oauth.endpoint import TokenEndpoint
from proxy.oauth.line import Line
from proxy.oauth.store import TokenStore
from proxy.oauth.store.opening import redis_store, sqlite_store

ROOT = Path(__file__).resolve().parents[2]


def person(token_url: str, client_id: str, secret: str, refresh_token: str) -> Client:
    """The client whose refresh tokens are used."""
    return Client(
        tenant="acme",
        token_url=token_url,
        client_id=client_id,
        client_secret=Secret(secret),
        grant="refresh_token",
        refresh_token=Secret(refresh_token),
    )


async def start(*arguments: str) -> asyncio.subprocess.Process:
    """Runs this file."""
    return await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def open_store(url: str) -> TokenStore:
    """A file's, or a Redis server's."""
    return await (sqlite_store(Path(url), ()) if url.startswith("/") else redis_store(Secret(url), ()))


async def main(store: str, *client: str) -> None:
    endpoint = TokenEndpoint(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), 5.0)
    opened = await open_store(store)
    line = Line(person(*client), endpoint, opened, asked=lambda *_: None, clock=system_clock)
    while True:
        outcome = await line.next()
        if isinstance(outcome, Refuse):
            print(f"refused {outcome.error.error}", flush=True)
            await asyncio.sleep(min(0.2, outcome.pause))
        else:
            print(f"token {outcome.access_token}", flush=True)
            await asyncio.sleep(outcome.lifetime * random.uniform(0.5, 0.7))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

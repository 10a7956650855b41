"""The stores that there are, each as a place that can be opened any number of times, and what a test puts there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.core.lineage import Access, Journal, Lease, Record, Setback, Verdict
from proxy.core.secret import Secret
from proxy.oauth.store import TokenStore
from proxy.oauth.store.memory import MemoryStore
from proxy.oauth.store.redis import RedisStore
from proxy.oauth.store.seal import Seal
from proxy.oauth.store.sqlite import SqliteStore
from tests.support.redis_server import RedisServer

KEY = Secret("a-key-of-high-entropy-for-tests-1")
OLDER = Secret("a-key-of-high-entropy-for-tests-0")

FULL = Record(
    access=Access(Secret("the-access-token"), 1_700_000_000.25, 86_400.0, "client-key"),
    refresh_token=Secret("the-refresh-token"),
    generation=7,
    seeds=("one", "two"),
    organization="the-org",
    lease=Lease("somebody", 1_700_000_012.5),
    journal=Journal(1_700_000_000.5, retried=True),
    setback=Setback(1_700_000_000.0, 1_700_000_030.0, 3, "http_503", "Tenant acme: späte Antwort.", final=False),
    verdict=Verdict("digest", 1_700_000_000.0, lost=True),
)
"""Every part of a record, each with a value that is none of the others'."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where records are kept.

    :ivar make: a store there, not opened yet
    :ivar encrypted: with a key
    :ivar everything: all bytes that are kept there, by name, as whoever steals them has them
    """

    make: Callable[[], TokenStore]
    everything: Callable[[], bytes]
    encrypted: bool = False

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[TokenStore]:
        """One process's store."""
        store = self.make()
        if isinstance(store, SqliteStore | RedisStore):
            await store.open()
        try:
            yield store
        finally:
            await store.close()


def in_memory() -> Place:
    store = MemoryStore()
    return Place(lambda: store, lambda: b"")


def in_file(path: Path, keys: Sequence[Secret] = ()) -> Place:
    def everything() -> bytes:
        return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()) if file.is_file())

    return Place(lambda: SqliteStore(path, Seal(keys)), everything, bool(keys))


def on_redis(server: RedisServer, keys: Sequence[Secret] = ()) -> Place:
    def everything() -> bytes:
        with server.client() as client:
            values = (client.get(key) for key in client.scan_iter() if client.type(key) == b"string")
            return b"".join(value for value in values if isinstance(value, bytes))

    return Place(lambda: RedisStore(Secret(server.url), Seal(keys)), everything, bool(keys))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)

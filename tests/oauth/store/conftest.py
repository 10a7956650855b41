"""Every kind of store, for the tests of what all of them promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oauth.store.places import KEY, Place, in_file, in_memory, on_redis
from tests.support.redis_server import RedisServer, redis_server

WITH_REDIS = pytest.mark.needs("redis-server")
SHARED = ["sqlite", "sqlite, encrypted", pytest.param("redis", marks=WITH_REDIS)]
SHARED += [pytest.param("redis, encrypted", marks=WITH_REDIS)]


@pytest.fixture(scope="session")
def running_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(running_redis: RedisServer) -> RedisServer:
    """A server that keeps nothing yet."""
    with running_redis.client() as client:
        client.flushall()
    return running_redis


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    keys = [KEY] if kind.endswith("encrypted") else []
    if kind.startswith("redis"):
        return on_redis(request.getfixturevalue("redis"), keys)
    folder: Path = request.getfixturevalue("tmp_path")
    return in_memory() if kind == "memory" else in_file(folder / "tokens.db", keys)


@pytest.fixture(params=["memory", *SHARED])
def place(request: pytest.FixtureRequest) -> Place:
    """A place that nobody has used."""
    return _place(request.param, request)


@pytest.fixture(params=SHARED)
def shared_place(request: pytest.FixtureRequest) -> Place:
    """One that outlives its stores."""
    return _place(request.param, request)

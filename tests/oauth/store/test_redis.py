"""The server: what is told of it, and what happens when it is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from proxy.core.lineage import Access, Record
from proxy.core.secret import Secret
from proxy.errors import ConfigurationError, StoreError
from proxy.oauth.store.redis import KEY_IDS, PREFIX, RedisStore
from proxy.oauth.store.seal import Seal
from tests.oauth.store.places import FULL, KEY, OLDER, on_redis
from tests.support.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.needs("redis-server")


@pytest.fixture
def own() -> Iterator[RedisServer]:
    """A server of the test's own, to be stopped."""
    with redis_server() as server:
        yield server


# --- gone and back ---


async def test_a_server_that_went_and_came_back_is_used_again_with_all_it_kept(own: RedisServer) -> None:
    async with on_redis(own).opened() as store:
        seen = await store.replace(await store.load("key"), FULL)
        assert seen is not None
        own.stop()
        with pytest.raises(StoreError, match="can't be reached"):
            await store.load("key")
        with pytest.raises(StoreError, match="can't be reached"):
            await store.replace(seen, FULL)
        own.start()
        seen = await store.load("key")
        assert seen.record == FULL
        assert await store.replace(seen, Record(generation=8, seeds=("x",))) is not None


async def test_a_server_that_is_down_at_the_start_is_told_and_used_once_it_is_there(
    own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    own.stop()
    async with on_redis(own).opened() as store:
        assert "can't be reached" in caplog.text
        with pytest.raises(StoreError):
            await store.load("key")
        own.start()
        assert (await store.load("key")).record is None


async def test_a_server_that_is_silent_is_not_waited_for_for_ever(own: RedisServer) -> None:
    async with on_redis(own).opened() as store:
        own.signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(StoreError, match="can't be reached"):
            await store.load("key")
        assert time.monotonic() - began < 10
        own.signal(signal.SIGCONT)
        assert (await store.load("key")).record is None


async def test_who_waits_while_the_server_goes_is_told(own: RedisServer) -> None:
    async with on_redis(own).opened() as store:
        waiting = asyncio.create_task(store.changed(await store.load("key"), 30.0))  # noqa: TID251 awaited below
        await asyncio.sleep(0.1)
        await asyncio.to_thread(own.stop)
        with pytest.raises(StoreError):
            await waiting


async def test_connections_that_the_server_closed_are_no_error(redis: RedisServer) -> None:
    async with on_redis(redis).opened() as store:
        await store.replace(await store.load("key"), FULL)
        with redis.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert (await store.load("key")).record == FULL


# --- what it is told at the start ---


async def test_a_password_that_is_missing_or_wrong_is_an_error_without_it(own: RedisServer) -> None:
    with own.client() as client:
        client.config_set("requirepass", "the-right-password")
    for url in (own.url, own.url.replace("unix://", "unix://:the-wrong-password@")):
        with pytest.raises(ConfigurationError, match=r"store\.url: The Redis server refuses") as caught:
            await RedisStore(Secret(url), Seal()).open()
        assert "password" not in str(caught.value)
    with_password = RedisStore(Secret(own.url.replace("unix://", "unix://:the-right-password@")), Seal())
    await with_password.open()
    assert "the-right-password" not in repr(vars(with_password))
    await with_password.close()


async def test_a_server_that_would_lose_tokens_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server("--appendonly", "no", "--maxmemory-policy", "allkeys-lru") as server:
        async with on_redis(server).opened():
            assert "appendonly yes" in caplog.text
            assert "noeviction" in caplog.text


async def test_a_server_that_loses_nothing_is_not_warned_of(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_redis(redis).opened():
        assert caplog.text == ""


async def test_a_server_that_refuses_to_write_is_an_error(own: RedisServer) -> None:
    async with on_redis(own).opened() as store:
        seen = await store.load("key")
        with own.client() as client:
            client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreError, match="refuses") as caught:
            await store.replace(seen, FULL)
        assert "the-refresh-token" not in str(caught.value)
        assert (await store.load("key")).record is None


# --- keys ---


@pytest.mark.parametrize("keys", [[], [OLDER]])
async def test_a_missing_or_wrong_key_is_an_error_and_destroys_nothing(redis: RedisServer, keys: list[Secret]) -> None:
    async with on_redis(redis, [KEY]).opened() as store:
        await store.replace(await store.load("key"), FULL)
    with pytest.raises(ConfigurationError, match=r"store\.encryption_keys"):
        await RedisStore(Secret(redis.url), Seal(keys)).open()
    async with on_redis(redis, [KEY]).opened() as store:
        assert (await store.load("key")).record == FULL


async def test_an_entry_whose_key_is_gone_is_an_error_and_stays(redis: RedisServer) -> None:
    async with on_redis(redis, [OLDER]).opened() as store:
        await store.replace(await store.load("key"), FULL)
    async with on_redis(redis, [KEY, OLDER]).opened() as store:
        await store.replace(await store.load("other"), FULL)
    async with on_redis(redis, [KEY]).opened() as store:
        with pytest.raises(StoreError, match="encryption_keys"):
            await store.load("key")
        assert (await store.load("other")).record == FULL
    async with on_redis(redis, [KEY, OLDER]).opened() as store:
        assert (await store.load("key")).record == FULL


async def test_an_entry_is_encrypted_with_the_newest_key_once_it_is_written(redis: RedisServer) -> None:
    async with on_redis(redis, [OLDER]).opened() as store:
        await store.replace(await store.load("key"), FULL)
    async with on_redis(redis, [KEY, OLDER]).opened() as store:
        await store.replace(await store.load("key"), FULL)
    async with on_redis(redis, [KEY]).opened() as store:
        assert (await store.load("key")).record == FULL


# --- what stands there ---


async def test_all_that_is_kept_is_under_our_own_prefix(redis: RedisServer) -> None:
    async with on_redis(redis, [KEY]).opened() as store:
        await store.replace(await store.load("key"), FULL)
    with redis.client() as client:
        assert {key.decode() for key in client.scan_iter()} == {f"{PREFIX}key", KEY_IDS}


async def test_only_what_expires_is_given_a_time_to_live(redis: RedisServer) -> None:
    access = Access(Secret("a"), time.time(), 3600.0, "client")
    async with on_redis(redis).opened() as store:
        await store.replace(await store.load("access"), Record(access=access))
        await store.replace(await store.load("refresh"), Record(access=access, refresh_token=Secret("r")))
        seen = await store.load("later")
        seen = await store.replace(seen, Record(access=access)) or seen
        await store.replace(seen, Record(refresh_token=Secret("r")))
    with redis.client() as client:
        left = {name: client.ttl(PREFIX + name) for name in ("access", "refresh", "later")}
    assert left["refresh"] == left["later"] == -1
    assert 3600 < left["access"] <= 86_400 + 3600

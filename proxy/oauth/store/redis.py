"""A store on a Redis server, shared by replicas on any number of machines.

Each record is one string: 8 bytes of version, then the value. Times are the server's, so that replicas whose clocks
differ agree on what has expired. Durable as far as that server is: ``appendonly yes`` keeps refresh tokens through
its own restart, and ``appendfsync always`` through its crash.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as NoConnection

from proxy.core.lineage import Record
from proxy.core.secret import Secret
from proxy.errors import ConfigurationError, StoreError
from proxy.oauth.store import Reading
from proxy.oauth.store.codec import decode, encode
from proxy.oauth.store.polling import poll
from proxy.oauth.store.seal import Seal

log = logging.getLogger(__name__)

PREFIX = "genesys-auth-proxy:"
KEY_IDS = f"{PREFIX}key-ids"
"""A set: the ids of the keys that have encrypted here."""

TIMEOUT = 2.0
"""Seconds to connect, and for each answer; the server's work takes microseconds."""

VERSION_SIZE = 8

REPLACE = """
local kept = redis.call('GETRANGE', KEYS[1], 0, 7)
if kept ~= ARGV[1] then return false end
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
return redis.call('TIME')
"""

_CODE = re.compile(r"[A-Z]{2,20}\b")

T = TypeVar("T")


class RedisStore:
    """Keeps records on a server; ``open`` comes first.

    :param url: ``redis://``, ``rediss://`` or ``unix://``, with a password where one is needed
    """

    shared = True

    def __init__(self, url: Secret, seal: Seal) -> None:
        self.owner = secrets.token_hex(8)
        self._seal = seal
        self._checked = False
        # One more attempt: a connection may have been closed while it was idle. A write that is sent twice does no
        # harm, since the second finds another version.
        self._server: Any = aioredis.Redis.from_url(
            url.reveal(),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 1, (NoConnection,)),
            protocol=2,  # all servers speak it
            client_name="genesys-auth-proxy",
        )
        self._replacing = self._server.register_script(REPLACE)

    async def open(self) -> None:
        """Looks whether the server can be used. One that is down now may come back, and is no error.

        :raises ConfigurationError: it refuses us, or what it keeps is encrypted with other keys
        """
        try:
            await self._use(self._warn_of_loss)
        except _Refused as error:
            await self.close()
            raise ConfigurationError([f"store.url: {error}"]) from None
        except _OtherKeys as error:
            await self.close()
            raise ConfigurationError([f"store.encryption_keys: {error}"]) from None
        except StoreError as error:
            log.error("%s Tokens are not kept until it can be.", error, extra={"event": "store.unreachable"})

    async def load(self, key: str) -> Reading:
        async def load() -> Reading:
            async with self._server.pipeline(transaction=False) as both:
                value, now = await both.get(PREFIX + key).time().execute()
            if value is None:
                return Reading(key, None, 0, _seconds(now))
            record = decode(self._seal.open(key, value[VERSION_SIZE:]))
            return Reading(key, record, int.from_bytes(value[:VERSION_SIZE], "big"), _seconds(now))

        return await self._use(load)

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        version = secrets.randbits(62) + 1
        value = version.to_bytes(VERSION_SIZE, "big") + self._seal.close(seen.key, encode(record))
        forget = "" if record.forget_after is None else int(record.forget_after * 1000)

        async def replace() -> Reading | None:
            now = await self._replacing(keys=[PREFIX + seen.key], args=[_version(seen), value, forget])
            return None if now is None else Reading(seen.key, record, version, _seconds(now))

        return await self._use(replace)

    async def changed(self, seen: Reading, seconds: float) -> None:
        async def has_changed() -> bool:
            version = await self._server.getrange(PREFIX + seen.key, 0, VERSION_SIZE - 1)
            return bool(version != _version(seen))

        await poll(lambda: self._use(has_changed), seconds)

    async def close(self) -> None:
        await self._server.aclose()  # what is under way fails

    async def _use(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            if not self._checked:
                await self._check_keys()
                self._checked = True
            return await work()
        except (RedisError, OSError) as error:
            refusal = error.__cause__ if isinstance(error.__cause__, AuthenticationError) else error
            if isinstance(refusal, AuthenticationError | ResponseError):
                # Not its text, which may quote what was sent.
                code = _CODE.match(str(refusal))
                raise _Refused(f"The Redis server refuses ({code[0] if code else type(refusal).__name__}).") from None
            raise StoreError(f"The Redis server can't be reached ({type(error).__name__}).") from None

    async def _check_keys(self) -> None:
        """Sees that what is kept here was encrypted with a key that we have too."""
        found = {bytes.fromhex(key_id.decode()) for key_id in await self._server.smembers(KEY_IDS)}
        if found and not found & set(self._seal.ids):
            raise _OtherKeys("expected a key that the entries on the Redis server are encrypted with")
        if self._seal.ids and self._seal.ids[0] not in found:
            await self._server.sadd(KEY_IDS, self._seal.ids[0].hex())

    async def _warn_of_loss(self) -> None:
        """Tells where the server itself would lose tokens."""
        persistence, memory = await self._server.info("persistence"), await self._server.info("memory")
        if not persistence.get("aof_enabled"):
            log.warning(
                "the Redis server loses refresh tokens when it ends; set appendonly yes there",
                extra={"event": "store.volatile"},
            )
        if not str(memory.get("maxmemory_policy", "noeviction")).startswith(("noeviction", "volatile")):
            log.warning(
                "the Redis server drops refresh tokens when it is full; set maxmemory-policy noeviction there",
                extra={"event": "store.volatile"},
            )


class _Refused(StoreError):
    """The server is there and does not do as we ask."""


class _OtherKeys(StoreError):
    """What it keeps can't be opened here."""


def _version(seen: Reading) -> bytes:
    return seen.version.to_bytes(VERSION_SIZE, "big") if seen.version else b""


def _seconds(time: list[bytes]) -> float:
    whole, microseconds = time
    return int(whole) + int(microseconds) / 1e6

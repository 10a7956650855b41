"""Opens the store that the configuration names; what a kind needs is imported only where it is used."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy.core.secret import Secret
from proxy.errors import ConfigurationError
from proxy.oauth.store import TokenStore


def memory_store(clock: Callable[[], float]) -> TokenStore:
    """A store that ends with the process.

    :param clock: Unix time
    """
    from proxy.oauth.store.memory import MemoryStore

    return MemoryStore(clock)


async def sqlite_store(path: Path, keys: Sequence[Secret]) -> TokenStore:
    """A store in a file.

    :param keys: newest first; none: nothing is encrypted
    :raises StoreNotWritable: this process may not write there
    :raises ConfigurationError: it can't be used; nothing in it was changed
    """
    from proxy.oauth.store.seal import Seal
    from proxy.oauth.store.sqlite import SqliteStore

    store = SqliteStore(path, Seal(keys))
    await store.open()
    return store


async def redis_store(url: Secret, keys: Sequence[Secret]) -> TokenStore:
    """A store on a Redis server, which may be down just now.

    :param keys: newest first; none: nothing is encrypted
    :raises ConfigurationError: it can't be used
    """
    if importlib.util.find_spec("redis") is None:
        raise ConfigurationError(['store.url: needs a further package; pip install "genesys-auth-proxy[redis]"'])
    from proxy.oauth.store.redis import RedisStore
    from proxy.oauth.store.seal import Seal

    store = RedisStore(url, Seal(keys))
    await store.open()
    return store

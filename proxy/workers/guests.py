"""Guests whom every worker is to know (``guest_refresh``): a chat's next call may come to another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from cachetools import TTLCache

from proxy.core.guests import REFRESH_TOKEN_LIFETIME, GuestNews
from proxy.settings import Settings

MOST_NEWS = 20_000
"""Of one tenant: as many JWTs as a worker remembers."""


class GuestBook:
    """What workers told of guests, for those who start later; in memory alone, for as long as a guest can refresh.

    :param size: most news of a tenant
    """

    def __init__(self, *, size: int = MOST_NEWS, timer: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._timer = timer
        self._news: dict[tuple[str, object], TTLCache[str, GuestNews]] = {}
        self._keys: dict[str, tuple[str, object]] = {}

    def follow(self, settings: Settings) -> None:
        """Forgets the guests of tenants that are not to have any, or whose API is another now."""
        wanted = [tenant for tenant in settings.tenants.values() if tenant.guest_refresh]
        self._keys = {tenant.name: (tenant.name, tenant.api_url) for tenant in wanted}
        self._news = {key: self._news[key] for key in self._keys.values() if key in self._news}

    def note(self, news: GuestNews) -> bool:
        """Remembers a guest, or forgets one; whether it concerns others."""
        key = self._keys.get(news.tenant)
        if key is None:
            return False
        known = self._news.setdefault(key, TTLCache(self._size, REFRESH_TOKEN_LIFETIME, self._timer))
        if news.shown is not None:
            known[news.shown] = news
            return True
        for shown in [shown for shown, each in known.items() if each.refresh_token == news.refresh_token]:
            del known[shown]
        return True

    def __iter__(self) -> Iterator[GuestNews]:
        """What is remembered, oldest first."""
        for known in self._news.values():
            yield from known.values()

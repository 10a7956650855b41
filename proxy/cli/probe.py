"""What ``check`` asks about one tenant: its token, and what the API says of that token."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from proxy import app
from proxy.core import organization
from proxy.core.tokens import passed
from proxy.errors import StoreError, TokenError, TokenRefused

if TYPE_CHECKING:
    from proxy.core.organization import Told
    from proxy.settings import Settings, TenantSettings

AT_ONCE = 8
"""Tenants asked at the same time; a thousand at once would be throttled."""

_NOT_KEPT = (
    'its refresh token is not tried: with store.url = "memory:" the one that comes in its place would be lost with '
    "this command, as it is with the proxy at every restart; give store.url a file."
)

CLOCK_TOLERANCE = 30.0
"""Seconds that this machine's clock may be off; what it signs is valid for some more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a tenant; what stayed unknown is None."""

    tenant: str
    upstream: str
    problem: str | None = None
    """A sentence that says what is wrong and what to do; None if nothing is."""
    note: str | None = None
    """A sentence that says what could not be looked at; None if nothing."""
    lifetime: float | None = None
    """Seconds that the token lives."""
    organization: str | None = None
    """Its name, or its id where it has none."""
    scope: tuple[str, ...] | None = None
    clock: float | None = None
    """Seconds that this machine's clock is ahead of the server's, as exactly as its ``Date`` tells."""


async def look_at(settings: Settings, wanted: list[TenantSettings]) -> tuple[list[Finding], str | None]:
    """What there is to know of each tenant, in their order; and what is wrong with the store, None if nothing is."""
    probe = _Probe(settings)
    await probe.open()
    room = asyncio.Semaphore(AT_ONCE)

    async def look(tenant: TenantSettings) -> Finding:
        async with room:
            return await probe.look(tenant)

    try:
        trouble = await probe.store_trouble()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look(tenant), name=f"check of {tenant.name}") for tenant in wanted]
    finally:
        await probe.close()
    return [task.result() for task in tasks], trouble


class _Probe:
    """Asks about tenants of some settings, in the place of a proxy on the same store; to be closed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def open(self) -> None:
        """Opens the store.

        :raises ConfigurationError: it can't be used
        """
        self._store = await app.open_store(self._settings)
        self._endpoint = app.token_endpoint(self._settings)

    async def store_trouble(self) -> str | None:
        """Why nothing can be read of the store now."""
        try:
            await self._store.load("check")
        except StoreError as error:
            return str(error)
        return None

    async def close(self) -> None:
        await self._endpoint.close()
        await self._store.close()

    async def look(self, tenant: TenantSettings) -> Finding:
        """Gets a token as the proxy would, and compares what the API says of it with the configuration.

        A refresh token that is used up in it is replaced in the store, where a proxy finds the next one.
        """
        found = Finding(tenant.name, tenant.region or tenant.api_url.authority)
        if tenant.grant == "refresh_token" and self._settings.store.kind == "memory":
            return replace(found, problem=_NOT_KEPT)
        source = app.token_source(self._store, self._endpoint, tenant)
        try:
            told = await self._told(tenant, source)
        except TokenError as error:
            return _failed(_with_token(found, source), tenant, error)
        finally:
            await source.close()
        found = replace(_with_token(found, source), clock=_ahead(told.server_time))
        wrong = None if tenant.org_id is None else organization.mismatch(tenant.org_id, told)
        return replace(
            found,
            problem=wrong or _wrong_scope(tenant, told.scope) or _wrong_clock(found.clock),
            organization=told.name or told.id,
            scope=told.scope,
            note=_not_compared(told),
        )

    async def _told(self, tenant: TenantSettings, source: app.TokenSource) -> Told:
        """What the API says of the store's token, or of a new one where there is none, or where that has just ended.

        :raises TokenError: there is none, or the API says nothing of it
        """
        since = app.system_clock()
        token = await source.refresh()  # the store's, or one attempt
        try:
            return await app.told(self._endpoint, tenant, token.access_token)
        except TokenRefused as error:
            if error.error != organization.REJECTED or passed(token.obtained, since) <= 0:
                raise  # one that was issued just now
        source.reject(token)
        token = await source.renew(since)
        return await app.told(self._endpoint, tenant, token.access_token)


def _with_token(found: Finding, source: app.TokenSource) -> Finding:
    token = source.token_now()
    return found if token is None else replace(found, lifetime=source.seconds_left(token))


def _failed(found: Finding, tenant: TenantSettings, error: TokenError) -> Finding:
    clock = found.clock if error.server_time is None else _ahead(error.server_time)
    problem = str(error).removeprefix(f"Tenant {tenant.name}: ")
    if tenant.signing_key is not None and error.error in ("invalid_client", "invalid_grant"):
        problem = _wrong_clock(clock) or problem  # what it signs is valid for a short time
    return replace(found, problem=problem, clock=clock)


def _ahead(server_time: float | None) -> float | None:
    """How far this machine's clock is ahead of a ``Date``, which is a whole second that has begun (RFC 9110 5.6.7)."""
    if server_time is None:
        return None
    ahead = time.time() - server_time
    return max(0.0, ahead - 1) if ahead > 0 else ahead


def _not_compared(told: Told) -> str | None:
    if told.withheld is None:
        return None
    return (
        f"the API tells this client neither organization nor scope ({told.withheld}), so neither was compared: its "
        "roles may not allow it, or the org lets in other IP addresses alone."
    )


def _wrong_scope(tenant: TenantSettings, scope: tuple[str, ...] | None) -> str | None:
    if not scope:
        return None  # not told, or a client whose roles alone decide
    lacking = [wanted for wanted in tenant.scope if wanted not in scope]
    if not lacking:
        return None
    return f"the token lacks the scope {' '.join(lacking)}; add it to the OAuth client in the org's admin pages."


def _wrong_clock(ahead: float | None) -> str | None:
    if ahead is None or abs(ahead) <= CLOCK_TOLERANCE:
        return None
    where = "ahead of" if ahead > 0 else "behind"
    return f"this machine's clock is {abs(ahead):.0f} s {where} the server's; set it, best by NTP."

"""What there is for each tenant: tokens, counts and connections, carried over from one configuration to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from math import ceil

from proxy.app import parts
from proxy.app.lines import RemoteLine, Supervision
from proxy.core import access, tokens
from proxy.core.allowance import Allowance
from proxy.core.grants import Client
from proxy.core.guests import GuestNews
from proxy.core.report import CallerTally, Tally, TenantReport
from proxy.core.urls import BaseUrl
from proxy.errors import TokenUnavailable, UnknownTenant
from proxy.forward.tenant import Rules, Tenant
from proxy.oauth.clock import Clock, elapsed
from proxy.oauth.endpoint import GuestApi, TokenEndpoint
from proxy.oauth.guests import Guests
from proxy.oauth.keeper import Keeper
from proxy.oauth.line import Asked
from proxy.oauth.pool import TokenPool, tenant_report
from proxy.oauth.source import Supply, TokenSource
from proxy.oauth.store import TokenStore
from proxy.settings import CallerKeySettings, Settings, TenantSettings
from proxy.traces import Tracing
from proxy.wire.upstream import Upstream

MOST_BY_HAND = 10
"""Refreshes of a tenant by hand in a minute, so that whoever reaches the admin port can't flood its login."""

MOST_FORGIVEN = 10
"""Reloads in a minute that forgive the failures of tenants that they don't change: so that it can't either."""

TURN = 250
"""Tenants, some 3 ms of work, after which requests have their turn."""


async def _in_turns(tenants: Iterable[TenantSettings]) -> AsyncIterator[TenantSettings]:
    for number, tenant in enumerate(tenants, 1):
        yield tenant
        if number % TURN == 0:
            await asyncio.sleep(0)


def _way_to_logins(settings: Settings) -> tuple[object, ...]:
    """What may keep the tokens of all tenants from coming."""
    upstream = settings.upstream
    ca = None if upstream.ca_file is None else settings.sources.get(upstream.ca_file)
    return upstream, ca, settings.limits.connect_timeout


class Tenants:
    """The tenants of the settings that were given last.

    :ivar keeper: refreshes their tokens ahead
    :ivar callers: counts of the callers with keys, by the key's name
    """

    def __init__(
        self,
        store: TokenStore,
        endpoint: TokenEndpoint,
        supervision: Supervision | None,
        tracing: Tracing | None,
        clock: Clock,
    ) -> None:
        self.keeper = Keeper(clock)
        self.callers: dict[str, CallerTally] = {}
        self._store = store
        self._endpoint = endpoint
        self._supervision = supervision
        self._tracing = tracing
        self._clock = clock
        self._warm: list[TokenSource] = []
        self._sources: dict[str, TokenSource] = {}
        self._tenant_sources: dict[str, list[TokenSource]] = {}
        self._retired: list[TokenSource] = []
        self._pools: dict[str, TokenPool] = {}
        self._tallies: dict[str, Tally] = {}
        self._upstreams: dict[BaseUrl, Upstream] = {}
        self._replaced: list[Upstream] = []
        self._guests: dict[str, Guests] = {}
        self._by_hand: dict[str, Allowance] = {}
        self._forgiving = Allowance(MOST_FORGIVEN, 60.0)
        self._settings: Settings | None = None

    # --- what is asked of them ---

    @property
    def upstream_connections(self) -> int:
        """Connections open now, used or not."""
        return sum(upstream.connections for upstream in self._upstreams.values())

    @property
    def known(self) -> bool:
        """Each tenant that is kept warm has a token, or it is known why not."""
        return all(source.token_now() or source.failure for source in self._warm)

    def report(self, name: str, now: tokens.Instant) -> TenantReport:
        """One tenant's state."""
        return tenant_report(name, self._tenant_sources[name], self._pools.get(name), self._tallies[name], now)

    def reports(self, now: tokens.Instant) -> tuple[TenantReport, ...]:
        """The state of each, in the order of the files."""
        return tuple(self.report(name, now) for name in self._tallies)

    async def refresh(self, name: str, since: tokens.Instant | None = None) -> TenantReport:
        """Gets a tenant a new token now, whatever the pause after a failure, ``MOST_BY_HAND`` times a minute.

        :param since: when that was wanted, if not just now; a token that another process has asked for since will do
        :raises UnknownTenant: no tenant has this name
        :raises TokenError: there is no new token
        """
        sources = self._tenant_sources.get(name)
        if sources is None:
            raise UnknownTenant("No tenant of this name is configured.")
        wait = self._by_hand.setdefault(name, Allowance(MOST_BY_HAND, 60.0)).take(self._clock().elapsed)
        if wait:
            message = f"Tenant {name}: it was refreshed by hand too often; that can be done again in {ceil(wait)} s."
            raise TokenUnavailable(message, error="too_often", retry_after=wait)
        for source in sources:
            source.forgive()
        wanted = since or self._clock()
        await asyncio.gather(*(source.renew(wanted) for source in sources))
        return self.report(name, self._clock())

    async def wind_down(self) -> None:
        """From now on a token is asked for only where a request in flight waits for it."""
        await self.keeper.close()
        for source in (*self._sources.values(), *self._retired):
            source.wind_down()

    async def close(self) -> None:
        """Asks for nothing any more; a token request is waited for whose answer may hold the only refresh token."""
        await self.wind_down()
        await asyncio.gather(*(source.close() for source in (*self._sources.values(), *self._retired)))
        self.close_connections()
        await asyncio.gather(*(guests.close() for guests in self._guests.values()))

    def close_connections(self) -> None:
        """Closes connections to upstreams, those in use once they are not."""
        for upstream in self._upstreams.values():
            upstream.close()

    def close_replaced(self) -> None:
        """Closes the connections of rules that count no longer, those in use once they are not."""
        for upstream in self._replaced:
            upstream.close()
        self._replaced.clear()

    # --- from one configuration to the next ---

    async def rules(self, settings: Settings, clients: Mapping[str, Sequence[Client]]) -> Rules:
        """What requests are judged and routed by from now on; what is unchanged is carried over, but for failures:
        what caused them may be mended.

        Requests have their turn between every few tenants, still by the rules of before: ``close_replaced`` comes
        once they count no longer.

        :param clients: by the tenant's name
        """
        tallies = {name: self._tallies.get(name) or Tally() for name in settings.tenants}
        sources: dict[str, TokenSource] = {}
        warm: dict[TokenSource, bool] = {}
        members: dict[str, list[TokenSource]] = {}
        urls: set[BaseUrl] = set()
        before = self._tenants_to_compare(settings)
        async for tenant in _in_turns(settings.tenants.values()):
            own = members[tenant.name] = []
            for client in clients[tenant.name]:
                source = sources.get(client.key)
                if source is None:
                    source = sources[client.key] = self._sources.get(client.key) or self._source(client)
                    source.take_over(client, [tallies[tenant.name]], tenant.refresh_ahead)
                else:
                    source.tallies.append(tallies[tenant.name])  # tenants of one client share its token
                own.append(source)
                warm[source] = tenant.keep_warm or warm.get(source, False)
                if before is None or before.get(tenant.name) != tenant:
                    source.forgive()
            urls.update((tenant.api_url, tenant.login_url, tenant.webmessaging_url, tenant.cdn_url))
        gone = [source for key, source in self._sources.items() if key not in sources]
        self._retired = [source for source in (*self._retired, *gone) if source.busy]
        self._tallies, self._sources, self._tenant_sources = tallies, sources, members
        self._by_hand = {name: allowance for name, allowance in self._by_hand.items() if name in members}
        self._pools = {name: TokenPool(own, self._clock) for name, own in members.items() if len(own) > 1}
        self._replaced += self._upstreams.values()
        self._upstreams = self._connect(settings, urls)
        self._guests = self._remember_guests(settings)
        tenants = {}
        async for tenant in _in_turns(settings.tenants.values()):
            tenants[tenant.name.encode("ascii")] = self._tenant(tenant, settings)
        self.keeper.keep(warm.items())
        self._warm = [source for source, keep in warm.items() if keep]
        default = settings.routing.default_tenant
        return Rules(
            callers=access.callers(
                settings.listen.host,
                settings.access.allowed_hosts,
                settings.access.allowed_origins,
                self._keys(settings),
            ),
            tenants=tenants,
            default_tenant=None if default is None else default.encode("ascii"),
            tenant_header=settings.routing.tenant_header.lower().encode("ascii"),
            bounds=parts.bounds(settings.limits),
        )

    def _tenants_to_compare(self, settings: Settings) -> Mapping[str, TenantSettings] | None:
        """Those of before, of whom only the changed are forgiven; None where all are."""
        before, self._settings = self._settings, settings
        if before is None or _way_to_logins(before) != _way_to_logins(settings):
            return None
        return before.tenants if self._forgiving.take(self._clock().elapsed) else None

    def _keys(self, settings: Settings) -> list[tuple[str, access.Caller]]:
        keys = settings.access.caller_keys
        self.callers = {key.name: self.callers.get(key.name) or CallerTally() for key in keys}
        limits = settings.limits
        most = limits.max_requests_per_caller, limits.max_websockets_per_caller

        def caller(key: CallerKeySettings) -> access.Caller:
            tenants = None if key.tenants is None else frozenset(name.encode("ascii") for name in key.tenants)
            return access.Caller(key.name, self.callers[key.name], *most, tenants)

        return [(key.key.reveal(), caller(key)) for key in keys]

    def _source(self, client: Client) -> TokenSource:
        observe = None if self._tracing is None else self._tracing.token_request
        line = parts.supply(self._store, self._endpoint, client, self._clock)
        supply: Callable[[Asked], Supply] = line
        if self._supervision is not None and client.grant == "refresh_token":
            supply = partial(RemoteLine, client, self._supervision, line)
        source = TokenSource(supply, clock=self._clock, observe=observe)
        for before in self._tenant_sources.get(client.tenant, ()):
            if client.is_another_proof_of(before.client):
                source.inherit(before)
        return source

    def _remember_guests(self, settings: Settings) -> dict[str, Guests]:
        """Those of each tenant that wants it; what is remembered stays while the tenant and its API do."""
        known = {}
        for tenant in settings.tenants.values():
            if tenant.guest_refresh:
                api = GuestApi(self._endpoint, tenant.name, str(tenant.api_url))
                kept = self._guests.pop(tenant.name, None)
                if kept is not None and kept.api != api:
                    kept.end()
                    kept = None
                known[tenant.name] = kept or self._new_guests(api)
                known[tenant.name].refresh_ahead = tenant.refresh_ahead
        for gone in self._guests.values():
            gone.end()
        return known

    def _new_guests(self, api: GuestApi) -> Guests:
        tally = self._tallies[api.tenant]
        if self._supervision is None:
            return Guests(api, tally, clock=self._clock)
        return Guests(api, tally, clock=self._clock, tell=self._supervision.tell)

    def take_guest(self, news: GuestNews) -> None:
        """Remembers or forgets a guest as another process tells."""
        guests = self._guests.get(news.tenant)
        if guests is not None:
            guests.take(news)

    def _connect(self, settings: Settings, urls: Iterable[BaseUrl]) -> dict[BaseUrl, Upstream]:
        tls, within, detours = self._endpoint.tls, settings.limits.connect_timeout, settings.upstream.detours
        return {
            url: Upstream(url, tls, connect_timeout=within, proxy=detours.to(url.host, url.port), clock=elapsed)
            for url in urls
        }

    def _tenant(self, tenant: TenantSettings, settings: Settings) -> Tenant:
        return Tenant(
            name=tenant.name,
            tokens=self._pools.get(tenant.name) or self._tenant_sources[tenant.name][0],
            pool=self._pools.get(tenant.name),
            guests=self._guests.get(tenant.name),
            tally=self._tallies[tenant.name],
            api=self._upstreams[tenant.api_url],
            login=self._upstreams[tenant.login_url],
            webmessaging=self._upstreams[tenant.webmessaging_url],
            cdn=self._upstreams[tenant.cdn_url],
            policy=parts.policy(tenant),
            most_at_once=settings.limits.max_requests_per_tenant,
            fill=tenant.authorization == "fill",
        )

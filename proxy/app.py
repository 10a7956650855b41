"""The program: builds the parts from the settings, joins them, starts, reloads and drains them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proxy import __version__
from proxy.admin.server import AdminServer, ServerOptions
from proxy.core import access, tokens
from proxy.core.grants import Client, Code
from proxy.core.organization import Told
from proxy.core.report import CallerTally, ProxyReport, RequestRecord, Tally, TenantReport
from proxy.core.urls import BaseUrl, bracketed
from proxy.errors import ConfigurationError, UnknownTenant
from proxy.forward.handler import Forwarder
from proxy.forward.journal import Journal
from proxy.forward.shortcut import Shortcut
from proxy.forward.tenant import Bounds, Rules, Tenant, Timing
from proxy.oauth.clock import Clock, system_clock
from proxy.oauth.endpoint import GuestApi, TokenEndpoint
from proxy.oauth.guests import Guests
from proxy.oauth.keeper import Keeper
from proxy.oauth.login import Registrar
from proxy.oauth.organization import OrganizationApi
from proxy.oauth.pool import TokenPool, tenant_report
from proxy.oauth.source import TokenSource
from proxy.oauth.store import TokenStore
from proxy.oauth.store.database import StoreNotWritable
from proxy.oauth.store.opening import memory_store, redis_store, sqlite_store
from proxy.process import most_connections
from proxy.settings import CallerKeySettings, LimitsSettings, ListenSettings, Settings, TenantSettings
from proxy.settings.watch import stamps, watch
from proxy.tls import client_context, renewed, server_context
from proxy.traces import Tracing, tracing
from proxy.wire.ports import bind, port_of
from proxy.wire.server import Limits, Listener
from proxy.wire.unix import UnixSocket
from proxy.wire.upstream import Upstream

log = logging.getLogger(__name__)

STARTING = 30.0
"""Seconds after which the start is over, though some tenant still waits for its first token's answer."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Settings to take up, and what was made of their files."""

    settings: Settings
    upstream_tls: ssl.SSLContext
    tls: ssl.SSLContext | None
    """What clients are served with."""
    clients: Mapping[str, Sequence[Client]]
    """By the tenant's name; several for a pool of tokens."""


class Proxy:
    """A proxy for the tenants of some settings.

    :param reread: reads the settings again, for ``reload``; None where they come from no file
    :param journal: takes what is to be told of requests; None: nothing is
    :param clock: what tokens' lives are measured with
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reread: Callable[[], Settings] | None = None,
        journal: Callable[[RequestRecord], None] | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self.settings = settings
        self._reread = reread
        self._told = journal
        self._clock = clock
        self._keeper = Keeper(clock)
        self._reloading = asyncio.Lock()
        self._started_at = time.time()
        self._listening: tuple[str, ...] = ()
        self._draining = False
        self._started = False
        self._tracing: Tracing | None = None
        self._warm: list[TokenSource] = []
        self._sources: dict[str, TokenSource] = {}
        self._retired: list[TokenSource] = []
        self._pools: dict[str, TokenPool] = {}
        self._tallies: dict[str, Tally] = {}
        self._callers: dict[str, CallerTally] = {}
        self._upstreams: dict[BaseUrl, Upstream] = {}
        self._unix: UnixSocket | None = None
        self._guests: dict[str, Guests] = {}
        self._admin: AdminServer | None = None
        self.admin_url = ""

    # --- life ---

    async def start(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Opens the store and both ports, and begins to keep tokens.

        :param sockets: where a worker accepts; its supervisor has opened them, and has the admin port
        :raises ConfigurationError: the store can't be used
        :raises OSError: an address is taken or not ours
        """
        settings = self.settings
        self._store = await open_store(settings, self._clock)
        self._endpoint = token_endpoint(settings)
        self._tracing = tracing(os.environ)
        self._forwarder = Forwarder(
            self._build(settings, clients_of(settings)), _timing(settings), self._journal(settings), self._tracing
        )
        # What [listen] says counts until the end; only the content of its files may change.
        self._listen_settings = settings.listen
        tls = _server_tls(settings.listen)
        self._tls = None if tls is None else renewed(tls)
        self._listener = Listener(
            self._forwarder.serve,
            self._forwarder.refusal,
            _limits(settings),
            tls=self._tls,
            take_at_once=Shortcut(self._forwarder).take,
            peers=frozenset(settings.listen.unix_socket_users) or None,
        )
        try:
            await (self._open_ports() if sockets is None else self._take(sockets))
        except BaseException:
            await self.drain(0)
            raise
        self._keeper.start()
        if sockets is None:
            watching = watch(lambda: self.settings, await asyncio.to_thread(stamps, settings), self.reload)
            self._watcher = asyncio.get_running_loop().create_task(watching, name="secret file watcher")

    async def _open_ports(self) -> None:
        settings = self.settings
        self._admin = AdminServer(
            self, ServerOptions(settings.admin.host, settings.admin.port, settings.access.allowed_hosts)
        )
        self.admin_url = f"http://{bracketed(settings.admin.host)}:{await self._admin.start()}"
        await self._take(await asyncio.to_thread(self._bind))

    def _bind(self) -> list[socket.socket]:
        listen = self._listen_settings
        if listen.unix_socket is not None:
            self._unix = UnixSocket.open(listen.unix_socket, listen.unix_socket_mode)
        unix = [] if self._unix is None else [self._unix.sock]
        return unix + (bind(listen.host, listen.port) if listen.tcp else [])

    async def _take(self, sockets: Sequence[socket.socket]) -> None:
        await self.accept_on(sockets)
        self._listening = self._listen_settings.urls(port_of(sockets))

    async def accept_on(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts connections on these sockets and on no others."""
        await self._listener.accept_on(sockets)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect, ``unix:`` before the port; empty before the start and after the end."""
        return self._listening

    @property
    def url(self) -> str:
        """Where clients connect, at the port if one is open."""
        return self._listening[-1]

    async def drain(self, patience: float | None = None) -> None:
        """Stops accepting, answers what is in flight, and closes everything.

        A token request under way is waited for besides: its answer may hold the only refresh token there is.

        :param patience: seconds for what is in flight; None: ``limits.drain_timeout``
        """
        self._draining = True
        if self._unix is not None:
            self._unix.remove()
        await self._listener.drain(self.settings.limits.drain_timeout if patience is None else patience)
        self._listening = ()
        if hasattr(self, "_watcher"):
            self._watcher.cancel()
        await self._keeper.close()
        await asyncio.gather(*(source.close() for source in (*self._sources.values(), *self._retired)))
        for upstream in self._upstreams.values():
            upstream.close()
        await asyncio.gather(*(guests.close() for guests in self._guests.values()))
        await self._endpoint.close()
        await self._store.close()
        if self._admin is not None:
            await self._admin.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    # --- what the admin port asks ---

    def report(self) -> ProxyReport:
        """The whole state now."""
        now = self._clock()
        return ProxyReport(
            version=__version__,
            started_at=self._started_at,
            listening=() if self._draining else self._listening,
            draining=self._draining,
            started=self._has_started(now),
            client_connections=len(self._listener.connections),
            upstream_connections=sum(upstream.connections for upstream in self._upstreams.values()),
            refused=dict(self._forwarder.refused),
            callers=self._callers,
            tenants=tuple(self._report(name, now) for name in self.settings.tenants),
        )

    async def survey(self) -> ProxyReport:
        """The same, for the admin port."""
        return self.report()

    async def refresh(self, name: str) -> TenantReport:
        """Gets a tenant a new token now, whatever the pause after a failure.

        :raises UnknownTenant: no tenant has this name
        :raises TokenError: there is no new token
        """
        sources = self._tenant_sources.get(name)
        if sources is None:
            raise UnknownTenant("No tenant of this name is configured.")
        for source in sources:
            source.forgive()
        await asyncio.gather(*(source.refresh() for source in sources))
        return self._report(name, self._clock())

    def _has_started(self, now: tokens.Instant) -> bool:
        if not self._started and self._listening:
            late = now.wall - self._started_at > STARTING
            self._started = late or all(source.token_now() or source.failure for source in self._warm)
        return self._started

    def _report(self, name: str, now: tokens.Instant) -> TenantReport:
        return tenant_report(name, self._tenant_sources[name], self._pools.get(name), self._tallies[name], now)

    # --- settings and what is built from them ---

    async def reload(self) -> list[str]:
        """Takes up the configuration anew: all of it, or nothing.

        Tokens whose client is unchanged stay; failures are forgotten; requests in flight end as they began.

        :return: the problems if it can't be used; then everything stays as it was
        """
        reread = self._reread
        if reread is None:
            return ["This proxy was not started from a configuration file."]
        async with self._reloading:
            try:
                self.adopt(await asyncio.to_thread(lambda: self.prepare(reread())))
            except (ConfigurationError, OSError) as error:
                problems = error.problems if isinstance(error, ConfigurationError) else [str(error)]
                for problem in problems:
                    log.error(
                        "configuration not reloaded, the old one stays: %s",
                        problem,
                        extra={"event": "configuration.refused"},
                    )
                return problems
            return []

    def prepare(self, settings: Settings) -> Prepared:
        """All of a reload that takes long or can fail; for a thread of its own.

        :raises OSError: a file of these settings can't be used
        """
        upstream_tls, tls = client_context(settings.upstream.ca_file), _server_tls(self._listen_settings)
        return Prepared(settings, upstream_tls, tls, clients_of(settings))

    def adopt(self, prepared: Prepared) -> None:
        """Takes up prepared settings, for every request that begins from now on."""
        settings = prepared.settings
        if self._tls is not None and prepared.tls is not None:
            self._tls.current = prepared.tls
        if _at_start_only(settings) != _at_start_only(self.settings):
            log.warning(
                "listen, admin and store take effect at the next start",
                extra={"event": "configuration.needs_restart"},
            )
        self.settings = settings
        self._endpoint.tls = prepared.upstream_tls
        self._endpoint.connect_timeout = settings.limits.connect_timeout
        self._endpoint.detours = settings.upstream.detours
        if self._admin is not None:
            self._admin.allow_hosts(settings.access.allowed_hosts)
        for upstream in self._upstreams.values():
            upstream.close()
        self._forwarder.rules = self._build(settings, prepared.clients)
        self._forwarder.timing = _timing(settings)
        self._forwarder.journal = self._journal(settings)
        self._listener.limits = _limits(settings)
        log.info("configuration reloaded: %d tenants", len(settings.tenants), extra={"event": "configuration.reloaded"})

    def _build(self, settings: Settings, clients: Mapping[str, Sequence[Client]]) -> Rules:
        self._tallies = {name: self._tallies.get(name) or Tally() for name in settings.tenants}
        sources: dict[str, TokenSource] = {}
        warm: dict[TokenSource, bool] = {}
        self._tenant_sources: dict[str, list[TokenSource]] = {}
        for tenant in settings.tenants.values():
            tally = self._tallies[tenant.name]
            members = self._tenant_sources[tenant.name] = []
            for client in clients[tenant.name]:
                source = sources.get(client.key)
                if source is None:
                    source = sources[client.key] = self._sources.get(client.key) or self._source(client, tenant)
                    source.take_over(client, [tally], tenant.refresh_ahead)
                else:
                    source.tallies.append(tally)  # tenants of one client share its token
                members.append(source)
                warm[source] = tenant.keep_warm or warm.get(source, False)
        self._pools = {
            name: TokenPool(members, self._clock) for name, members in self._tenant_sources.items() if len(members) > 1
        }
        gone = [source for key, source in self._sources.items() if key not in sources]
        self._retired = [source for source in (*self._retired, *gone) if source.busy]
        self._sources = sources
        self._keeper.keep(warm.items())
        self._warm = [source for source, keep in warm.items() if keep]
        self._upstreams = self._connect(settings)
        self._guests = self._remember_guests(settings)
        default = settings.routing.default_tenant
        return Rules(
            callers=access.callers(
                settings.listen.host,
                settings.access.allowed_hosts,
                settings.access.allowed_origins,
                self._keys(settings),
            ),
            tenants={name.encode("ascii"): self._tenant(tenant) for name, tenant in settings.tenants.items()},
            default_tenant=None if default is None else default.encode("ascii"),
            tenant_header=settings.routing.tenant_header.lower().encode("ascii"),
            bounds=_bounds(settings.limits),
        )

    def _keys(self, settings: Settings) -> list[tuple[str, access.Caller]]:
        keys = settings.access.caller_keys
        self._callers = {key.name: self._callers.get(key.name) or CallerTally() for key in keys}
        most = settings.limits.max_requests_per_caller

        def caller(key: CallerKeySettings) -> access.Caller:
            tenants = None if key.tenants is None else frozenset(name.encode("ascii") for name in key.tenants)
            return access.Caller(key.name, self._callers[key.name], most, tenants)

        return [(key.key.reveal(), caller(key)) for key in keys]

    def _source(self, client: Client, tenant: TenantSettings) -> TokenSource:
        observe = None if self._tracing is None else self._tracing.token_request
        confirmation = organization_api(self._endpoint, tenant)
        return TokenSource(
            client, self._endpoint, self._store, confirmation=confirmation, clock=self._clock, observe=observe
        )

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
                known[tenant.name] = kept or Guests(api, self._tallies[tenant.name], clock=self._clock)
                known[tenant.name].refresh_ahead = tenant.refresh_ahead
        for gone in self._guests.values():
            gone.end()
        return known

    def _connect(self, settings: Settings) -> dict[BaseUrl, Upstream]:
        urls = {
            url
            for tenant in settings.tenants.values()
            for url in (tenant.api_url, tenant.login_url, tenant.webmessaging_url, tenant.cdn_url)
        }
        tls, within, detours = self._endpoint.tls, settings.limits.connect_timeout, settings.upstream.detours
        return {url: Upstream(url, tls, connect_timeout=within, proxy=detours.to(url.host, url.port)) for url in urls}

    def _tenant(self, tenant: TenantSettings) -> Tenant:
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
            policy=access.Policy(
                tuple(access.parse_rule(rule) for rule in tenant.allow),
                tuple(access.parse_rule(rule) for rule in tenant.deny),
                observe=tenant.policy == "observe",
            ),
            most_at_once=self.settings.limits.max_requests_per_tenant,
            fill=tenant.authorization == "fill",
        )

    def _journal(self, settings: Settings) -> Journal | None:
        if self._told is None or settings.log.access == "none":
            return None
        return Journal(self._told, everything=settings.log.access == "all", share=settings.log.access_share)


def clients_of(settings: Settings) -> Mapping[str, Sequence[Client]]:
    """By the tenant's name: as many as its tokens."""
    return {
        tenant.name: [client_of(tenant, member) for member in range(tenant.token_pool_size)]
        for tenant in settings.tenants.values()
    }


def _server_tls(listen: ListenSettings) -> ssl.SSLContext | None:
    """What clients are served with, read from the files as they are now; None without TLS."""
    if listen.tls_certificate is None or listen.tls_key is None:
        return None
    return server_context(listen.tls_certificate, listen.tls_key, listen.client_ca)


def client_of(tenant: TenantSettings, member: int = 0) -> Client:
    """How a tenant's token is asked for.

    :param member: of its pool
    """
    return Client(
        tenant=tenant.name,
        org_id=tenant.org_id,
        token_url=f"{tenant.login_url}/oauth/token",
        client_id=tenant.client_id,
        client_secret=tenant.client_secret,
        client_auth=tenant.client_auth,
        grant=tenant.grant,
        refresh_token=tenant.refresh_token,
        fallback_grant=tenant.fallback_grant,
        signing_key=tenant.signing_key,
        assertion=tenant.assertion,
        subject=tenant.subject,
        audience=tenant.audience,
        scope=tenant.scope,
        resource_server=tenant.resource_server,
        parameters=tenant.token_parameters,
        headers=tenant.token_headers,
        member=member,
    )


def token_source(
    store: TokenStore, endpoint: TokenEndpoint, tenant: TenantSettings, clock: Clock = system_clock
) -> TokenSource:
    """A source of a tenant's tokens outside a proxy, which asks for no confirmation of ``org_id``; to be closed."""
    client = client_of(tenant)
    return TokenSource(client, endpoint, store, clock=clock)


async def log_in(
    store: TokenStore, endpoint: TokenEndpoint, tenant: TenantSettings, code: Code, clock: Clock = system_clock
) -> Told:
    """Redeems a code for a tenant, and keeps the refresh token; whose it is, as far as the API tells."""
    return await Registrar(store, endpoint, organization_api(endpoint, tenant), clock).register(client_of(tenant), code)


def organization_api(endpoint: TokenEndpoint, tenant: TenantSettings) -> OrganizationApi:
    """What tells the organization of a tenant's tokens."""
    return OrganizationApi(endpoint, tenant.name, str(tenant.api_url))


def _at_start_only(settings: Settings) -> tuple[object, ...]:
    return settings.listen, settings.admin, settings.store, settings.encryption_keys


async def open_store(settings: Settings, clock: Clock = system_clock) -> TokenStore:
    """The store that the settings name; the caller closes it.

    :raises ConfigurationError: it can't be used
    """
    place, keys = settings.store, settings.encryption_keys
    if place.url is not None:
        return await redis_store(place.url, keys)
    if place.path is None:
        return memory_store(lambda: clock().wall)
    try:
        return await sqlite_store(place.path, keys)
    except StoreNotWritable:
        if place.chosen or any(client_of(tenant).grant == "refresh_token" for tenant in settings.tenants.values()):
            raise
    log.warning(
        "%s can't be written: tokens are kept in memory and end with this process. Give store.url a place that can, "
        'or "memory:" if that is as it should be.',
        place.path,
        extra={"event": "store.memory"},
    )
    return memory_store(lambda: clock().wall)


def token_endpoint(settings: Settings) -> TokenEndpoint:
    """A client of token endpoints that trusts what the settings trust; the caller closes it."""
    upstream = settings.upstream
    return TokenEndpoint(client_context(upstream.ca_file), settings.limits.connect_timeout, upstream.detours)


def _timing(settings: Settings) -> Timing:
    limits = settings.limits
    return Timing(
        request_timeout=limits.request_timeout,
        idle_timeout=limits.idle_timeout,
        body_timeout=limits.body_timeout,
        tunnel_idle_timeout=limits.tunnel_idle_timeout,
        retry_after_max=limits.retry_after_max,
        replay_buffer=limits.replay_buffer,
        max_header_bytes=limits.max_header_bytes,
        longest_body=limits.max_body_bytes or sys.maxsize,
    )


def _bounds(limits: LimitsSettings) -> Bounds:
    return Bounds(limits.max_request_line_bytes, limits.max_header_count, limits.max_body_bytes or sys.maxsize)


def _limits(settings: Settings) -> Limits:
    limits = settings.limits
    return Limits(
        max_header_bytes=limits.max_header_bytes,
        head_timeout=limits.request_timeout,
        idle_timeout=limits.idle_timeout,
        max_connections=most_connections(limits.max_connections),
        max_requests=limits.max_requests_per_connection,
        max_pipelined=limits.max_pipelined_requests,
    )

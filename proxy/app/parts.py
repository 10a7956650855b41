"""What the settings say, made into the parts that act on it."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from proxy.core import access
from proxy.core.grants import Client, Code
from proxy.core.organization import Told
from proxy.errors import ConfigurationError
from proxy.forward.tenant import Bounds, Timing
from proxy.oauth.clock import Clock, system_clock
from proxy.oauth.endpoint import TokenEndpoint
from proxy.oauth.line import Asked, Line
from proxy.oauth.login import Registrar
from proxy.oauth.organization import OrganizationApi
from proxy.oauth.source import TokenSource
from proxy.oauth.store import TokenStore
from proxy.oauth.store.database import StoreNotWritable
from proxy.oauth.store.opening import memory_store, redis_store, sqlite_store
from proxy.process import most_connections
from proxy.settings import LimitsSettings, ListenSettings, Settings, TenantSettings
from proxy.tls import client_context, server_context
from proxy.wire.server import Limits

log = logging.getLogger(__name__)


def clients(settings: Settings) -> Mapping[str, Sequence[Client]]:
    """By the tenant's name."""
    return {tenant.name: clients_of(tenant) for tenant in settings.tenants.values()}


def clients_of(tenant: TenantSettings) -> Sequence[Client]:
    """As many as its tokens."""
    return [client_of(tenant, member) for member in range(tenant.token_pool_size)]


def server_tls(listen: ListenSettings) -> ssl.SSLContext | None:
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
        api_url=str(tenant.api_url),
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
    return TokenSource(lambda asked: Line(client, endpoint, store, asked=asked, clock=clock), clock=clock)


def supply(store: TokenStore, endpoint: TokenEndpoint, client: Client, clock: Clock) -> Callable[[Asked], Line]:
    """Makes the line of one of a tenant's tokens, whose ``org_id`` is confirmed."""
    confirmation = OrganizationApi(endpoint)
    return lambda asked: Line(client, endpoint, store, confirmation=confirmation, asked=asked, clock=clock)


async def log_in(
    store: TokenStore, endpoint: TokenEndpoint, tenant: TenantSettings, code: Code, clock: Clock = system_clock
) -> Told:
    """Redeems a code for a tenant, and keeps the refresh token; whose it is, as far as the API tells."""
    return await Registrar(store, endpoint, OrganizationApi(endpoint), clock).register(client_of(tenant), code)


async def told(endpoint: TokenEndpoint, tenant: TenantSettings, access_token: str) -> Told:
    """What the API says of a tenant's token.

    :raises TokenError: it says nothing
    """
    return await OrganizationApi(endpoint).told(client_of(tenant), access_token)


async def open_store(settings: Settings, clock: Clock = system_clock) -> TokenStore:
    """The store that the settings name; the caller closes it.

    :raises ConfigurationError: it can't be used
    """
    try:
        return await _open_store(settings, clock)
    except ConfigurationError as error:
        raise ConfigurationError([f"{settings.file}: {problem}" for problem in error.problems]) from None


async def _open_store(settings: Settings, clock: Clock) -> TokenStore:
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


def renew(endpoint: TokenEndpoint, settings: Settings, tls: ssl.SSLContext) -> None:
    """Has it ask as these settings say.

    :param tls: made of them
    """
    endpoint.tls = tls
    endpoint.connect_timeout = settings.limits.connect_timeout
    endpoint.detours = settings.upstream.detours


def timing(settings: Settings) -> Timing:
    """The limits of an exchange."""
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


def bounds(limits: LimitsSettings) -> Bounds:
    """The limits of a request."""
    return Bounds(limits.max_request_line_bytes, limits.max_header_count, limits.max_body_bytes or sys.maxsize)


def limits(settings: Settings) -> Limits:
    """The limits of a connection."""
    limits = settings.limits
    return Limits(
        max_header_bytes=limits.max_header_bytes,
        head_timeout=limits.request_timeout,
        idle_timeout=limits.idle_timeout,
        max_connections=most_connections(limits.max_connections),
        max_requests=limits.max_requests_per_connection,
        max_pipelined=limits.max_pipelined_requests,
    )


def policy(tenant: TenantSettings) -> access.Policy:
    """What a tenant's callers may ask for."""
    return _policy(tuple(tenant.allow), tuple(tenant.deny), observe=tenant.policy == "observe")


@lru_cache(maxsize=256)  # thousands of tenants have the same
def _policy(allow: tuple[str, ...], deny: tuple[str, ...], *, observe: bool) -> access.Policy:
    return access.Policy(tuple(map(access.parse_rule, allow)), tuple(map(access.parse_rule, deny)), observe)

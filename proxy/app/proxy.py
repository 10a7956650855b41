"""The program as a whole: starts, is reported on, reloaded and drained."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy import __version__
from proxy.admin.server import AdminServer, ServerOptions
from proxy.app import parts
from proxy.app.lines import Supervision
from proxy.app.tenants import Tenants
from proxy.core import tokens
from proxy.core.grants import Client
from proxy.core.guests import GuestNews
from proxy.core.report import ProxyReport, RequestRecord, TenantReport
from proxy.core.urls import bracketed
from proxy.forward.handler import Forwarder
from proxy.forward.journal import Journal
from proxy.forward.shortcut import Shortcut
from proxy.oauth.clock import Clock, system_clock
from proxy.settings import Settings
from proxy.settings.watch import Reloads
from proxy.tls import client_context, renewed
from proxy.traces import Tracing, tracing
from proxy.wire.ports import bind, port_of
from proxy.wire.server import Listener
from proxy.wire.unix import UnixSocket

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
    :param supervision: of the process that has the refresh tokens and tells others of guests; None: there is none
    :param clock: what tokens' lives are measured with
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reread: Callable[[], Settings] | None = None,
        journal: Callable[[RequestRecord], None] | None = None,
        supervision: Supervision | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self.settings = settings
        self._reloads = None if reread is None else Reloads(lambda: self.settings, reread, self._take_up)
        self._told = journal
        self._supervision = supervision
        self._clock = clock
        self._started_at = time.time()
        self._listening: tuple[str, ...] = ()
        self._draining = False
        self._started = False
        self._tracing: Tracing | None = None
        self._unix: UnixSocket | None = None
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
        self._store = await parts.open_store(settings, self._clock)
        self._endpoint = parts.token_endpoint(settings)
        self._tracing = tracing(os.environ)
        self._tenants = Tenants(self._store, self._endpoint, self._supervision, self._tracing, self._clock)
        self._forwarder = Forwarder(
            await self._tenants.rules(settings, parts.clients(settings)),
            parts.timing(settings),
            self._journal(settings),
            self._tracing,
        )
        tls = parts.server_tls(settings.listen)
        self._tls = None if tls is None else renewed(tls)
        self._listener = Listener(
            self._forwarder.serve,
            self._forwarder.refusal,
            parts.limits(settings),
            tls=self._tls,
            take_at_once=Shortcut(self._forwarder).take,
            peers=frozenset(settings.listen.unix_socket_users) or None,
        )
        try:
            await (self._open_ports() if sockets is None else self._take(sockets))
        except BaseException:
            await self.drain(0)
            raise
        self._tenants.keeper.start()
        if self._reloads is not None:
            watching = self._reloads.watch()
            self._watcher = asyncio.get_running_loop().create_task(watching, name="secret file watcher")

    async def _open_ports(self) -> None:
        settings = self.settings
        self._admin = AdminServer(
            self, ServerOptions(settings.admin.host, settings.admin.port, settings.access.allowed_hosts)
        )
        self.admin_url = f"http://{bracketed(settings.admin.host)}:{await self._admin.start()}"
        await self._take(await asyncio.to_thread(self._bind))

    def _bind(self) -> list[socket.socket]:
        listen = self.settings.listen
        if listen.unix_socket is not None:
            self._unix = UnixSocket.open(listen.unix_socket, listen.unix_socket_mode)
        unix = [] if self._unix is None else [self._unix.sock]
        return unix + (bind(listen.host, listen.port) if listen.tcp else [])

    async def _take(self, sockets: Sequence[socket.socket]) -> None:
        await self.accept_on(sockets)
        self._listening = self.settings.listen.urls(port_of(sockets))

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

        Tokens are asked for only where what is in flight needs them, and then not at all; a request under way whose
        answer may hold the only refresh token is waited for besides.

        :param patience: seconds for what is in flight; None: ``limits.drain_timeout``
        """
        self._draining = self._listener.draining = True  # from here on every answer says that it is the last
        if self._reloads is not None:
            self._reloads.end()
        if self._unix is not None:
            self._unix.remove()
        await self._tenants.wind_down()
        await self._listener.drain(self.settings.limits.drain_timeout if patience is None else patience)
        self._listening = ()
        if hasattr(self, "_watcher"):
            self._watcher.cancel()
        await self._tenants.close()
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
            upstream_connections=self._tenants.upstream_connections,
            refused=dict(self._forwarder.refused),
            callers=self._tenants.callers,
            tenants=self._tenants.reports(now),
            needs_restart=self.needs_restart,
        )

    async def survey(self) -> ProxyReport:
        """The same, for the admin port."""
        return self.report()

    async def refresh(self, name: str, since: tokens.Instant | None = None) -> TenantReport:
        """Gets a tenant a new token now, whatever the pause after a failure.

        :param since: when that was wanted, if not just now
        :raises UnknownTenant: no tenant has this name
        :raises TokenError: there is no new token
        """
        return await self._tenants.refresh(name, since)

    def take_guests(self, news: Iterable[GuestNews]) -> None:
        """Remembers or forgets guests as other processes tell."""
        for one in news:
            self._tenants.take_guest(one)

    def _has_started(self, now: tokens.Instant) -> bool:
        if not self._started and self._listening:
            late = now.wall - self._started_at > STARTING
            self._started = late or self._tenants.known
        return self._started

    # --- from one configuration to the next ---

    async def reload(self) -> list[str]:
        """Takes up the configuration anew: all of it, or nothing.

        Tokens whose client is unchanged stay; failures are forgotten; requests in flight end as they began.

        :return: the problems if it can't be used; then everything stays as it was
        """
        if self._reloads is None:
            return ["This proxy was not started from a configuration file."]
        return await self._reloads.reload()

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """The sections of the configuration that have changed and count from the next start on."""
        return () if self._reloads is None else self._reloads.needs_restart

    async def _take_up(self, settings: Settings) -> None:
        await self.adopt(await asyncio.to_thread(self.prepare, settings))

    def prepare(self, settings: Settings) -> Prepared:
        """All of a reload that takes long or can fail; for a thread of its own.

        :raises OSError: a file of these settings can't be used
        """
        upstream_tls, tls = client_context(settings.upstream.ca_file), parts.server_tls(settings.listen)
        return Prepared(settings, upstream_tls, tls, parts.clients(settings))

    async def adopt(self, prepared: Prepared) -> None:
        """Takes up prepared settings; requests that begin afterwards follow them.

        What counts from the start on is as it was: ``settings.beginning``.
        """
        settings = prepared.settings
        if self._tls is not None and prepared.tls is not None:
            self._tls.current = prepared.tls
        self.settings = settings
        parts.renew(self._endpoint, settings, prepared.upstream_tls)
        if self._admin is not None:
            self._admin.allow_hosts(settings.access.allowed_hosts)
        self._forwarder.rules = await self._tenants.rules(settings, prepared.clients)
        self._tenants.close_replaced()
        self._forwarder.timing = parts.timing(settings)
        self._forwarder.journal = self._journal(settings)
        self._listener.limits = parts.limits(settings)
        log.info("configuration reloaded: %d tenants", len(settings.tenants), extra={"event": "configuration.reloaded"})

    def _journal(self, settings: Settings) -> Journal | None:
        if self._told is None or settings.log.access == "none":
            return None
        return Journal(self._told, everything=settings.log.access == "all", share=settings.log.access_share)

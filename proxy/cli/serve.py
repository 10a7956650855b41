"""The life of one proxy: started, reloaded when told, drained at the end."""

from __future__ import annotations

import errno
import gc
import logging
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from proxy.app import Proxy
from proxy.cli.loop import STOP, Signals
from proxy.core.report import RequestRecord
from proxy.settings import AdminSettings, ListenSettings, Settings, load

log = logging.getLogger(__name__)


async def serve(settings: Settings, file: Path, journal: Callable[[RequestRecord], None] | None = None) -> None:
    """Runs a proxy until a signal says stop, and every request in flight is answered.

    :param file: where the settings come from; SIGHUP reads it again
    :param journal: takes what is to be told of requests
    :raises click.ClickException: a port can't be opened
    """
    signals = Signals(
        reload=True
    )  # first, so that none is missed: what runs as a container's process 1 has no default ones
    proxy = Proxy(settings, reread=partial(load, file), journal=journal)
    try:
        await proxy.start()
    except OSError as error:
        raise click.ClickException(_not_opened(proxy, error)) from None
    for url in proxy.urls:
        click.echo(f"listening on {url}")
    click.echo(f"admin on {proxy.admin_url}")
    # Modules, settings and routes live as long as the process: frozen, no collection walks them again.
    gc.collect()
    gc.freeze()
    while await signals.next() not in STOP:
        await proxy.reload()
    log.info("stopping once the requests in flight are answered", extra={"event": "proxy.stopping"})
    await proxy.drain()


def _not_opened(proxy: Proxy, error: OSError) -> str:
    """Why a port can't be opened, as a sentence that names the key to change."""
    settings = proxy.settings
    if settings.listen.unix_socket is not None and error.filename == str(settings.listen.unix_socket):
        return f"listen.unix_socket: can't listen on {error.filename} ({error.strerror})"
    # The admin port is opened first.
    section = "listen" if proxy.admin_url else "admin"
    address: AdminSettings | ListenSettings = settings.listen if proxy.admin_url else settings.admin
    host, port = address.host, address.port
    if isinstance(error, socket.gaierror):
        return f"{section}.host: the name {host} can't be resolved"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{section}.port: another program listens on {host} port {port} already"
        case errno.EADDRNOTAVAIL:
            return f"{section}.host: {host} is no address of this machine"
        case errno.EACCES:
            return f"{section}.port: this user may not open port {port}"
    return f"{section}: can't listen on {host} port {port} ({error.strerror})"

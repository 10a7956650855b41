"""The life of one proxy: started, reloaded when told, drained at the end."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.loop import STOP, Signals
from proxy.core.report import RequestRecord
from proxy.errors import WorkerGone
from proxy.settings import AdminSettings, ListenSettings, Settings, load

if TYPE_CHECKING:
    from proxy.app import Proxy
    from proxy.workers.supervisor import Supervisor

    Program = Proxy | Supervisor
    Build = Callable[[Settings, Signals], Program]

log = logging.getLogger(__name__)


def one_process(file: Path, journal: Callable[[RequestRecord], None] | None = None) -> Build:
    """This process does everything.

    :param file: where the settings come from; SIGHUP reads it again
    :param journal: takes what is to be told of requests
    """
    from proxy.app import Proxy

    return lambda settings, _: Proxy(settings, reread=partial(load, file), journal=journal)


def several(file: Path, workers: int, arguments: Sequence[str]) -> Build:
    """So many processes serve the port, and this one supervises them.

    :param arguments: of ``proxy.cli.worker``
    """
    from proxy.workers.supervisor import Supervisor

    def build(settings: Settings, signals: Signals) -> Supervisor:
        command = [sys.executable, "-m", "proxy.cli.worker", *arguments]
        supervisor = Supervisor(settings, reread=partial(load, file), workers=workers, command=command)
        signals.at_once = supervisor.kill
        return supervisor

    return build


async def serve(settings: Settings, build: Build) -> None:
    """Runs a proxy until a signal says stop, and every request in flight is answered.

    :raises click.ClickException: a port can't be opened, or a worker can't start
    """
    signals = Signals(
        reload=True
    )  # first, so that none is missed: what runs as a container's process 1 has no default ones
    proxy = build(settings, signals)
    try:
        if not await _started(proxy, signals):
            return
    except WorkerGone as error:
        raise click.ClickException(str(error)) from None
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


async def _started(proxy: Program, signals: Signals) -> bool:
    """Whether it started before a signal said stop."""
    loop = asyncio.get_running_loop()
    starting = loop.create_task(proxy.start(), name="start")
    stopping = loop.create_task(signals.stop(), name="stop while starting")
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        starting.cancel()
        await asyncio.wait({starting})
        return False
    stopping.cancel()
    await starting
    return True


def _not_opened(proxy: Program, error: OSError) -> str:
    """Why a port can't be opened, as a sentence that names the key to change."""
    settings = proxy.settings
    if settings.listen.unix_socket is not None and error.filename == str(settings.listen.unix_socket):
        missing = error.errno == errno.ENOENT
        why = f"the folder {settings.listen.unix_socket.parent} does not exist" if missing else error.strerror
        return f"listen.unix_socket: can't listen on {error.filename} ({why})"
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

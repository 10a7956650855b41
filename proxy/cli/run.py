"""``run``: the proxy, from a configuration file, until a signal ends it."""

from __future__ import annotations

import errno
import gc
import logging
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import config_option

if TYPE_CHECKING:
    from proxy.app import Proxy
    from proxy.settings import AdminSettings, ListenSettings

log = logging.getLogger(__name__)


@click.command()
@config_option
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged to stderr.",
)
def run(config: Path, log_level: str) -> None:
    """Run the proxy.

    SIGTERM or Ctrl-C ends it once the requests in flight are answered, a second one at once; SIGHUP reloads
    the configuration.
    """
    from proxy.app import Proxy
    from proxy.cli.logs import log_to_stderr
    from proxy.cli.loop import run_loop
    from proxy.settings import load

    log_to_stderr(log_level)
    settings = load(config)

    async def serve() -> None:
        await _serve(Proxy(settings, reread=partial(load, config)))

    run_loop(serve())


async def _serve(proxy: Proxy) -> None:
    from proxy.cli.loop import STOP, Signals

    signals = Signals()
    try:
        await proxy.start()
    except OSError as error:
        raise click.ClickException(_not_opened(proxy, error)) from None
    click.echo(f"listening on {proxy.url}")
    click.echo(f"admin on {proxy.admin_url}")
    # Modules, settings and routes live as long as the process: frozen, no collection walks them again.
    gc.collect()
    gc.freeze()
    while await signals.next() not in STOP:
        await proxy.reload()
    log.info("stopping once the requests in flight are answered")
    await proxy.drain()


def _not_opened(proxy: Proxy, error: OSError) -> str:
    """Why a port can't be opened, as a sentence that names the key to change."""
    settings = proxy.settings
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

"""``status``: what a running proxy's admin port knows of each tenant, once or as it goes on."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.admin import AdminPort, admin_options, admin_port
from proxy.cli.options import tenant_names

if TYPE_CHECKING:
    from proxy.cli.outlook import Outlook

EVERY = 2.0
"""Seconds between two looks."""

LINE_EVERY = 10.0
"""Seconds between two lines where there is no terminal to draw on."""


@click.command()
@click.argument("tenant", nargs=-1, shell_complete=tenant_names)
@click.option("--watch", is_flag=True, help="Go on showing it, until Ctrl-C.")
@admin_options
@click.pass_context
def status(ctx: click.Context, tenant: tuple[str, ...], watch: bool, config: Path, url: str | None) -> None:
    """Show what a running proxy knows of its tenants.

    Of each TENANT, or of all, those in trouble first: the token's state and life, requests, replays, what is left
    of the rate limit, and what to do about a trouble. Exit code 1 if no proxy answers.
    """
    port = admin_port(ctx, config, url)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # how one stops watching
            _watch(port, tenant)
        return
    from rich.console import Console

    from proxy.cli.outlook import drawing

    Console().print(drawing(_look(port, tenant, None)))


def _look(port: AdminPort, wanted: tuple[str, ...], before: Outlook | None) -> Outlook:
    from proxy.cli.outlook import Outlook

    code, body = port.get("/status.json")
    if code != 200:
        raise click.ClickException(f"{port} answers {code}")
    try:
        return Outlook(json.loads(body), time.monotonic(), wanted, before)
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(f"{port} is no admin port of a genesys-auth-proxy") from None


def _watch(port: AdminPort, wanted: tuple[str, ...]) -> None:
    if not sys.stdout.isatty():
        return _tell(port, wanted)
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from proxy.cli.outlook import drawing

    console = Console()
    seen: Outlook | None = None
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                seen = _look(port, wanted, seen)
                shown = drawing(seen, height=console.height)
            except click.ClickException as error:
                shown = Text(f"{error.message}; trying again", "bold red")
                seen = None
            live.update(shown, refresh=True)
            time.sleep(EVERY)


def _tell(port: AdminPort, wanted: tuple[str, ...]) -> None:
    """A line now and then, and one for each tenant that gets into trouble or out of it."""
    seen = _look(port, wanted, None)
    for tenant in seen.troubled:
        click.echo(f"{tenant.name}: {tenant.trouble}")
    told = 0.0
    while True:
        if time.monotonic() - told >= LINE_EVERY:
            told = time.monotonic()
            click.echo(seen.summary)
        time.sleep(EVERY)
        before, seen = seen, _look(port, wanted, seen)
        for line in seen.news(before):
            click.echo(line)

"""``health``: whether a running proxy answers; a container's HEALTHCHECK."""

from __future__ import annotations

from pathlib import Path

import click

from proxy.cli.admin import admin_options, admin_port


@click.command()
@admin_options
@click.pass_context
def health(ctx: click.Context, config: Path, url: str | None) -> None:
    """Ask a running proxy whether it is alive.

    Exit code 0 if it is, 1 if it isn't.
    """
    port = admin_port(ctx, config, url)
    status, _ = port.get("/healthz")
    if status != 200:
        raise click.ClickException(f"{port} answers {status}")
    click.echo(f"alive on {port}")

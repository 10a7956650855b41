"""``init``: a configuration to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from proxy.cli.options import config_option


@click.command()
@config_option
def init(config: Path) -> None:
    """Write a configuration to begin with; never over one that exists."""
    from proxy.settings import starter

    try:
        with config.open("x", encoding="utf-8") as file:
            file.write(starter())
    except FileExistsError:
        raise click.ClickException(f"{config} exists already, and stays as it is") from None
    except OSError as error:
        raise click.ClickException(f"{config} can't be written ({error.strerror})") from None
    click.echo(f"{config} written. Put in your org's region and client, then: genesys-auth-proxy check")

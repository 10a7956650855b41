"""``schema``: JSON Schema of the configuration."""

from __future__ import annotations

import json

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration."""
    from proxy import settings

    click.echo(json.dumps(settings.schema(), indent=2, ensure_ascii=False))

"""``check``: whether the configuration works: a token for each tenant, and the API called with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import check_files, config_option, permissions_option, tenant_names

if TYPE_CHECKING:
    from rich.table import Table

    from proxy.cli.probe import Finding


@click.command()
@click.argument("tenant", nargs=-1, shell_complete=tenant_names)
@config_option
@permissions_option
@click.pass_context
def check(ctx: click.Context, tenant: tuple[str, ...], config: Path, check_permissions: str) -> None:
    """Check the configuration against Genesys Cloud.

    For each TENANT, or for all, it gets a token, calls the API with it, and compares organization, scope and clocks.
    Exit code 1 if anything is not as it should be.
    """
    import logging

    from rich.console import Console

    from proxy.cli.loop import run_loop
    from proxy.cli.options import tenants_named
    from proxy.cli.probe import look_at
    from proxy.settings import exposed, idle_patterns, load

    settings = load(config)
    for warning in (*check_files(settings, check_permissions), *idle_patterns(settings), *exposed(settings)):
        click.echo(f"warning: {warning}", err=True)
    wanted = tenants_named(settings, tenant)
    # What it warns of is among the findings, and of its next attempt, which is none here.
    logging.getLogger("proxy.oauth.source").setLevel(logging.ERROR)
    console = Console()
    with console.status(f"Asking for {_tenants(len(wanted))}"):
        findings, trouble = run_loop(look_at(settings, wanted))
    console.print(_table(findings))
    failed = [finding for finding in findings if finding.problem is not None]
    for finding in findings:
        if sentence := finding.problem or finding.note:
            click.echo(f"{finding.tenant}: {sentence}")
    if trouble is not None:
        click.echo(f"{settings.file}: store.url: {trouble}")
    if failed:
        click.echo(f"{len(failed)} of {_tenants(len(findings))} failed")
    if failed or trouble is not None:
        ctx.exit(1)


def _table(findings: list[Finding]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Tenant", "Region", "Token", "Organization", "Scope", "Clock", "Result"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(
            Text(finding.tenant),
            Text(finding.upstream),
            "-" if finding.lifetime is None else _duration(finding.lifetime),
            Text(finding.organization or "-"),
            Text(" ".join(finding.scope or ()) or "-"),
            "-" if finding.clock is None else _offset(finding.clock),
            Text("ok", "green") if finding.problem is None else Text("failed", "bold red"),
        )
    return table


def _duration(seconds: float) -> str:
    """Seconds in the largest unit that leaves no small number."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _offset(seconds: float) -> str:
    """How far a clock is off, in whole seconds."""
    return "right" if abs(seconds) < 1 else f"{seconds:+.0f} s"


def _tenants(count: int) -> str:
    return "1 tenant" if count == 1 else f"{count} tenants"

"""``demo``: sandbox, proxy and traffic in one process, and an honest account of what happened."""

from __future__ import annotations

import click

from proxy.cli.options import fault_option


@click.command()
@click.option(
    "--duration",
    type=click.FloatRange(1, 86_400),
    metavar="S",
    default=30,
    show_default=True,
    help="Seconds of traffic.",
)
@fault_option
@click.pass_context
def demo(ctx: click.Context, duration: float, fault: tuple[str, ...]) -> None:
    """Show the proxy at work, with nothing but this machine.

    Two orgs of the sandbox, whose tokens live 10 s; clients that call their API through the proxy; and halfway,
    every token is revoked. Exit code 0 only if no client saw a 401 and nothing failed.
    """
    from proxy.cli.demo.play import play
    from proxy.cli.loop import run_loop

    ctx.exit(run_loop(play(duration, fault)))

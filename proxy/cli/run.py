"""``run``: the proxy, from a configuration file, until a signal ends it."""

from __future__ import annotations

from pathlib import Path

import click

from proxy.cli.options import config_option


@click.command()
@config_option
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    metavar="LEVEL",
    help="What goes to stderr: debug, info (the default), warning or error.",
)
def run(config: Path, log_level: str) -> None:
    """Run the proxy.

    SIGTERM or Ctrl-C ends it once the requests in flight are answered, a second one at once; SIGHUP reloads
    the configuration.
    """
    from proxy.cli.logs import log_to_stderr
    from proxy.cli.loop import run_loop
    from proxy.cli.serve import serve
    from proxy.settings import load

    log_to_stderr(log_level)
    run_loop(serve(load(config), config))

"""``run``: the proxy, from a configuration file, until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import config_option, log_options

if TYPE_CHECKING:
    from proxy.cli.logs import Style


@click.command()
@config_option
@log_options
def run(config: Path, log_level: str, log_format: Style) -> None:
    """Run the proxy.

    SIGTERM or Ctrl-C ends it once the requests in flight are answered, a second one at once; SIGHUP reloads
    the configuration.
    """
    from proxy.cli.logs import start_log
    from proxy.cli.loop import run_loop
    from proxy.cli.serve import serve
    from proxy.settings import load

    settings = load(config)
    log = start_log(log_level, log_format)
    try:
        run_loop(serve(settings, config, log.request))
    finally:
        log.close()

"""``run``: the proxy, from a configuration file, until a signal ends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import check_files, config_option, log_options, permissions_option

if TYPE_CHECKING:
    from proxy.cli.logs import Style


@click.command()
@config_option
@permissions_option
@log_options
def run(config: Path, check_permissions: str, log_level: str, log_format: Style) -> None:
    """Run the proxy.

    SIGTERM or Ctrl-C ends it once the requests in flight are answered, a second one at once; SIGHUP reloads
    the configuration.
    """
    import logging

    from proxy.cli.logs import start_log
    from proxy.cli.loop import run_loop
    from proxy.cli.serve import serve
    from proxy.process import keep_private, raise_open_files
    from proxy.settings import load

    keep_private()
    raise_open_files()
    settings = load(config)
    readable = check_files(settings, check_permissions)
    log = start_log(log_level, log_format)
    for file in readable:
        logging.getLogger(__name__).warning("%s", file, extra={"event": "configuration.readable"})
    try:
        run_loop(serve(settings, config, log.request))
    finally:
        log.close()

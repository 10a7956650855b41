"""``run``: the proxy, from a configuration file, until a signal ends it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import check_files, config_option, log_options, permissions_option

if TYPE_CHECKING:
    from proxy.cli.logs import Style


@click.command()
@config_option
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    metavar="N",
    help="Processes that serve the port, 1 (the default) to 64; about one for each processor.",
)
@permissions_option
@log_options
def run(config: Path, workers: int, check_permissions: str, log_level: str, log_format: Style) -> None:
    """Run the proxy.

    SIGTERM or Ctrl-C ends it once the requests in flight are answered, a second one at once; SIGHUP reloads
    the configuration.
    """
    from proxy.process import hold_hangups

    hold_hangups()  # what follows takes its time
    import logging

    if workers > 1 and os.name != "posix":
        raise click.BadParameter("several processes can't share a port on this system", param_hint="--workers")
    from proxy.cli.logs import start_log
    from proxy.cli.loop import run_loop
    from proxy.cli.serve import one_process, serve, several
    from proxy.process import keep_private, raise_open_files
    from proxy.settings import exposed, idle_patterns, load

    keep_private()
    raise_open_files()
    settings = load(config)
    readable = check_files(settings, check_permissions)
    _check_parser()
    log = start_log(log_level, log_format)
    program = one_process(config, log.request) if workers == 1 else several(config, workers, (log_level, log_format))
    for file in readable:
        logging.getLogger(__name__).warning("%s", file, extra={"event": "configuration.readable"})
    for pattern in idle_patterns(settings):
        logging.getLogger(__name__).warning("%s", pattern, extra={"event": "configuration.idle_pattern"})
    for port in exposed(settings):
        logging.getLogger(__name__).warning("%s", port, extra={"event": "configuration.exposed"})
    try:
        run_loop(serve(settings, program))
    finally:
        log.close()


def _check_parser() -> None:
    """aiohttp reads token endpoints' answers and what comes to the admin port; requests and answers that pass are
    read by ``wire``. It falls back to a slower and laxer parser in Python where its own in C can't be loaded, which
    nobody would notice.

    :raises click.ClickException: it has fallen back, and not because AIOHTTP_NO_EXTENSIONS told it to
    """
    from aiohttp import http_parser

    fallen_back = http_parser.HttpResponseParser is http_parser.HttpResponseParserPy
    if fallen_back and not os.environ.get("AIOHTTP_NO_EXTENSIONS"):
        raise click.ClickException(
            "aiohttp was installed without its C extensions; install its wheel for this platform, or set "
            "AIOHTTP_NO_EXTENSIONS=1 to run with its parser in Python"
        )

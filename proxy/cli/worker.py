"""A worker of ``run --workers``, which its supervisor starts: log level, log format, the channel's descriptor."""

from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING

from proxy.cli.logs import start_log
from proxy.cli.loop import RELOAD, Signals, run_loop
from proxy.errors import ConfigurationError
from proxy.process import keep_private, raise_open_files
from proxy.workers.worker import work

if TYPE_CHECKING:
    from proxy.cli.logs import Style


async def _work(descriptor: int, level: str, style: Style) -> None:
    signals = Signals()
    for number in RELOAD:
        signal.signal(number, signal.SIG_IGN)  # to reload is the supervisor's affair
    log = start_log(level, style)
    try:
        await work(socket.socket(fileno=descriptor), signals.stop, log.request)
    except ConfigurationError as error:
        sys.exit(str(error))
    finally:
        log.close()


def main(level: str, style: Style, descriptor: str) -> None:
    """Serves until the supervisor or a signal says stop."""
    keep_private()
    raise_open_files()
    run_loop(_work(int(descriptor), level, style))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # of a command line that this program made

"""Whether others on the machine can read the files that secrets stand in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


def too_open(files: Iterable[Path]) -> list[str]:
    """A problem for each file that its group or everybody may read or write; on POSIX systems only."""
    if os.name != "posix":
        return []
    return [
        f"{file}: others can read or change the secrets in it (mode {mode:04o}); chmod 600 it, or 400"
        for file in files
        if (mode := _mode(file)) & _OTHERS
    ]


def _mode(file: Path) -> int:
    try:
        return stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return 0  # gone since it was read

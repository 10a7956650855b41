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
        if (mode := _open_mode(file))
    ]


def _open_mode(file: Path) -> int:
    """The file's mode if others can read or write it, 0 if they can't."""
    try:
        found = file.stat()
    except OSError:
        return 0  # gone since it was read
    others = _OTHERS
    if found.st_uid == 0 != os.geteuid() and found.st_gid == os.getegid():
        # Root's file, for our group to read: how Kubernetes gives a secret to a process that is not root (fsGroup).
        others &= ~stat.S_IRGRP
    mode = stat.S_IMODE(found.st_mode)
    return mode if mode & others else 0

"""CPU time of a program and all that it started, as Linux counts it."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """User and system time of a process with its descendants that live, in steps of a clock tick (10 ms).

    :raises ProcessLookupError: there is no such process
    """
    own: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue  # it has ended meanwhile
        # Behind the name, which may hold anything: state, parent, …, utime and stime (proc(5)).
        fields = stat.rpartition(")")[2].split()
        own[int(folder.name)] = (int(fields[11]) + int(fields[12])) * _TICK
        children[int(fields[1])].append(int(folder.name))
    if pid not in own:
        raise ProcessLookupError(f"process {pid} has ended")
    return _sum(pid, own, children)


def _sum(pid: int, own: dict[int, float], children: dict[int, list[int]]) -> float:
    return own[pid] + sum(_sum(child, own, children) for child in children[pid])

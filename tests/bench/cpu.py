"""CPU time and memory of a program and all that it started, as Linux counts them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """User and system time of a process with its descendants that live, in steps of a clock tick (10 ms).

    :raises ProcessLookupError: there is no such process
    """
    # utime and stime
    return _total(pid, lambda fields: (int(fields[11]) + int(fields[12])) * _TICK)


def megabytes(pid: int) -> float:
    """Memory of a process with its descendants that live; what they share counts for each.

    :raises ProcessLookupError: there is no such process
    """
    return _total(pid, lambda fields: int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6)


def _total(pid: int, read: Callable[[list[str]], float]) -> float:
    """A sum over a process and its descendants.

    :param read: what counts, of the fields of proc(5) that follow the name, the state first
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
        # Behind the name, which may hold anything: state, parent, … (proc(5)).
        fields = stat.rpartition(")")[2].split()
        own[int(folder.name)] = read(fields)
        children[int(fields[1])].append(int(folder.name))
    if pid not in own:
        raise ProcessLookupError(f"process {pid} has ended")
    return _sum(pid, own, children)


def _sum(pid: int, own: dict[int, float], children: dict[int, list[int]]) -> float:
    return own[pid] + sum(_sum(child, own, children) for child in children[pid])

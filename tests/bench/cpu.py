"""CPU time and memory of a program and all that it started, as Linux counts them."""

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
    # utime and stime
    return sum((int(fields[11]) + int(fields[12])) * _TICK for fields in _family(pid).values())


def megabytes(pid: int) -> float:
    """Memory of a process with its descendants that live; what they share counts for each.

    :raises ProcessLookupError: there is no such process
    """
    return sum(int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6 for fields in _family(pid).values())


def open_files(pid: int) -> int:
    """Files and sockets that a process and its descendants have open; what they share counts for each.

    :raises ProcessLookupError: there is no such process
    """
    return sum(len(list((PROC / str(each) / "fd").iterdir())) for each in _family(pid))


def _family(pid: int) -> dict[int, list[str]]:
    """A process and its descendants, each with the fields of proc(5) that follow the name, the state first."""
    found: dict[int, list[str]] = {}
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
        found[int(folder.name)] = fields
        children[int(fields[1])].append(int(folder.name))
    if pid not in found:
        raise ProcessLookupError(f"process {pid} has ended")
    family = [pid]
    for each in family:
        family += children[each]
    return {each: found[each] for each in family}

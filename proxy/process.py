"""What the process itself may leave behind and take: no memory image, as many open files as it is allowed, and no end
by a signal that asks for something else.
"""

from __future__ import annotations

import contextlib
import signal
import sys

if sys.platform != "win32":
    import resource

_PR_SET_DUMPABLE = 4

MACOS_FILES = 10_240
"""``OPEN_MAX`` of its ``sys/syslimits.h``."""

RESERVED_FILES = 128
"""For all but clients and their upstreams: 64 connections to the admin port, logins, stores, secret files, the log."""


def hold_hangups() -> None:
    """Has SIGHUP wait from now on: until there is a handler it would end the process, which has only just begun."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def take_hangups() -> None:
    """Has one that waits, and all that come, handled."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def keep_private() -> None:
    """Lets no image of the memory be written or read: no core dump, and no other process of this user may attach.

    The memory holds every token and every secret.
    """
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        # RLIMIT_CORE does not count where core_pattern is a program (core(5)). A system without prctl has no images.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_open_files() -> None:
    """Takes as many open files as the system lets this process have: shells start programs with 1024."""
    if sys.platform == "win32":
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (most, MACOS_FILES):
        # Where macOS says "without a limit", it still has one, which it does not tell.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            return


def most_connections(wanted: int) -> int:
    """How many clients' connections fit into the files that may be open, each with one to its upstream."""
    if sys.platform == "win32":
        return wanted
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, (files - RESERVED_FILES) // 2))

"""The two clocks that a token's life is measured with."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from proxy.core.tokens import Instant

Clock = Callable[[], Instant]


def _elapsed_clock() -> Callable[[], float]:
    """A clock that goes on while the machine sleeps, which ``time.monotonic`` does not on Linux and macOS."""
    # Boot time on Linux; macOS counts sleep under the plain name, Windows always does.
    clock_id = getattr(time, "CLOCK_BOOTTIME", None) or getattr(time, "CLOCK_MONOTONIC", None)
    if clock_id is None:
        return time.monotonic
    return partial(time.clock_gettime, clock_id)


elapsed = _elapsed_clock()
"""Seconds from some moment on."""


def system_clock() -> Instant:
    """Now."""
    return Instant(elapsed(), time.time())

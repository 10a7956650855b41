"""The clocks that this machine has."""

from __future__ import annotations

import sys
import time

from proxy.oauth.clock import system_clock


def test_the_elapsed_clock_never_goes_back() -> None:
    instants = [system_clock() for _ in range(1000)]
    elapsed = [instant.elapsed for instant in instants]
    assert elapsed == sorted(elapsed)


def test_the_wall_clock_is_unix_time() -> None:
    before = time.time()
    now = system_clock()
    assert before - 0.1 <= now.wall <= time.time() + 0.1


def test_the_elapsed_clock_is_the_one_that_goes_on_while_a_machine_sleeps() -> None:
    if sys.platform != "linux":
        return  # macOS counts sleep under the plain name, Windows always does
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= system_clock().elapsed <= time.clock_gettime(time.CLOCK_BOOTTIME)

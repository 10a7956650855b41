"""The long run: ``make fuzz FUZZ_ARGS='--seconds 600'``; a failure is told as small as it can be made."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import clients, upstreams
from tests.fuzz.loop import run

_AT_A_TIME = 500
_KINDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Coroutine[Any, Any, None]]]] = {
    "clients": (clients.scripts(), clients.play),
    "upstreams": (upstreams.scripts(), upstreams.play),
}


def main() -> None:
    options = argparse.ArgumentParser(prog="make fuzz FUZZ_ARGS=…", description=__doc__)
    options.add_argument("--seconds", type=float, default=60, help="to go on for (default: 60)")
    options.add_argument("--seed", type=int, help="to begin with, as an earlier run told it")
    options.add_argument("--kind", choices=_KINDS, help="only these (default: both in turn)")
    given_ = options.parse_args()
    number = random.SystemRandom().getrandbits(32) if given_.seed is None else given_.seed
    kinds = [given_.kind] if given_.kind else list(_KINDS)
    began, played = time.monotonic(), 0
    while time.monotonic() - began < given_.seconds:
        for kind in kinds:
            sys.stderr.write(f"\r{played} played, {time.monotonic() - began:.0f} s, seed {number}, {kind}     ")
            _some(kind, number)
            played += _AT_A_TIME
        number += 1
    sys.stderr.write("\n")
    print(f"{played} random {' and '.join(kinds)} in {time.monotonic() - began:.0f} s, and nothing found")


def _some(kind: str, number: int) -> None:
    scripts, play = _KINDS[kind]

    @seed(number)
    @settings(max_examples=_AT_A_TIME, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(scripts)
    def check(script: Any) -> None:
        run(play(script))

    check()


if __name__ == "__main__":
    main()

"""``make bench``: what a request costs here, beside nginx and Envoy, and what reading a head costs.

Everything runs on loopback, in rounds that take turns, so that what else the machine does meets all alike; only
the ratios of one run mean something. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.bench import cpu, heads, load, programs, told

Contender = Callable[[Path, int], AbstractContextManager[tuple[int, int]]]

OURS = "genesys-auth-proxy"
AGAIN = f"{OURS}, same target"
"""What is remembered of a request's head helps here: programs do ask for the same things again."""


def contenders(envoy: str | None) -> dict[str, Contender]:
    """What is measured, by the name it has in the tables."""
    return {
        OURS: programs.ours,
        f"{OURS}, all logged": partial(programs.ours, access="all"),
        "nginx, a fixed token": programs.nginx,
        "Envoy, 1 thread": partial(programs.envoy, binary=envoy, concurrency=1),
        "Envoy, its default": partial(programs.envoy, binary=envoy, concurrency=None),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, whose median counts (default: 3)")
    parser.add_argument("--seconds", type=float, default=2, help="of load for each in a round (default: 2)")
    parser.add_argument("--only", action="append", help="measure only what begins so; may be repeated")
    parser.add_argument("--envoy", default=shutil.which("envoy"), help="Envoy's binary (default: the PATH's)")
    options = parser.parse_args()
    if not cpu.PROC.joinpath("self", "stat").exists():
        sys.exit("CPU time is read from /proc, which this system does not have")
    if options.envoy and not shutil.which(options.envoy):
        options.envoy = None
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _stop)
    signal.alarm(programs.LONGEST_RUN)
    wanted = {
        name: contender
        for name, contender in contenders(options.envoy).items()
        if not options.only or name.startswith(tuple(options.only))
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _measure(Path(folder), stack, wanted, options.rounds, options.seconds)
    _print_told()
    _print_heads()


def _stop(number: int, _: FrameType | None) -> NoReturn:
    # An exception, so that every program is ended on the way out.
    sys.exit(f"ended by {signal.Signals(number).name}")


def _measure(folder: Path, stack: ExitStack, wanted: dict[str, Contender], rounds: int, seconds: float) -> None:
    api, kind = stack.enter_context(programs.upstream(folder))
    running: dict[str, tuple[int, int]] = {}
    for name, contender in wanted.items():
        try:
            running[name] = stack.enter_context(contender(folder, api))
        except FileNotFoundError as error:
            print(f"left out: {name} ({error})")
    processors = len(os.sched_getaffinity(0))
    print(f"{platform.system()}, {processors} CPUs, Python {platform.python_version()}, upstream {kind}, "
          f"load {load.generator()}; medians of {rounds} rounds\n")  # fmt: skip
    _print_start(running)
    _print_cost(_cost(running, rounds, seconds, folder))
    _print_latency(_latency(running, api, rounds, min(seconds, 1.0)))


# --- the start ---


def _print_start(running: dict[str, tuple[int, int]]) -> None:
    print(f"{'to the first answer':31} {'CPU':>20} {'memory':>14}")
    for name, (pid, _) in running.items():
        print(f"{name:31} {cpu.seconds(pid):18.2f} s {cpu.megabytes(pid):11.0f} MB")
    print()


# --- CPU per request ---

Cost = dict[str, list[tuple[float, float]]]
"""By name, for each round: microseconds of CPU for one request, and requests a second."""


def _cost(running: dict[str, tuple[int, int]], rounds: int, seconds: float, folder: Path) -> Cost:
    for _, port in running.values():
        load.requests(port, 0.3, folder, same=False)  # code is warm before anything counts
    found: Cost = defaultdict(list)
    again = {AGAIN: running[OURS]} if OURS in running else {}
    for _ in range(rounds):
        for name, (pid, port) in (running | again).items():
            before = cpu.seconds(pid)
            count = load.requests(port, seconds, folder, same=name == AGAIN)
            found[name].append(((cpu.seconds(pid) - before) / count * 1e6, count / seconds))
    return found


def _print_cost(found: Cost) -> None:
    title = f"{load.CONNECTIONS} connections, small JSON"
    print(f"{title:31} {'CPU for one request':>20} {'lowest – highest':>17} {'ratio':>6} {'rate':>11}")
    for name, seen in found.items():
        costs = [cost for cost, _ in seen]
        rate = statistics.median(rate for _, rate in seen)
        # Of each round by itself: what slows the machine for a while slows both.
        ratios = [cost / ours for cost, (ours, _) in zip(costs, found.get(OURS, ()), strict=False)]
        ratio = f"{statistics.median(ratios):6.2f}" if ratios else f"{'':6}"
        between = f"{min(costs):.1f} – {max(costs):.1f}"
        print(f"{name:31} {statistics.median(costs):17.1f} µs {between:>17} {ratio} {rate:9,.0f}/s")
    print()


# --- added latency ---


def _latency(running: dict[str, tuple[int, int]], api: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        found["no proxy"].append(load.latency(api, "", seconds / 2, {"Authorization": f"Bearer {programs.TOKEN}"}))
        for name, (_, port) in running.items():
            found[name].append(load.latency(port, "/t/acme", seconds / 2))
    return found


def _print_latency(found: dict[str, list[float]]) -> None:
    direct = statistics.median(found["no proxy"]) * 1e6
    print(f"{'1 connection':31} {'median latency':>20} {'added':>11}")
    for name, seen in found.items():
        took = statistics.median(seen) * 1e6
        print(f"{name:31} {took:17.0f} µs" + (f" {took - direct:8.0f} µs" if name != "no proxy" else ""))
    print()


# --- what is told of a request ---


def _print_told() -> None:
    print(f"{'telling of a request':42} {'CPU':>10}")
    for name, took in told.costs():
        print(f"{name:42} {took:7.1f} µs")
    print()


# --- heads ---


def _print_heads() -> None:
    print(f"{'reading a head':42} {'proxy.wire':>10} {'httptools':>12}")
    for name, wire, llhttp in heads.costs():
        print(f"{name:42} {wire:7.1f} µs {llhttp:9.1f} µs")
    print(f"\n{'an odd head':42} {'proxy.wire':>10} {'httptools':>12}")
    for name, wire_takes, llhttp_takes in heads.verdicts():
        print(f"{name:42} {_word(wire_takes):>10} {_word(llhttp_takes):>12}")
    print(f"\nOf 3 requests in one piece httptools has read {heads.pipelined()} before anybody asks for the second; "
          f"2 answers\nto HEAD with Content-Length: 100 it takes for {heads.answers_to_head()}.")  # fmt: skip


def _word(accepted: bool) -> str:
    return "takes it" if accepted else "refuses"


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()

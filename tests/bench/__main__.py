"""``make bench``: what a request costs here, beside nginx, HAProxy and Envoy, and what reading a head costs.

Everything runs on loopback, in rounds that take turns, so that what else the machine does meets all alike; only
the ratios of one run mean something. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.bench import cpu, heads, load, programs, report, told
from tests.bench.report import Cost, Figures

Contender = Callable[..., AbstractContextManager[tuple[int, int]]]
Running = dict[str, tuple[int, int]]
"""By name: the program's id and port."""

OURS = report.OURS
AGAIN = f"{OURS}, same target"
"""What is remembered of a request's head helps here: programs do ask for the same things again."""

IDLE = 10_000
"""Idle connections of which the memory is measured."""


def contenders(envoy: str | None) -> dict[str, Contender]:
    """What is measured, by the name it has in the tables."""
    return {
        OURS: programs.ours,
        f"{OURS}, all logged": partial(programs.ours, access="all"),
        "nginx, a fixed token": programs.nginx,
        "HAProxy, a fixed token": programs.haproxy,
        "Envoy, 1 thread": partial(programs.envoy, binary=envoy, concurrency=1),
        "Envoy, its default": partial(programs.envoy, binary=envoy, concurrency=None),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, whose median counts (default: 5)")
    parser.add_argument("--seconds", type=float, default=2, help="of load for each in a round (default: 2)")
    parser.add_argument("--only", action="append", help="measure only what begins so; may be repeated")
    parser.add_argument("--envoy", default=shutil.which("envoy"), help="Envoy's binary (default: the PATH's)")
    parser.add_argument("--quick", action="store_true", help="leave TLS, large answers and idle connections out")
    parser.add_argument("--save", action="store_true", help="make it the run that the README shows")
    options = parser.parse_args()
    if not cpu.PROC.joinpath("self", "stat").exists():
        sys.exit("CPU time is read from /proc, which this system does not have")
    if options.envoy and not shutil.which(options.envoy):
        options.envoy = None
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _stop)
    signal.alarm(programs.LONGEST_RUN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wanted = {
        name: contender
        for name, contender in contenders(options.envoy).items()
        if not options.only or name.startswith(tuple(options.only))
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        figures = _measure(Path(folder), stack, wanted, options)
    if options.save:
        report.save(figures)
    _print_told()
    _print_heads()


def _stop(number: int, _: FrameType | None) -> NoReturn:
    # An exception, so that every program is ended on the way out.
    sys.exit(f"ended by {signal.Signals(number).name}")


def _measure(folder: Path, stack: ExitStack, wanted: Mapping[str, Contender], options: argparse.Namespace) -> Figures:
    api = stack.enter_context(programs.upstream(folder))
    rounds, seconds = options.rounds, options.seconds
    figures = Figures(
        machine=f"{_processor()}, {len(os.sched_getaffinity(0))} CPUs, {platform.system()}",
        python=platform.python_version(),
        when=time.strftime("%Y-%m-%d"),
        rounds=rounds,
    )
    print(f"{figures.machine}, Python {figures.python}, upstream {api.kind}, load {load.generator()}; "
          f"medians of {rounds} rounds\n")  # fmt: skip
    running = _start(folder, stack, wanted, api, tls=False)
    _print_start(running)
    figures.plain = _cost(running, rounds, seconds, folder)
    _print_cost(f"{load.CONNECTIONS} connections, small JSON", figures.plain)
    figures.latency = _latency(running, api.port, rounds, min(seconds, 1.0))
    _print_latency(figures.latency)
    if options.quick or api.kind != "nginx":
        return figures
    figures.downloads = _downloads(running, rounds)
    _print_downloads(figures.downloads)
    figures.tls = _cost(_start(folder, stack, wanted, api, tls=True), rounds, seconds, folder)
    _print_cost("the same, TLS to the upstream", figures.tls)
    if OURS in running:
        figures.idle = _idle(*running[OURS])
        print(f"{IDLE:,} idle connections: {figures.idle / 1e6:.0f} MB in all\n")
    return figures


def _processor() -> str:
    for line in (cpu.PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _start(folder: Path, stack: ExitStack, wanted: Mapping[str, Contender], api: programs.Api, *, tls: bool) -> Running:
    running: Running = {}
    for name, contender in wanted.items():
        try:
            running[name] = stack.enter_context(contender(folder, api, tls=tls))
        except FileNotFoundError as error:
            print(f"left out: {name} ({error})")
    return running


# --- CPU per request ---


def _cost(running: Running, rounds: int, seconds: float, folder: Path) -> dict[str, list[Cost]]:
    for _, port in running.values():
        load.requests(port, 0.3, folder, same=False)  # code is warm before anything counts
    again = {AGAIN: running[OURS]} if OURS in running else {}
    measured = running | again
    found: dict[str, list[Cost]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, (pid, port) in measured.items():
            before = cpu.seconds(pid)
            count = load.requests(port, seconds, folder, same=name == AGAIN)
            found[name].append(Cost((cpu.seconds(pid) - before) / count * 1e6, count / seconds))
    return found


def _print_cost(title: str, found: dict[str, list[Cost]]) -> None:
    print(f"{title:31} {'CPU for one request':>20} {'lowest – highest':>17} {'ratio':>6} {'rate':>11}")
    for name, seen in found.items():
        costs = [cost.microseconds for cost in seen]
        rate = statistics.median(cost.rate for cost in seen)
        ratio = f"{report.ratio(found, name):6.2f}" if OURS in found else f"{'':6}"
        between = f"{min(costs):.1f} – {max(costs):.1f}"
        print(f"{name:31} {statistics.median(costs):17.1f} µs {between:>17} {ratio} {rate:9,.0f}/s")
    print()


# --- added latency ---


def _latency(running: Running, api: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in (report.DIRECT, *running)}
    for _ in range(rounds):
        direct = load.latency(api, "", seconds / 2, {"Authorization": f"Bearer {programs.TOKEN}"})
        found[report.DIRECT].append(direct)
        for name, (_, port) in running.items():
            found[name].append(load.latency(port, "/t/acme", seconds / 2))
    return found


def _print_latency(found: dict[str, list[float]]) -> None:
    direct = statistics.median(found[report.DIRECT]) * 1e6
    print(f"{'1 connection':31} {'median latency':>20} {'added':>11}")
    for name, seen in found.items():
        took = statistics.median(seen) * 1e6
        print(f"{name:31} {took:17.0f} µs" + (f" {took - direct:8.0f} µs" if name != report.DIRECT else ""))
    print()


# --- large answers and many connections ---


def _downloads(running: Running, rounds: int) -> dict[str, list[float]]:
    """Bytes a second."""
    found: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, (_, port) in running.items():
            found[name].append(programs.BIG_BYTES / load.download(port))
    return found


def _print_downloads(found: dict[str, list[float]]) -> None:
    print(f"{f'answers of {programs.BIG_BYTES // 1_000_000} MB':31} {'throughput':>20}")
    for name, seen in found.items():
        print(f"{name:31} {statistics.median(seen) / 1e6:15,.0f} MB/s")
    print()


def _idle(pid: int, port: int) -> int:
    """Bytes in memory with ``IDLE`` connections, all told."""
    with load.idle(port, IDLE):
        return round(cpu.megabytes(pid) * 1e6)


# --- the start ---


def _print_start(running: dict[str, tuple[int, int]]) -> None:
    print(f"{'to the first answer':31} {'CPU':>20} {'memory':>14}")
    for name, (pid, _) in running.items():
        print(f"{name:31} {cpu.seconds(pid):18.2f} s {cpu.megabytes(pid):11.0f} MB")
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

"""``make bench-scale``: what 10,000 tenants cost beside one: start, memory, first tokens, requests. Linux only."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.bench import cpu, load, programs

_SETTLED = 180.0
"""Seconds for all tenants to have a token."""


@dataclass(slots=True)
class Scale:
    """What a number of tenants cost.

    :ivar started: seconds of CPU until it answered first
    :ivar memory: MiB then, without and with a token for each tenant
    :ivar warming: seconds of CPU, and by the clock, until each tenant had its token
    :ivar idle: CPU share of a process that has nothing to do but to keep the tokens, in percent
    :ivar costs: microseconds of CPU for a request, each for another tenant
    """

    started: float
    memory: tuple[float, float]
    warming: tuple[float, float]
    idle: float
    costs: list[float]


@contextlib.contextmanager
def _proxy(folder: Path, api: int, tenants: int, *, warm: bool) -> Iterator[tuple[int, int, int]]:
    port, admin, name = programs.free_port(), programs.free_port(), f"{tenants}-{'warm' if warm else 'cold'}"
    configuration = folder / f"{name}.toml"
    configuration.write_text(
        f"[listen]\nport = {port}\n[admin]\nport = {admin}\n[defaults]\nkeep_warm = {str(warm).lower()}\n"
        f'api_url = "http://127.0.0.1:{api}"\nlogin_url = "http://127.0.0.1:{api}"\n'
        + "".join(f'[tenants.t{n}]\nclient_id = "{n}"\nclient_secret = "bench-secret"\n' for n in range(tenants)),
        "utf-8",
    )
    log = folder / f"{name}.log"
    command = (sys.executable, "-m", "proxy", "run", "--config", configuration, "--log-level", "warning")
    with programs.program(*command, log=log) as pid:
        programs.wait_for(port, f"/t/t{tenants - 1}{programs.PATH}", log)
        yield pid, port, admin


def _begun(folder: Path, api: int, tenants: int, seconds: float, stack: contextlib.ExitStack) -> tuple[int, int, Scale]:
    """Runs the proxy with tenants that wait to be called, and then, as long as the stack, with ones kept warm."""
    with _proxy(folder, api, tenants, warm=False) as (pid, _, _):
        started, bare = cpu.seconds(pid), _memory(pid)
    pid, port, admin = stack.enter_context(_proxy(folder, api, tenants, warm=True))
    began, before = time.monotonic(), cpu.seconds(pid)
    _wait_for_tokens(admin, tenants)
    warming = cpu.seconds(pid) - before, time.monotonic() - began
    with_tokens, before = _memory(pid), cpu.seconds(pid)
    time.sleep(seconds)
    idle = (cpu.seconds(pid) - before) / seconds * 100
    _requests(port, tenants, 0.5)  # code is warm before anything counts
    return pid, port, Scale(started, (bare, with_tokens), warming, idle, [])


def measure(folder: Path, counts: Sequence[int], seconds: float, rounds: int) -> dict[int, Scale]:
    """What so many tenants cost; rounds of requests take turns, so that what else the machine does meets all alike."""
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(programs.upstream(folder)).port
        found = {tenants: _begun(folder, api, tenants, seconds, stack) for tenants in counts}
        for _ in range(rounds):
            for tenants, (pid, port, scale) in found.items():
                before = cpu.seconds(pid)
                count = _requests(port, tenants, seconds)
                scale.costs.append((cpu.seconds(pid) - before) / count * 1e6)
        return {tenants: scale for tenants, (_, _, scale) in found.items()}


def _wait_for_tokens(admin: int, tenants: int) -> None:
    due = time.monotonic() + _SETTLED
    while time.monotonic() < due:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=10) as answer:
            if answer.read().count(b'"fresh"') >= tenants:
                return
        time.sleep(1)
    raise TimeoutError("not every tenant has a token")


def _memory(pid: int) -> float:
    """MiB of the largest process that a program consists of."""
    children = [int(child) for child in (cpu.PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    pages = [int((cpu.PROC / str(each) / "statm").read_text().split()[1]) for each in (pid, *children)]
    return max(pages) * 4096 / 2**20


def _requests(port: int, tenants: int, seconds: float) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_ask(port, tenants, seconds))


async def _ask(port: int, tenants: int, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    each = (_head(port, number, tenants) for number in itertools.count())
    made = [await loop.create_connection(lambda: load.Client(each), "127.0.0.1", port) for _ in range(load.CONNECTIONS)]
    clients = [client for _, client in made]
    await asyncio.sleep(seconds)
    answered, bad = sum(client.answered for client in clients), sum(client.bad for client in clients)
    for client in clients:
        client.close()
    if bad or not answered:
        raise load.BadAnswer(f"{bad} of {answered}")
    return answered


def _head(port: int, number: int, tenants: int) -> bytes:
    # A prime, so that neighbours in the file are none in time; no request is like one before, with one tenant either.
    request = load.head(port, f"/t/t{number * 7919 % tenants}", load.FIELDS)
    return request.replace(b" HTTP/1.1", b"&number=%d HTTP/1.1" % number, 1)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--tenants", type=int, default=10_000, help="beside one (default: 10000)")
    parser.add_argument("--seconds", type=float, default=2, help="of load in a round (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, whose median counts (default: 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), (1, options.tenants), options.seconds, options.rounds)
    print(f"{load.CONNECTIONS} connections, each request for another tenant; medians of {options.rounds} rounds")
    rows: dict[str, Callable[[Scale], str]] = {
        "CPU until it answers, s": lambda scale: f"{scale.started:.2f}",
        "memory then, MiB": lambda scale: f"{scale.memory[0]:.0f}",
        "memory with all tokens, MiB": lambda scale: f"{scale.memory[1]:.0f}",
        "CPU for all first tokens, s": lambda scale: f"{scale.warming[0]:.2f}",
        "time for all first tokens, s": lambda scale: f"{scale.warming[1]:.1f}",
        "CPU while idle, %": lambda scale: f"{scale.idle:.1f}",
        "CPU for one request, µs": lambda scale: f"{statistics.median(scale.costs):.1f}",
    }
    print(f"{'tenants':30}" + "".join(f"{tenants:>10,}" for tenants in found))
    for name, value in rows.items():
        print(f"{name:30}" + "".join(f"{value(scale):>10}" for scale in found.values()))


if __name__ == "__main__":
    main()

"""``make soak``: mixed traffic, tokens that die, restarts of API and login, and then: is anything left?

All traffic stays on this machine. The program runs as its users run it; what it holds is what its metrics say, and
Linux of its memory and open files.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.bench import cpu
from tests.soak.clients import KINDS, Seen, client
from tests.soak.world import Api, Login, Place
from tests.support.certificates import ca_file, server_context
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import until

CLIENTS = 24

WARM_UP = 0.25
"""Share of the run after which memory is compared: what is in use in the third that follows, and in the last."""

MORE_MEMORY = 0.1
"""Share by which it may be more at the end, because the allocator gives back what was freed only now and then."""

REST = 10.0
"""Seconds after the last request in which everything is to be given back."""


@dataclass(slots=True)
class Sample:
    """What the program holds at one moment."""

    seconds: float
    resident: int
    files: int


@dataclass
class Soak:
    """A run of so many seconds, from a seed, with so many processes.

    :ivar problems: what must not have been, one sentence each
    """

    seconds: float
    seed: int
    workers: int
    seen: Seen = field(default_factory=Seen)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    async def run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            login = Login()
            places = login, Api(login, None), Api(login, server_context("localhost"))
            for place in places:
                await place.start()
            arguments = ("--workers", str(self.workers)) if self.workers > 1 else ()
            async with run_proxy(configuration(Path(folder), *(place.port for place in places)), *arguments) as proxy:
                await self._soak(proxy, *places)
                await self._rest(proxy, places)
                proxy.signal(signal.SIGTERM)
                started = time.monotonic()
                await proxy.ended()
                self._demand(time.monotonic() - started < 5, "it took more than 5 s to end with nothing to do")
                self._read_log(proxy.output)
            for place in places:
                await place.stop()

    async def _soak(self, proxy: RunningProxy, login: Login, plain: Api, secure: Api) -> None:
        rng = random.Random(self.seed)
        await until(lambda: metric_is(proxy, "genesys_auth_proxy_token_expiry_timestamp_seconds", 2), 20)
        await login.restart(0)
        self.samples.append(sample(proxy, 0))
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                each = client(proxy.host, proxy.port, self.seen, random.Random(self.seed + number), stopping)
                tasks.create_task(each, name=f"client {number}")
            disturbances = self._disturb(proxy, login, (plain, secure), rng, stopping)
            tasks.create_task(disturbances, name="disturbances")
            await self._watch(proxy)
            stopping.set()
        self.events.append(f"{login.issued} tokens issued, {plain.refused + secure.refused} calls met a dead one")

    async def _disturb(
        self, proxy: RunningProxy, login: Login, apis: tuple[Api, Api], rng: random.Random, stopping: asyncio.Event
    ) -> None:
        counts = {"tokens revoked": 0, "API restarted": 0, "login restarted": 0, "configuration read again": 0}
        for kind in endless(rng, list(counts)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(2.5, 4)):
                    await stopping.wait()
                    break
            counts[kind] += 1
            away = rng.uniform(0.2, 1)
            match kind:
                case "tokens revoked":
                    login.revoke()
                case "API restarted":
                    self.seen.outage(away)
                    await rng.choice(apis).restart(away)
                case "login restarted":
                    await login.restart(away)  # nobody notices: tokens are refreshed ahead
                case _:
                    proxy.signal(signal.SIGHUP)
        self.events += [f"{kind} {count} times" for kind, count in counts.items()]

    async def _watch(self, proxy: RunningProxy) -> None:
        began, told = time.monotonic(), 0.0
        while (now := time.monotonic() - began) < self.seconds:
            await asyncio.sleep(min(0.5, self.seconds / 40))
            self.samples.append(sample(proxy, now))
            if now - told > 10:
                told = now
                self._tell(now)

    def _tell(self, now: float) -> None:
        last, seen = self.samples[-1], self.seen
        print(
            f"{now:7.0f} s  {seen.good.total():8} good  {seen.broken_off:5} broken off  {seen.excused.total():4} in "
            f"outages  {seen.bad.total():3} bad  {last.resident / 1e6:6.1f} MB  {last.files:4} files",
            flush=True,
        )

    async def _rest(self, proxy: RunningProxy, places: Iterable[Place]) -> None:
        """Everything is given back once nobody asks for anything, and who was asked has closed what they held."""
        for place in places:
            await place.restart(0)
        before = self.samples[0].files

        async def given_back() -> bool:
            return await left(proxy) == [] and sample(proxy, 0).files <= before

        with contextlib.suppress(TimeoutError):
            await until(given_back, REST)
        for held in await left(proxy):
            self._demand(False, f"{held} is left")
        files = sample(proxy, 0).files
        self._demand(files <= before, f"{files} open files, {before} at the beginning")
        self._compare_memory()
        for what, count in self.seen.bad.items():
            self._demand(False, f"{count}× {what}, and no outage was near")
        for kind in KINDS:
            self._demand(self.seen.good[kind] > 0, f"no exchange of the kind {kind}")

    def _compare_memory(self) -> None:
        warm = [each.resident for each in self.samples if each.seconds >= WARM_UP * self.seconds]
        third = len(warm) // 3
        first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
        self.events.append(f"memory {first / 1e6:.1f} MB after the first quarter, {last / 1e6:.1f} MB at the end")
        grown = last - first
        self._demand(grown < MORE_MEMORY * first, f"memory grew by {grown / 1e6:.1f} MB")

    def _read_log(self, log: str) -> None:
        for sign in ("Traceback", "was never", "was destroyed", "defect"):
            self._demand(sign not in log, f"the log says {sign!r}: {log[-2000:]}")

    def _demand(self, held: bool, otherwise: str) -> None:
        if not held:
            self.problems.append(otherwise)


def configuration(folder: Path, login: int, plain: int, secure: int) -> str:
    client_keys = 'client_id = "id"\nclient_secret = "secret"\n'
    return (
        f'[listen]\nport = 0\n[admin]\nport = 0\n[upstream]\nca_file = "{ca_file(folder)}"\n'
        f'[defaults]\nlogin_url = "http://127.0.0.1:{login}"\n'
        f'[tenants.acme]\napi_url = "http://127.0.0.1:{plain}"\n{client_keys}'
        f'[tenants.globex]\napi_url = "https://localhost:{secure}"\n{client_keys}'
    )


def endless(rng: random.Random, kinds: list[str]) -> Iterator[str]:
    """Each kind as often as the others, in random order."""
    while True:
        yield from rng.sample(kinds, len(kinds))


async def metrics(proxy: RunningProxy) -> list[tuple[str, str, float]]:
    """Name, labels and value of each sample."""
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.admin_url}/metrics") as answer:
        text = await answer.text()
    found = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    return [(name, labels, float(value)) for name, labels, value in found]


def sample(proxy: RunningProxy, seconds: float) -> Sample:
    """Of all its processes; what they share counts for each."""
    return Sample(seconds, int(cpu.megabytes(proxy.pid) * 1e6), cpu.open_files(proxy.pid))


async def metric_is(proxy: RunningProxy, name: str, samples: int) -> bool:
    return sum(found == name for found, _, _ in await metrics(proxy)) == samples


async def left(proxy: RunningProxy) -> list[str]:
    """Connections and requests that the program says it still holds."""
    gauges = ("connections", "requests_under_way", "websockets")
    return [
        f"{name}{{{labels}}} {value:g}"
        for name, labels, value in await metrics(proxy)
        if value and name.removeprefix("genesys_auth_proxy_") in gauges
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of traffic (default: 120)")
    parser.add_argument("--seed", type=int, default=1, help="of what is random (default: 1)")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve (default: 1)")
    options = parser.parse_args()
    if sys.platform != "linux":
        parser.error("only on Linux it is known what a program holds")
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # who writes to what an outage has closed is no news
    soak = Soak(options.seconds, options.seed, options.workers)
    asyncio.run(soak.run())
    for kind, count in soak.seen.good.items():
        print(f"{count:8} {kind}")
    for what, count in soak.seen.excused.items():
        print(f"{count:8} in an outage, {what}")
    print("; ".join(soak.events))
    print("\n".join(soak.problems) or "Nothing is left, and nothing failed.")
    return bool(soak.problems)


if __name__ == "__main__":
    sys.exit(main())

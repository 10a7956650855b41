"""The demo from curtain to curtain: what happens when, and with which exit code it ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import click

from proxy.app import Proxy
from proxy.cli.demo.figures import Figures, figures, problems, summary
from proxy.cli.demo.stage import TOKEN_LIFETIME, stage
from proxy.cli.demo.traffic import Traffic
from proxy.cli.demo.view import View, view
from proxy.cli.logs import log_to_stderr
from proxy.cli.loop import Signals
from proxy.sandbox import Sandbox


async def play(duration: float, faults: tuple[str, ...]) -> int:
    """Plays the demo and tells what was seen; the exit code.

    :param duration: seconds of traffic
    :param faults: of the sandbox, as ``--fault`` has them
    """
    signals = Signals()
    async with stage(faults) as (sandbox, proxy):
        orgs = [org.name for org in sandbox.options.orgs]
        demo = _Demo(sandbox, proxy, Traffic(proxy.url, orgs), time.monotonic())
        title = f"{len(orgs)} orgs whose tokens live {TOKEN_LIFETIME:.0f} s; the proxy's page: {proxy.admin_url}/"
        with view(title, duration) as screen:
            log_to_stderr()  # here, where the view has put its own stderr in place
            number = await demo.run(duration, signals, screen)
        seen = demo.figures()
    screen.end(summary(seen))
    if number is not None:
        return 128 + number
    wrong = problems(seen)
    for problem in wrong:
        click.echo(f"Error: {problem}", err=True)
    return 1 if wrong else 0


@dataclass(frozen=True, slots=True)
class _Demo:
    sandbox: Sandbox
    proxy: Proxy
    traffic: Traffic
    started: float
    """By the monotonic clock."""

    async def run(self, duration: float, signals: Signals, screen: View) -> int | None:
        """Lets the clients call, and revokes every token halfway; the number of the signal that ended it early."""
        async with asyncio.TaskGroup() as group:
            calling = group.create_task(self.traffic.run(), name="traffic")
            showing = group.create_task(self._show(screen, duration), name="view")
            number = await signals.stop(duration / 2)
            if number is None:
                revoked = self.sandbox.revoke()
                screen.tell(self.elapsed, f"revoked every token ({revoked}), as an administrator can at any time")
                number = await signals.stop(duration / 2)
            self.traffic.stop()
            await calling
            showing.cancel()
        screen.show(self.figures(), self.elapsed)
        return number

    async def _show(self, screen: View, duration: float) -> None:
        while True:
            await asyncio.sleep(screen.every)
            if self.elapsed < duration - screen.every / 2:  # the end is shown when all have their answers
                screen.show(self.figures(), self.elapsed)

    def figures(self) -> Figures:
        return figures(self.traffic.counts, self.sandbox.ledger, self.proxy.report())

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

"""The event loop and the signals of the long-running commands."""

from __future__ import annotations

import signal

import pytest

from tests.cli.program import start

BUSY = """
import sys
from proxy.cli.loop import Signals, run_loop

async def main():
    signals = Signals()
    print("ready", flush=True)
    await signals.stop()
    print("stopping", flush=True)
    while True:
        pass

run_loop(main())
"""

KIND = """
import asyncio
from proxy.cli.loop import run_loop

async def main():
    return type(asyncio.get_running_loop()).__module__

print(run_loop(main()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_second_signal_ends_even_a_loop_that_is_stuck(number: signal.Signals) -> None:
    async with await start(command=("-c", BUSY)) as program:
        await program.said("ready")
        program.signal(number)
        await program.said("stopping")
        program.signal(number)
        assert (await program.end()).code == 128 + number


async def test_the_loop_is_uvloops_where_there_is_one() -> None:
    pytest.importorskip("uvloop")
    async with await start(command=("-c", KIND)) as program:
        assert (await program.end()).stdout == "uvloop\n"


async def test_without_uvloop_the_loop_is_pythons_own() -> None:
    without = f"import sys; sys.modules['uvloop'] = None\n{KIND}"
    async with await start(command=("-c", without)) as program:
        assert (await program.end()).stdout == "asyncio.unix_events\n"


async def test_signals_arrive_on_pythons_own_loop_too() -> None:
    without = f"import sys; sys.modules['uvloop'] = None\n{BUSY}"
    async with await start(command=("-c", without)) as program:
        await program.said("ready")
        program.signal(signal.SIGINT)
        await program.said("stopping")

"""The command line as its users meet it: a process with output, signals and an exit code."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.proxies import NO_AUTHORITIES

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 60.0
"""Seconds for anything a program is waited for; a machine under load needs some of them."""


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would change the program's output."""
    dropped = {"GENESYS_AUTH_PROXY_CONFIG", "FORCE_COLOR", "NO_COLOR", "TERM", "COLUMNS", "LINES"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, **NO_AUTHORITIES, "COLUMNS": "80", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **variables}


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


class Program:
    """A running ``genesys-auth-proxy``; leaving it kills what is left of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._streams = {"stdout": process.stdout, "stderr": process.stderr}
        self._read = {"stdout": "", "stderr": ""}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def said(self, pattern: str, *, on: str = "stdout") -> re.Match[str]:
        """Waits until a line matches."""
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(pattern, self._read[on])):
                line = await self._streams[on].readline()
                assert line, f"ended without saying {pattern!r}: {self._read}"
                self._read[on] += line.decode()
        return found

    async def end(self) -> Ended:
        """Waits for the end; what was said before counts in."""
        async with asyncio.timeout(PATIENCE):
            stdout, stderr = await self._process.communicate()
        assert self._process.returncode is not None
        said = self._read
        return Ended(self._process.returncode, said["stdout"] + stdout.decode(), said["stderr"] + stderr.decode())


async def start(
    *arguments: str | Path, command: Sequence[str] = ("-m", "proxy"), folder: Path | None = None, **variables: str
) -> Program:
    """Starts the program, in this folder and an environment with these variables."""
    return Program(
        await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=environment(**variables),
        )
    )


async def run(
    *arguments: str | Path, command: Sequence[str] = ("-m", "proxy"), folder: Path | None = None, **variables: str
) -> Ended:
    """Runs the program to its end."""
    async with await start(*arguments, command=command, folder=folder, **variables) as program:
        return await program.end()

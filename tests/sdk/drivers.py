"""Runs the official SDKs, unmodified, in programs of their own, and tells them what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.system import find

_HERE = Path(__file__).resolve().parent

PATIENCE = 180.0
"""Seconds for one call; importing the Python SDK, which is in the first, takes some of them."""

_LONGEST_LINE = 4 * 1024 * 1024


class SdkError(Exception):
    """What the SDK's caller meets when a call fails.

    :ivar status: of the answer; None without one
    """

    def __init__(self, status: int | None, body: object) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Sdk:
    """A program that uses one SDK.

    :ivar name: ``python`` or ``javascript``
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    async def do(self, what: str, **arguments: object) -> Any:
        """Calls the driver's function of this name.

        :raises SdkError: the SDK says so
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        try:
            async with asyncio.timeout(PATIENCE):
                line = await process.stdout.readline()
        except TimeoutError:
            process.kill()  # or the next call gets this one's answer
            raise
        if not line:
            raise ChildProcessError(f"the driver of the {self.name} SDK ended, with {await process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SdkError(**answer["error"])
        return answer["value"]


def _command(name: str) -> list[str]:
    if name == "python":
        return [sys.executable, str(_HERE / "python" / "driver.py")]
    return [find("node") or "node", str(_HERE / "javascript" / "driver.js")]


@contextlib.asynccontextmanager
async def run_sdk(name: str, home: Path) -> AsyncIterator[Sdk]:
    """The SDK of this name, for as long as the context lasts.

    :param home: the home folder, where the SDK looks for its configuration file
    """
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *_command(name),
        env={**kept, "HOME": str(home), "USERPROFILE": str(home)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    try:
        yield Sdk(name, process)
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()

"""Starts the proxy as its users do: a program with a configuration file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent.parent
_FILE = "genesys-auth-proxy.toml"

NO_AUTHORITIES = {"SSL_CERT_FILE": os.devnull}
"""For a program's environment: no test needs the system's authorities, which take long to read at each start."""

_STARTING = 60.0
"""Seconds until the program listens."""
_SAYING = 30.0
"""Seconds until it has said what it is waited for."""
_STOPPING = 15.0
"""Seconds from SIGTERM to its end: less than ``drain_timeout``, so that nothing is waited for in vain."""

_ADDRESS = rb"^%b on (?P<url>https?://(?P<host>[^\s:]+):(?P<port>\d+))$"


class _Output:
    """What a program writes, read to its end so that it never blocks on a full pipe."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self.text = bytearray()
        self.ended = False
        self._stream = stream
        self._grown = asyncio.Condition()

    def __str__(self) -> str:
        return self.text.decode(errors="replace")

    async def read(self) -> None:
        while piece := await self._stream.read(65536):
            self.text += piece
            async with self._grown:
                self._grown.notify_all()
        self.ended = True
        async with self._grown:
            self._grown.notify_all()

    async def said(self, pattern: bytes, within: float) -> re.Match[bytes]:
        """Waits for a line that matches."""
        try:
            async with asyncio.timeout(within), self._grown:
                while (found := re.search(pattern, bytes(self.text), re.MULTILINE)) is None:
                    if self.ended:
                        raise ChildProcessError(f"the proxy ended without saying {pattern!r}:\n{self}")
                    await self._grown.wait()
                return found
        except TimeoutError:
            raise ChildProcessError(f"the proxy has not said {pattern!r} after {within} s:\n{self}") from None


class RunningProxy:
    """The program while it runs.

    :ivar url, host, port: where clients connect
    :ivar admin_url: of the admin port, without a slash at the end
    :ivar configuration: its file, which may be changed
    """

    def __init__(self, process: asyncio.subprocess.Process, output: _Output, configuration: Path) -> None:
        self.url = ""
        self.host = ""
        self.port = 0
        self.admin_url = ""
        self.configuration = configuration
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def resident(self) -> int:
        """Bytes of its memory that are in use now; on Linux only."""
        return self._memory("VmRSS")

    @property
    def most_resident(self) -> int:
        """Bytes of its memory that were in use when it was most; on Linux only."""
        return self._memory("VmHWM")

    @property
    def open_files(self) -> int:
        """Files and sockets that it has open; on Linux only."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def output(self) -> str:
        """All that it has written so far, standard error included."""
        return str(self._output)

    async def said(self, text: str) -> None:
        """Waits until it has written this.

        :raises ChildProcessError: it has not in time
        """
        await self._output.said(re.escape(text.encode()), _SAYING)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Waits for its end; the exit code."""
        async with asyncio.timeout(_STOPPING):
            return await self._process.wait()

    async def opened(self) -> None:
        """Waits for both ports."""
        listening = await self._output.said(_ADDRESS % b"listening", _STARTING)
        admin = await self._output.said(_ADDRESS % b"admin", _STARTING)
        self.url = listening["url"].decode()
        self.host, self.port = listening["host"].decode(), int(listening["port"])
        self.admin_url = admin["url"].decode()


@contextlib.asynccontextmanager
async def run_proxy(configuration: str, *options: str, **variables: str) -> AsyncIterator[RunningProxy]:
    """The proxy with this configuration (TOML), for as long as the context lasts.

    ``listen.port`` and ``admin.port`` are best 0. Raises ChildProcessError, with what the program wrote, where it
    does not start or does not end with 0.

    :param options: of the command line
    :param variables: of its environment
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, _FILE)
        file.write_text(configuration, encoding="utf-8")  # noqa: ASYNC240 - small, and nothing runs yet
        process = await _start(file, options, variables)
        assert process.stdout is not None
        output = _Output(process.stdout)
        reading = asyncio.create_task(output.read(), name="proxy's output")  # noqa: TID251 awaited by _stop()
        proxy = RunningProxy(process, output, file)
        try:
            await proxy.opened()
            yield proxy
        finally:
            await _stop(process, reading)
        if process.returncode != 0:
            raise ChildProcessError(f"the proxy ended with {process.returncode}:\n{output}")


async def _start(file: Path, options: tuple[str, ...], variables: dict[str, str]) -> asyncio.subprocess.Process:
    """Run it in a folder of its own, so that what it keeps in files is gone with that."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "run", "--config", str(file), *options),
        cwd=file.parent,
        env={**os.environ, "PYTHONPATH": str(_ROOT), **NO_AUTHORITIES, **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def _stop(process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(_STOPPING):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    await reading

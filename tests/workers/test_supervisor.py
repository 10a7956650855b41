"""The supervisor in this process, with workers that are told what to do wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from proxy.errors import ConfigurationError, WorkerGone
from proxy.settings import load
from proxy.settings.stores import StorePlace
from proxy.wire.ports import bind, port_of
from proxy.workers.slot import BEAT
from proxy.workers.supervisor import Supervisor, sockets_of
from tests.support.stages import until
from tests.workers.load import alive

CONFIGURATION = """
[listen]
port = {port}
[admin]
port = 0
[tenants.acme]
api_url = "http://127.0.0.1:1"
login_url = "http://127.0.0.1:1"
client_id = "id"
client_secret = "not-a-secret"
keep_warm = false
"""


def supervisor(tmp_path: Path, command: Sequence[str], *, port: int = 0, beat: float = BEAT) -> Supervisor:
    file = tmp_path / "proxy.toml"
    file.write_text(CONFIGURATION.format(port=port), encoding="utf-8")
    return Supervisor(load(file), reread=partial(load, file), workers=2, command=command, beat=beat)


@pytest.mark.parametrize("ends", ["raise SystemExit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
async def test_workers_that_can_not_start_end_the_start(tmp_path: Path, ends: str) -> None:
    program = supervisor(tmp_path, [sys.executable, "-c", ends])
    async with asyncio.timeout(20):
        with pytest.raises(WorkerGone, match="can't start"):
            await program.start()


async def test_a_worker_that_talks_nonsense_is_killed(tmp_path: Path) -> None:
    nonsense = "import socket, sys, time; s = socket.socket(fileno=int(sys.argv[1])); s.sendall(bytes(8) + b'{')"
    program = supervisor(tmp_path, [sys.executable, "-c", nonsense + "; time.sleep(60)"])
    async with asyncio.timeout(20):
        with pytest.raises(WorkerGone):
            await program.start()


async def test_a_program_that_does_not_exist_ends_the_start(tmp_path: Path) -> None:
    program = supervisor(tmp_path, ["/nowhere/python"])
    with pytest.raises(WorkerGone):
        await program.start()


async def test_a_start_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("import os, sys, time\nopen(sys.argv[0] + str(os.getpid()), 'w')\ntime.sleep(60)", "utf-8")
    program = supervisor(tmp_path, [sys.executable, str(script)])
    starting = asyncio.get_running_loop().create_task(program.start(), name="start")
    await until(lambda: len(pids(tmp_path)) == 2, 20)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert not [pid for pid in pids(tmp_path) if alive(pid)]


def pids(folder: Path) -> list[int]:
    return [int(file.name.removeprefix("script")) for file in folder.glob("script?*")]


@pytest.mark.parametrize("share", [False, True])
async def test_a_port_that_another_program_has_is_not_shared_with_it(tmp_path: Path, *, share: bool) -> None:
    taken = bind("127.0.0.1", 0, share=share)
    program = supervisor(tmp_path, [sys.executable, "-c", ""], port=port_of(taken))
    with pytest.raises(OSError, match="in use"):
        await program.start()
    for sock in taken:
        sock.close()


async def test_all_workers_listen_on_one_port_with_sockets_of_their_own(tmp_path: Path) -> None:
    places = sockets_of("127.0.0.1", 0, range(1, 4))
    sockets = [sock for each in places.values() for sock in each]
    assert len({sock.getsockname() for sock in sockets}) == 1
    assert len({sock.fileno() for sock in sockets}) == (3 if sys.platform == "linux" else 1)
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("how", ["stopped", "busy"])
async def test_a_worker_that_hangs_is_replaced(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-m", "proxy.cli.worker", "info", "plain"]
    if how == "busy":
        command = [sys.executable, "-c", BUSY.format(folder=tmp_path), *command[3:]]
    program = supervisor(tmp_path, command, beat=0.5)
    await program.start()
    try:
        victim = (await workers_of(program))[1]
        assert victim is not None
        if how == "stopped":
            os.kill(victim, signal.SIGSTOP)
        else:
            (tmp_path / f"hang-{victim}").touch()
        async with asyncio.timeout(40):
            while (await workers_of(program)).get(1) in (None, victim):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert not alive(victim)
    finally:
        await program.drain()


BUSY = """
import sys, threading, time, os, asyncio
from pathlib import Path
from proxy.cli import worker
hang = Path("{folder}", "hang-" + str(os.getpid()))
def look():
    while hang.exists():
        pass
    asyncio.get_running_loop().call_later(0.05, look)
serve = worker.work
async def work(*arguments):
    look()
    await serve(*arguments)
worker.work = work
worker.main(*sys.argv[1:])
"""
"""A worker whose event loop is blocked as soon as a file is there."""


CLUMSY = """
import os, sys, time
from pathlib import Path
from proxy.app import Proxy
from proxy.cli import worker
folder, pid = Path("{folder}"), str(os.getpid())
(folder / ("begun-" + pid)).touch()
while (folder / "wait").exists():
    time.sleep(0.02)
prepare = Proxy.prepare
def clumsily(self, settings):
    if (folder / "clumsy").exists():
        raise OSError("the certificate is gone")
    return prepare(self, settings)
Proxy.prepare = clumsily
worker.main(*sys.argv[1:])
"""
"""A worker that starts only once a file is gone, and can prepare no settings while another is there."""


async def test_a_worker_that_can_not_take_up_the_settings_in_force_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def begun() -> set[str]:
        return {file.name.removeprefix("begun-") for file in tmp_path.glob("begun-*")}

    program = supervisor(tmp_path, [sys.executable, "-c", CLUMSY.format(folder=tmp_path), "info", "plain"])
    await program.start()
    try:
        victim, before = (await workers_of(program))[1], begun()
        assert victim is not None
        (tmp_path / "wait").touch()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(begun() - before) == 1, 40)
        [late] = begun() - before
        (tmp_path / "proxy.toml").write_text(CONFIGURATION.format(port=0) + "[limits]\nidle_timeout = 7\n")
        assert await program.reload() == []
        (tmp_path / "clumsy").touch()
        (tmp_path / "wait").unlink()
        await until(lambda: len(begun() - before) > 1, 40)
        assert not alive(int(late))
        assert "the certificate is gone" in caplog.text
        (tmp_path / "clumsy").unlink()
        async with asyncio.timeout(20):
            while (await workers_of(program)).get(1) in (None, victim, int(late)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
    finally:
        await program.drain()


async def workers_of(program: Supervisor) -> dict[int, int | None]:
    return {each.number: each.pid for each in (await program.survey()).workers}


async def test_refresh_tokens_need_a_store_that_the_workers_share(tmp_path: Path) -> None:
    program = supervisor(tmp_path, [sys.executable, "-c", ""])
    acme = replace(program.settings.tenants["acme"], grant="refresh_token")
    program.settings = replace(program.settings, tenants={"acme": acme}, store=StorePlace("memory"))
    with pytest.raises(ConfigurationError, match=r"store\.url: expected .* tenant acme"):
        await program.start()
    program.settings = replace(program.settings, store=StorePlace("sqlite", tmp_path / "tokens.db"))
    with pytest.raises(WorkerGone):
        await program.start()

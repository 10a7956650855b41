"""Files that change while the program runs: each change is taken up once, by whoever sees it first."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import UserDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.errors import ConfigurationError
from proxy.settings import Settings, load
from proxy.settings.watch import LOOK_EVERY, Reloads
from tests.settings.folder import TENANT, Folder
from tests.support.loops import SkippingLoop
from tests.support.stages import until

BARE = TENANT.replace('"secret"', '{ env = "S" }')
SECRET = TENANT.replace('"secret"', '{ file = "secret" }')


class Program:
    """Has a configuration in force, and reads it again when it is told to.

    :ivar told: how often it was read
    :ivar fails: with this, instead of following what it has read
    :ivar free: while it is not set, nothing is followed
    """

    def __init__(self, folder: Folder, text: str) -> None:
        self.folder = folder
        self.settings = folder.load(text)
        self.told = 0
        self.fails: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.reloads = Reloads(lambda: self.settings, self.reread, self.follow)

    def reread(self) -> Settings:
        self.told += 1
        return load(self.folder.main, {})

    async def follow(self, settings: Settings) -> None:
        await self.free.wait()
        if self.fails is not None:
            raise self.fails
        self.settings = settings

    @property
    def secret(self) -> str:
        secret = self.settings.tenants["acme"].client_secret
        assert secret is not None
        return secret.reveal()


async def looks(program: Program, loop: SkippingLoop, times: int = 2) -> None:
    """Time for so many looks, and for what they find."""
    for _ in range(times):
        await loop.skip(LOOK_EVERY + 0.1)
        async with program.reloads.lock:
            """It has looked."""


@asynccontextmanager
async def watched(program: Program, loop: SkippingLoop) -> AsyncIterator[None]:
    watching = loop.create_task(program.reloads.watch(), name="watch")
    await loop.skip(0)
    yield
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
def program(folder: Folder) -> Program:
    folder.write("secret", "first")
    folder.write("tenants.d/one.toml", TENANT.replace("acme", "one"))
    return Program(folder, f'include = ["tenants.d/*.toml"]\n{SECRET}')


async def test_what_has_not_changed_is_not_read_again(program: Program, clock: SkippingLoop) -> None:
    async with watched(program, clock):
        await looks(program, clock, 3)
    assert program.told == 0


async def test_a_change_is_told_once(program: Program, clock: SkippingLoop) -> None:
    async with watched(program, clock):
        program.folder.write("secret", "second")
        await looks(program, clock, 3)
        assert (program.told, program.secret) == (1, "second")
        program.folder.write("tenants.d/two.toml", TENANT.replace("acme", "two"))
        await looks(program, clock, 3)
        assert (program.told, *program.settings.tenants) == (2, "acme", "one", "two")
        (program.folder.path / "tenants.d/one.toml").unlink()
        await looks(program, clock, 3)
        assert (program.told, *program.settings.tenants) == (3, "acme", "two")


async def test_what_changed_between_the_reading_and_the_first_look_is_seen(
    program: Program, clock: SkippingLoop
) -> None:
    program.folder.write("secret", "second")
    async with watched(program, clock):
        await looks(program, clock)
    assert (program.told, program.secret) == (1, "second")


async def test_what_a_reload_has_taken_up_is_not_read_again(program: Program, clock: SkippingLoop) -> None:
    async with watched(program, clock):
        program.folder.write("secret", "second")
        assert await program.reloads.reload() == []
        await looks(program, clock, 3)
        assert (program.told, program.secret) == (1, "second")
        program.folder.write("secret", "third")
        await looks(program, clock)
    assert (program.told, program.secret) == (2, "third")


async def test_what_is_refused_is_read_again_only_once_it_changes(program: Program, clock: SkippingLoop) -> None:
    async with watched(program, clock):
        (program.folder.path / "secret").unlink()
        await looks(program, clock, 3)
        assert (program.told, program.secret) == (1, "first")
        program.folder.write("secret", "second")
        await looks(program, clock, 3)
    assert (program.told, program.secret) == (2, "second")


async def test_what_was_refused_when_it_was_told_to_read_is_not_read_again_before_it_changes(
    program: Program, clock: SkippingLoop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watched(program, clock):
        program.folder.main.write_text("nonsense")
        [problem] = await program.reloads.reload()
        await looks(program, clock, 3)
        assert program.told == 1
        assert caplog.messages == [f"configuration not reloaded, the old one stays: {problem}"]
        assert await program.reloads.reload() == [problem]  # who asks is answered
        await looks(program, clock, 3)
        assert (program.told, len(caplog.messages)) == (2, 2)
        program.folder.main.write_text(SECRET)
        await looks(program, clock, 3)
    assert (program.told, program.secret) == (3, "first")


async def test_what_is_refused_while_the_watch_waits_for_its_turn_is_read_once(
    program: Program, clock: SkippingLoop
) -> None:
    program.free.clear()
    program.fails = OSError("no such CA")
    async with watched(program, clock):
        program.folder.write("secret", "second")
        reloading = clock.create_task(program.reloads.reload(), name="reload")
        await clock.skip(LOOK_EVERY + 0.1)
        program.free.set()
        assert await reloading == ["no such CA"]
        await looks(program, clock, 3)
    assert (program.told, program.secret) == (1, "first")


async def test_a_change_that_is_found_while_another_is_taken_up_waits_for_its_end(
    program: Program, clock: SkippingLoop
) -> None:
    program.free.clear()
    async with watched(program, clock):
        reloading = clock.create_task(program.reloads.reload(), name="reload")
        await until(lambda: program.told == 1)
        program.folder.write("secret", "second")
        for _ in range(2):
            await clock.skip(LOOK_EVERY + 0.1)
        assert program.told == 1
        program.free.set()
        assert await reloading == []
        await looks(program, clock)
    assert (program.told, program.secret) == (2, "second")


async def test_what_was_refused_before_another_was_taken_up_is_a_change(program: Program, clock: SkippingLoop) -> None:
    refused = program.folder.path / "refused.toml"
    refused.write_text("nonsense")
    async with watched(program, clock):
        for name in ("first", "second"):
            os.link(refused, program.folder.path / name)
        (program.folder.path / "first").replace(program.folder.main)
        await looks(program, clock, 2)
        assert program.told == 1
        program.folder.main.unlink()
        program.folder.main.write_text(SECRET)
        await looks(program, clock, 2)
        assert program.told == 2
        (program.folder.path / "second").replace(program.folder.main)
        await looks(program, clock, 2)
    assert program.told == 3


async def test_a_file_that_only_a_refused_configuration_names_is_watched_too(
    program: Program, clock: SkippingLoop
) -> None:
    async with watched(program, clock):
        program.folder.main.write_text(SECRET.replace('"secret" }', '"yet-to-come" }'))
        await looks(program, clock, 3)
        assert (program.told, program.secret) == (1, "first")
        program.folder.write("yet-to-come", "second")
        await looks(program, clock, 3)
    assert (program.told, program.secret) == (2, "second")


async def test_a_file_that_can_be_read_and_not_used_is_tried_again_once_it_changes(
    program: Program, clock: SkippingLoop
) -> None:
    program.fails = ConfigurationError(["it is of no use"])
    async with watched(program, clock):
        program.folder.write("another", "second")
        program.folder.main.write_text(SECRET.replace('"secret" }', '"another" }'))
        await looks(program, clock, 3)
        assert (program.told, program.secret) == (1, "first")
        program.fails = None
        program.folder.write("another", "third")
        await looks(program, clock, 3)
    assert (program.told, program.secret) == (2, "third")


async def test_a_defect_is_met_once_for_each_change(
    program: Program, clock: SkippingLoop, caplog: pytest.LogCaptureFixture
) -> None:
    program.fails = ZeroDivisionError()
    async with watched(program, clock):
        program.folder.write("secret", "second")
        await looks(program, clock, 3)
        assert program.told == 1
        assert "ZeroDivisionError" in caplog.text
        program.fails = None
        program.folder.write("secret", "third")
        await looks(program, clock, 3)
    assert (program.told, program.secret) == (2, "third")


async def test_at_the_end_nothing_is_taken_up_any_more(
    program: Program, clock: SkippingLoop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watched(program, clock):
        program.reloads.end()
        program.folder.write("secret", "second")
        await looks(program, clock, 3)
        assert await program.reloads.reload() == ["This proxy is stopping."]
    assert (program.told, program.secret, caplog.messages) == (0, "first", [])


# --- what counts from the start to the end ---


PUBLIC = '[listen]\nhost = "0.0.0.0"\n[access]\ncaller_keys = ["a-key-of-sixteen-or-more"]\n'


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ("[listen]\nport = 1\n", ("listen",)),
        ("[admin]\nport = 1\n", ("admin",)),
        ('[store]\nurl = "memory:"\n', ("store",)),
        (f'[store]\nencryption_keys = ["{"k" * 32}"]\n', ("store",)),
        ('[store]\nurl = "memory:"\n[admin]\nport = 1\n[listen]\nport = 2\n', ("listen", "admin", "store")),
        ("[limits]\nidle_timeout = 1\n", ()),
    ],
)
async def test_what_takes_a_restart_is_named_until_it_is_as_it_was(
    folder: Folder, sections: str, named: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    program = Program(folder, TENANT)
    begun = program.settings
    for _ in range(2):
        folder.write("proxy.toml", sections + TENANT)
        assert await program.reloads.reload() == []
        assert program.reloads.needs_restart == named
    kept = ("listen", "admin", "store", "encryption_keys")
    assert all(getattr(program.settings, name) == getattr(begun, name) for name in kept)
    if named:
        told = f"changed in the configuration, and in force from the next start on: {', '.join(named)}"
        assert caplog.messages == [told, told]
    folder.write("proxy.toml", TENANT)
    assert await program.reloads.reload() == []
    assert program.reloads.needs_restart == ()


async def test_what_was_refused_needs_no_restart(folder: Folder) -> None:
    program = Program(folder, TENANT)
    program.fails = OSError("no such CA")
    folder.write("proxy.toml", f"[admin]\nport = 1\n{TENANT}")
    assert await program.reloads.reload() == ["no such CA"]
    assert program.reloads.needs_restart == ()


async def test_nobody_is_let_in_where_the_program_listens_until_its_restart(folder: Folder) -> None:
    program = Program(folder, PUBLIC + TENANT)
    folder.write("proxy.toml", TENANT)  # fit for a start: on loopback, for everybody
    (problem,) = await program.reloads.reload()
    where = f"{folder.main}: listen.host: until a restart it is as it was: expected a loopback address"
    assert problem.startswith(where)
    assert problem.endswith('(got "0.0.0.0")')
    assert program.settings.access.caller_keys


class Late(UserDict[str, str]):
    """An environment that rewrites the configuration when it is asked for a secret."""

    def __init__(self, folder: Folder) -> None:
        super().__init__({"S": "secret"})
        self.folder = folder

    def __getitem__(self, name: str) -> str:
        self.folder.write("proxy.toml", BARE + "# and more")
        return super().__getitem__(name)


async def test_what_is_written_while_the_files_are_read_is_a_change(folder: Folder, clock: SkippingLoop) -> None:
    program = Program(folder, TENANT)
    folder.main.write_text(BARE)
    program.settings = load(folder.main, Late(folder))
    async with watched(program, clock):
        await looks(program, clock)
    assert program.told == 1

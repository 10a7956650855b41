"""Files that change while the program runs: each change is taken up once, by whoever sees it first."""

from __future__ import annotations

import asyncio
from collections import UserDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from proxy.errors import ConfigurationError
from proxy.settings import load
from proxy.settings.watch import LOOK_EVERY, watch
from tests.settings.folder import TENANT, Folder
from tests.support.loops import SkippingLoop

BARE = TENANT.replace('"secret"', '{ env = "S" }')
SECRET = TENANT.replace('"secret"', '{ file = "secret" }')


class Program:
    """Has a configuration in force, and reads it again when it is told to."""

    def __init__(self, folder: Folder, text: str) -> None:
        self.folder = folder
        self.settings = folder.load(text)
        self.told = 0

    async def reload(self) -> None:
        self.told += 1
        self.reread()

    def reread(self) -> None:
        """As on SIGHUP, or as the admin port is asked to."""
        with suppress(ConfigurationError):  # then the old one stays
            self.settings = load(self.folder.main, {})

    @property
    def secret(self) -> str:
        secret = self.settings.tenants["acme"].client_secret
        assert secret is not None
        return secret.reveal()


async def looks(loop: SkippingLoop, times: int = 2) -> None:
    """Time for so many looks, each in a thread."""
    for _ in range(times):
        await loop.skip(LOOK_EVERY + 0.1)
        await asyncio.to_thread(lambda: None)
        await loop.skip(0)


@asynccontextmanager
async def watched(program: Program, loop: SkippingLoop) -> AsyncIterator[None]:
    watching = loop.create_task(watch(lambda: program.settings, program.reload), name="watch")
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
        await looks(clock, 3)
    assert program.told == 0


async def test_a_change_is_told_once(program: Program, clock: SkippingLoop) -> None:
    async with watched(program, clock):
        program.folder.write("secret", "second")
        await looks(clock, 3)
        assert (program.told, program.secret) == (1, "second")
        program.folder.write("tenants.d/two.toml", TENANT.replace("acme", "two"))
        await looks(clock, 3)
        assert (program.told, *program.settings.tenants) == (2, "acme", "one", "two")
        (program.folder.path / "tenants.d/one.toml").unlink()
        await looks(clock, 3)
        assert (program.told, *program.settings.tenants) == (3, "acme", "two")


async def test_what_changed_between_the_reading_and_the_first_look_is_seen(
    program: Program, clock: SkippingLoop
) -> None:
    program.folder.write("secret", "second")
    async with watched(program, clock):
        await looks(clock)
    assert (program.told, program.secret) == (1, "second")


async def test_what_a_reload_has_taken_up_is_not_read_again(program: Program, clock: SkippingLoop) -> None:
    async with watched(program, clock):
        program.folder.write("secret", "second")
        program.reread()
        await looks(clock, 3)
        assert (program.told, program.secret) == (0, "second")
        program.folder.write("secret", "third")
        await looks(clock)
    assert (program.told, program.secret) == (1, "third")


async def test_what_is_refused_is_read_again_only_once_it_changes(program: Program, clock: SkippingLoop) -> None:
    async with watched(program, clock):
        (program.folder.path / "secret").unlink()
        await looks(clock, 3)
        assert (program.told, program.secret) == (1, "first")
        program.folder.write("secret", "second")
        await looks(clock, 3)
    assert (program.told, program.secret) == (2, "second")


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
        await looks(clock)
    assert program.told == 1

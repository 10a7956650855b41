"""A configuration that is taken up anew while the program runs: when it is told to, and when the files are replaced
(Kubernetes, Vault agents, editors).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from proxy.errors import ConfigurationError
from proxy.settings.beginning import as_begun, needs_restart
from proxy.settings.load import matching
from proxy.settings.model import Settings
from proxy.settings.values import Stamp, stamp

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between looks."""


class Reloads:
    """Takes up the files anew, one at a time: whenever it is told to, and once for whatever change it finds in them.

    What was refused, whoever asked for that, is told once; it is not tried by itself before a file changes again, be
    it one that only the refused configuration names.

    :param settings: those in force
    :param reread: reads the files again
    :param take_up: has settings followed; nothing is changed where it raises ConfigurationError or OSError
    :ivar lock: held by whoever takes something up
    :ivar needs_restart: the sections of the files that say something else than what counts until a restart
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        reread: Callable[[], Settings],
        take_up: Callable[[Settings], Awaitable[None]],
    ) -> None:
        self.lock = asyncio.Lock()
        self.needs_restart: tuple[str, ...] = ()
        self._settings = settings
        self._reread = reread
        self._take_up = take_up
        self._tried: dict[Path, Stamp] = {}
        self._ended = False

    async def reload(self) -> list[str]:
        """Takes up the files as they are now: all that they say, or nothing.

        :return: the problems if it can't be used; then everything stays as it was
        """
        async with self.lock:
            return await self._try()

    async def watch(self) -> None:
        """Takes up the files whenever they are others than those in force were; until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self._look()
            except Exception:
                log.exception(
                    "a defect of this program kept changed files from being taken up",
                    extra={"event": "configuration.defect"},
                )

    def end(self) -> None:
        """From now on nothing is taken up."""
        self._ended = True

    async def _look(self) -> None:
        async with self.lock:
            known = self._settings()
            now = await asyncio.to_thread(_stamps, known, self._tried)
            if self._ended or now in (known.sources, self._tried):
                return
            log.info("a file of the configuration has changed", extra={"event": "configuration.changed"})
            await self._try()

    async def _try(self) -> list[str]:
        if self._ended:
            return ["This proxy is stopping."]
        # Before anything is read: what is written from now on is another change.
        self._tried = await asyncio.to_thread(_stamps, self._settings(), ())
        try:
            settings = await asyncio.to_thread(self._reread)
            self._tried.update(settings.sources)
            begun = self._settings()
            await self._take_up(as_begun(settings, begun))
        except ConfigurationError as error:
            self._tried.update(error.sources)
            return _refused(error.problems)
        except OSError as error:
            return _refused([str(error)])
        self._tried = {}
        self.needs_restart = needs_restart(settings, begun)
        if self.needs_restart:
            log.warning(
                "changed in the configuration, and in force from the next start on: %s",
                ", ".join(self.needs_restart),
                extra={"event": "configuration.needs_restart"},
            )
        return []


def _refused(problems: list[str]) -> list[str]:
    for problem in problems:
        log.error(
            "configuration not reloaded, the old one stays: %s", problem, extra={"event": "configuration.refused"}
        )
    return problems


def _stamps(settings: Settings, tried: Iterable[Path]) -> dict[Path, Stamp]:
    """The files as they are now, those that have been added, and those that were tried."""
    added = (path for pattern in settings.included for path in matching(pattern))
    return {path: stamp(path) for path in {*settings.sources, *added, *tried}}

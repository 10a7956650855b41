"""Files of a configuration that are replaced while the program runs (Kubernetes, Vault agents, editors)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from proxy.settings.load import matching
from proxy.settings.model import Settings
from proxy.settings.values import Stamp, stamp

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between looks."""


async def watch(settings: Callable[[], Settings], changed: Callable[[], Awaitable[object]]) -> None:
    """Calls ``changed`` once for whatever makes the files others than those in force were; until it is cancelled.

    :param settings: those in force, which name the files
    :param changed: has them read again; if they are refused, the next change is waited for
    """
    tried: Mapping[Path, Stamp] = {}
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            known = settings()
            now = await asyncio.to_thread(_stamps, known)
            if now in (known.sources, tried):
                continue
            log.info("a file of the configuration has changed", extra={"event": "configuration.changed"})
            await changed()
            tried = now
        except Exception:
            log.exception(
                "a defect of this program kept changed files from being taken up",
                extra={"event": "configuration.defect"},
            )


def _stamps(settings: Settings) -> dict[Path, Stamp]:
    """The files as they are now, and those that have been added."""
    added = (path for pattern in settings.included for path in matching(pattern))
    return {path: stamp(path) for path in {*settings.sources, *added}}

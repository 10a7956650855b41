"""Files of a configuration that are replaced while the program runs (Kubernetes, Vault agents, editors)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from proxy.settings.load import matching
from proxy.settings.model import Settings

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between looks."""

Stamps = dict[Path, tuple[int, int, int] | None]


async def watch(settings: Callable[[], Settings], seen: Stamps, changed: Callable[[], Awaitable[object]]) -> None:
    """Calls ``changed`` whenever files are others than before; until it is cancelled.

    :param settings: those in force, which name the files
    :param seen: the files as they were when these settings were read
    """
    while True:
        await asyncio.sleep(LOOK_EVERY)
        try:
            now = await asyncio.to_thread(stamps, settings())
            if now != seen:
                log.info("a file of the configuration has changed", extra={"event": "configuration.changed"})
                await changed()
                # As it was before: what changes while the files are read again is seen at the next look.
                seen = now
        except Exception:
            log.exception(
                "a defect of this program kept changed files from being taken up",
                extra={"event": "configuration.defect"},
            )


def stamps(settings: Settings) -> Stamps:
    """What changes when a file does, symbolic links followed, as Kubernetes swaps them; and when one is added."""
    paths = {*settings.sources, *(path for pattern in settings.included for path in matching(pattern))}
    found: Stamps = {}
    for path in paths:
        try:
            stat = path.stat()
            found[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            found[path] = None
    return found

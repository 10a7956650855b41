"""Each test has a folder of its own, and those that move the clock a loop that lets them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.settings.folder import Folder
from tests.support.loops import SkippingLoop, clock

__all__ = ["clock"]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "clock" in getattr(item, "fixturenames", ()):
        return {"skipping": SkippingLoop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)

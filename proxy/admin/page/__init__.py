"""``/``: the page for people who would rather look than read; one file, which follows ``/events``."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Page(NamedTuple):
    """The page as it is sent."""

    body: bytes
    policy: str
    """Its Content-Security-Policy: its own style and script by digest, its own port, and nothing else."""


@cache
def page() -> Page:
    """The page. It is the same for everybody; what it shows, it asks for."""
    style, script, markup = (_read(name) for name in ("page.css", "page.js", "page.html"))
    body = markup.replace("/* page.css */", style).replace("/* page.js */", script)
    policy = "; ".join(
        (
            "default-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "connect-src 'self'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            # No text of a report can become markup, whatever the script does.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    return Page(body.encode(), policy)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

"""The page as it is sent: one file that names no other, and whose policy knows just its own parts."""

from __future__ import annotations

import base64
import hashlib
import re

from proxy.admin.page import page


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def between(start: str, end: str) -> str:
    found = re.findall(f"{start}(.*?){end}", page().body.decode(), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_style_and_script_are_allowed_by_digest_and_nothing_else_is() -> None:
    assert page().policy.split("; ") == [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
        "img-src data:",
        f"style-src {digest(between('<style>', '</style>'))}",
        f"script-src {digest(between('<script>', '</script>'))}",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]


def test_it_needs_no_other_file_and_no_other_host() -> None:
    text = page().body.decode().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|\bsrc=|style=|\son\w+=|@import|url\(", text)
    assert re.findall(r"<link [^>]*href=\"([a-z]+):", text) == ["data"]


def test_no_text_is_ever_read_as_markup() -> None:
    script = between("<script>", "</script>")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)


def test_it_is_small_enough_to_be_sent_at_once() -> None:
    assert len(page().body) < 48_000

"""The page: what it shows, and that nothing in a report becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

from proxy.admin.page import POLICY, page
from proxy.core.report import ProxyReport, TokenState
from tests.admin.fakes import dead, report, tenant

_ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;{name}"


class _Elements(HTMLParser):
    """Which elements, attributes and text a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(shown: ProxyReport) -> _Elements:
    elements = _Elements()
    elements.feed(_text(shown))
    elements.close()
    return elements


def _text(shown: ProxyReport) -> str:
    return b"".join(page(shown)).decode()


def test_nothing_in_a_report_becomes_markup() -> None:
    harmless = _read(report(dead()))
    attacked = replace(dead(_ATTACK, _ATTACK), error=_ATTACK)
    found = _read(replace(report(attacked), version=_ATTACK, listening=(_ATTACK,)))
    assert found.names == harmless.names
    assert found.attributes == harmless.attributes
    assert found.text.count(_ATTACK) == 4


def test_the_style_is_allowed_by_digest_and_nothing_else_is_loaded() -> None:
    text = _text(report(tenant()))
    style = re.search("<style>(.*)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert POLICY.split("; ")[-1] == f"style-src 'sha256-{digest}'"
    assert POLICY.split("; ")[:-1] == [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert not re.search(r"src=|style=|\son\w+=|<script|<link|https?://(?!127\.0\.0\.1)", text)


def test_tenants_in_trouble_come_first_with_what_to_do() -> None:
    text = _text(report(tenant("fine"), dead(), tenant("late", TokenState.EXPIRED)))
    assert text.index("dead") < text.index("late") < text.index("fine")
    assert "Check the region and the client id. Next attempt in 12 s." in text


def test_it_says_whether_the_proxy_listens() -> None:
    assert "Listening on http://127.0.0.1:8080" in _text(report())
    assert "Draining" in _text(replace(report(), draining=True, listening=()))
    assert "Not listening yet" in _text(replace(report(), listening=()))

"""The forward proxy: how its URL is read, and which hosts are reached without it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.detour import DIRECT, Detours, ForwardProxy, parse_direct, parse_proxy
from proxy.core.secret import Secret

CORP = ForwardProxy("proxy.corp", 3128)


def basic(text: str) -> Secret:
    return Secret("Basic " + base64.b64encode(text.encode()).decode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.corp:3128", CORP),
        ("http://Proxy.Corp:3128/", CORP),
        ("proxy.corp:3128", CORP),
        ("http://proxy.corp", ForwardProxy("proxy.corp", 80)),
        ("http://[::1]:3128", ForwardProxy("::1", 3128)),
        ("http://u:p@proxy.corp:3128", ForwardProxy("proxy.corp", 3128, basic("u:p"))),
        ("http://u%40corp:p%3A%25@proxy.corp:3128", ForwardProxy("proxy.corp", 3128, basic("u@corp:p:%"))),
        ("http://u@proxy.corp:3128", ForwardProxy("proxy.corp", 3128, basic("u:"))),
    ],
)
def test_a_proxy_is_read_with_its_credentials(text: str, expected: ForwardProxy) -> None:
    assert parse_proxy(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://proxy.corp",
        "socks5://proxy.corp",
        "http://proxy.corp/path",
        "http://",
        "http://u:p@",
        "http://a:b:c",
    ],
)
def test_what_is_no_http_proxy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_proxy(text)


@given(st.text(st.characters(codec="ascii", min_codepoint=33), min_size=8, max_size=20))
def test_no_password_shows(password: str) -> None:
    told = ""
    try:
        proxy = parse_proxy(f"http://user:{password}@proxy.corp:3128")
        told = f"{proxy} {proxy!r} {Detours(proxy)!r}"
    except ValueError as error:
        told = str(error)
    assert password not in told


@pytest.mark.parametrize(
    ("entries", "host", "direct"),
    [
        ("", "api.example.com", False),
        ("*", "api.example.com", True),
        ("example.com", "api.example.com", True),
        ("example.com", "example.com", True),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("EXAMPLE.com", "api.example.com", True),
        ("ample.com", "api.example.com", False),
        ("example.com.evil", "api.example.com", False),
        ("a.example, example.com", "api.example.com", True),
        ("a.example example.com", "api.example.com", True),
        ("example.com:443", "api.example.com", True),
        ("example.com:8443", "api.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("fd00::1", "fd00::2", False),
        ("10.0.0.0/8", "api.example.com", False),
        (".", "api.example.com", False),
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("", "::1", True),
        ("", "localhost.example", False),
    ],
)
def test_what_is_reached_without_it(entries: str, host: str, direct: bool) -> None:
    assert Detours(CORP, parse_direct(entries)).to(host, 443) == (None if direct else CORP)


def test_without_a_proxy_everything_is_reached_directly() -> None:
    assert DIRECT.to("api.example.com", 443) is None

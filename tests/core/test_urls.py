"""Base URLs, origins and hosts in one spelling."""

from __future__ import annotations

import pytest

from proxy.core.urls import BaseUrl, bracketed, is_loopback, parse_base_url, parse_host, parse_origin


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.mypurecloud.de", BaseUrl("https", "api.mypurecloud.de", 443, "")),
        ("https://api.mypurecloud.de/", BaseUrl("https", "api.mypurecloud.de", 443, "")),
        ("HTTPS://API.Example.COM/Gate/Way/", BaseUrl("https", "api.example.com", 443, "/Gate/Way")),
        ("http://127.0.0.1:8090", BaseUrl("http", "127.0.0.1", 8090, "")),
        ("http://[::1]:8090/x", BaseUrl("http", "::1", 8090, "/x")),
        ("https://example.com:443", BaseUrl("https", "example.com", 443, "")),
        ("https://example.com:1", BaseUrl("https", "example.com", 1, "")),
        ("https://example.com:65535", BaseUrl("https", "example.com", 65535, "")),
        ("wss://webmessaging.example.com", BaseUrl("https", "webmessaging.example.com", 443, "")),
        ("ws://localhost", BaseUrl("http", "localhost", 80, "")),
        ("https://example.com/a%2Fb/~c", BaseUrl("https", "example.com", 443, "/a%2Fb/~c")),
    ],
)
def test_a_base_url_is_read(text: str, url: BaseUrl) -> None:
    assert parse_base_url(text) == url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a URL"),
        ("api.mypurecloud.de", "expected a URL"),
        ("//api.mypurecloud.de", "expected a URL"),
        ("ftp://example.com", "begins with https://"),
        ("https://", "host name"),
        ("https:///path", "host name"),
        ("https://example.com?x=1", "without query"),
        ("https://example.com/#top", "without query"),
        ("https://example.com?", "without query"),
        ("https://user:hunter2@example.com", "no user name or password"),
        ("https://hunter2@example.com", "no user name or password"),
        ("https://example.com:0", "port between"),
        ("https://example.com:65536", "port between"),
        ("https://example.com:", "host and, if any, a port"),
        ("https://example.com:https", "host and, if any, a port"),
        ("https://::1", "host and, if any, a port"),
        ("https://[::1", "host and, if any, a port"),
        ("https://[]", "host name"),
        ("https://[1.2.3.4]", "host name"),
        ("https://exa mple.com", "host name"),
        ("https://example.com\n", "host name"),
        ("https://example.com/a b", "percent-encoded"),
        ("https://example.com/\n", "percent-encoded"),
        ("https://example.com/%zz", "percent-encoded"),
        ("https://example.com/ü", "percent-encoded"),
        ("https://example.com/a/../b", "dot segments"),
        ("https://example.com/.", "dot segments"),
        ("https://münchen.example", "ASCII"),
    ],
)
def test_what_is_no_base_url_is_refused_without_repeating_it(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        parse_base_url(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "authority", "shown"),
    [
        ("https://example.com:443", "example.com", "https://example.com"),
        ("http://example.com:443/x", "example.com:443", "http://example.com:443/x"),
        ("http://example.com:80/", "example.com", "http://example.com"),
        ("https://[::1]:8443", "[::1]:8443", "https://[::1]:8443"),
        ("https://[2001:DB8::0]", "[2001:db8::]", "https://[2001:db8::]"),
    ],
)
def test_a_default_port_is_left_out_and_an_ipv6_address_stands_in_brackets(
    text: str, authority: str, shown: str
) -> None:
    url = parse_base_url(text)
    assert url.authority == authority
    assert str(url) == shown


def test_https_is_tls_and_http_is_not() -> None:
    assert parse_base_url("https://example.com").tls
    assert not parse_base_url("http://example.com").tls


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.COM", "example.com"),
        ("localhost", "localhost"),
        ("api_gateway", "api_gateway"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("1and1.example", "1and1.example"),
    ],
)
def test_a_host_is_read(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a..b", "-a.example", "a-.example", "a" * 64, ".".join(["a" * 63] * 4) + ".b", "example.com.",
        "example.com:80", "*.example.com", "a/b", "a\n", "256.0.0.1", "127.1", "0x7f.1", "127.0.0.01", "1.2.3.4.5",
        "[127.0.0.1]", "[::1", "::1]", ":::", "fe80::1%eth0", "münchen.example",
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_host(text)


def test_only_an_ipv6_address_is_put_in_brackets() -> None:
    assert bracketed("::1") == "[::1]"
    assert bracketed("127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.255.255.254", "::1"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "128.0.0.1", "10.0.0.1", "localhost.example", "x.localhost"])
def test_other_hosts_may_leave_the_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://chat.example.com", "https://chat.example.com"),
        ("HTTPS://Chat.Example.com:443", "https://chat.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://example.com:443", "http://example.com:443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_origin_is_written_as_browsers_do(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    ["*", "null", "chat.example.com", "https://chat.example.com/", "https://a.example/x", "https://a.example?x",
     "https://*.example.com", "https://u@a.example", "https://a.example:0", "https://", ""],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_origin(text)

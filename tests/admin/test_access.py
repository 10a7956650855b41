"""Who may ask: Host against re-bound names, Origin and Sec-Fetch-Site against other sites' pages."""

from __future__ import annotations

import pytest

from proxy.admin.access import check_name, check_page
from proxy.core.access import callers
from proxy.errors import BadRequest, NotAllowed

_RULES = callers("10.1.1.1", ("admin.example",), (), ())


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8081",
        "acme.localhost:8081",
        "127.0.0.1",
        "127.0.0.1:8081",
        "[::1]:8081",
        "10.1.1.1:8081",
        "admin.example",
        "Admin.Example:80",
    ],
)
def test_our_names_pass(host: str) -> None:
    assert check_name(_RULES, [host], "127.0.0.1") == host


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "admin.example.evil",
        "sub.admin.example",
        "10.1.1.2",
        "127.0.0.2",
        "[::2]",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    with pytest.raises(NotAllowed):
        check_name(_RULES, [host], "127.0.0.1")


@pytest.mark.parametrize("hosts", [[], [""], ["localhost", "localhost"], ["localhost/evil"], ["a@localhost"], ["ö"]])
def test_no_host_or_two_or_a_malformed_one_is_a_bad_request(hosts: list[str]) -> None:
    with pytest.raises(BadRequest):
        check_name(_RULES, hosts, "127.0.0.1")


@pytest.mark.parametrize(
    "local, host",
    [("10.9.8.7", "10.9.8.7:8081"), ("fd00::1", "[fd00::1]:8081"), ("fd00::1", "[FD00::1]")],
)
def test_the_address_the_connection_came_to_passes(local: str, host: str) -> None:
    check_name(_RULES, [host], local)
    for other in ("10.9.8.6", "fd00::2", None):
        with pytest.raises(NotAllowed):
            check_name(_RULES, [host], other)


@pytest.mark.parametrize("site", [[], ["same-origin"], ["none"]])
@pytest.mark.parametrize("origin", [[], ["http://localhost:8081"], ["HTTP://LOCALHOST:8081"]])
def test_our_own_pages_and_programs_may_change_things(origin: list[str], site: list[str]) -> None:
    check_page("http", "localhost:8081", origin, site)


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:8080",
        "http://localhost",
        "https://localhost:8081",
        "http://127.0.0.1:8081",
        "http://evil.example",
        "null",
        "",
    ],
)
def test_another_origin_is_refused(origin: str) -> None:
    with pytest.raises(NotAllowed):
        check_page("http", "localhost:8081", [origin], ["same-origin"])


def test_one_foreign_origin_of_two_is_refused() -> None:
    with pytest.raises(NotAllowed):
        check_page("http", "localhost:8081", ["http://localhost:8081", "http://evil.example"], [])


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "Same-Origin?"])
def test_another_site_is_refused_even_without_an_origin(site: str) -> None:
    with pytest.raises(NotAllowed):
        check_page("http", "localhost:8081", [], [site])
    with pytest.raises(NotAllowed):
        check_page("http", "localhost:8081", ["http://localhost:8081"], [site])
    with pytest.raises(NotAllowed):
        check_page("http", "localhost:8081", [], ["same-origin", site])

"""What is read of the resources that tell a token's organization."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.core.organization import REJECTED, UNCONFIRMED, Told, answered, closed, mismatch, read
from proxy.errors import TokenRefused, TokenUnavailable
from tests.core import test_grants

NOW = 1_700_000_000.0
CLIENT = replace(test_grants.CLIENT, api_url="https://api.mypurecloud.de")
DATE = CIMultiDict({"date": formatdate(NOW, usegmt=True)})
ENTITY = {"id": "1", "name": "Acme"}


def told(status: int = 200, body: object = None) -> Told | None:
    return read(CLIENT, status, DATE, json.dumps(body).encode(), NOW)


def test_both_resources_tell_the_organization() -> None:
    token = {"organization": ENTITY, "homeOrganization": {"id": "2"}, "authorizedScope": ["a", "b"]}
    assert told(body=token) == Told("1", "Acme", ("a", "b"), NOW)
    assert told(body=ENTITY) == Told("1", "Acme", None, NOW)


@pytest.mark.parametrize("body", [None, [], "IP address", {"code": "missing.permissions", "message": "zip allow list"}])
@pytest.mark.parametrize("status", [403, 404])
def test_a_closed_resource_tells_nothing(status: int, body: object) -> None:
    assert told(status, body) is None


@pytest.mark.parametrize(
    ("status", "body"), [(403, b"<html>"), (403, b'{"code": "\\u001b[31m"}'), (403, b'{"code": ["a"]}')]
)
def test_a_code_that_no_terminal_should_see_is_left_out(status: int, body: bytes) -> None:
    assert answered(status, body) == "403"


@pytest.mark.parametrize(
    ("answers", "withheld"),
    [
        (["403 not.authorized", "403 not.authorized"], "403 not.authorized"),
        (["403", "404 not.found"], "403, 404 not.found"),
        (["404", "403 missing.permissions"], "404, 403 missing.permissions"),
    ],
)
def test_where_one_is_closed_the_api_is_the_right_one(answers: list[str], withheld: str) -> None:
    assert closed(CLIENT, answers, DATE["date"]) == Told(server_time=NOW, withheld=withheld)


def test_where_neither_exists_it_is_not() -> None:
    with pytest.raises(TokenRefused, match=r"Tenant acme: https://api\.mypurecloud\.de knows neither"):
        closed(CLIENT, ["404", "404 not.found"], None)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "body",
    [
        {"message": "Client IP address is not allowed", "code": "not.authorized"},
        {"message": "Your IP is not on the allow list", "code": "bad.credentials"},
        {"code": "ip.address.not.allowed"},
    ],
)
def test_an_address_that_is_not_let_in_is_told_and_no_other_token_asked_for(status: int, body: object) -> None:
    with pytest.raises(TokenRefused, match="does not let this machine's IP address in") as caught:
        told(status, body)
    assert caught.value.error == UNCONFIRMED


@pytest.mark.parametrize(
    ("api_url", "token_url", "advice"),
    [
        ("https://api.mypurecloud.de", "https://login.mypurecloud.de/oauth/token", "both are of mypurecloud.de: look"),
        ("https://api.mypurecloud.ie", "https://login.mypurecloud.de/oauth/token", "must be of the same region"),
        ("https://gateway.example/x", "https://login.mypurecloud.de/oauth/token", "must be of the same region"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/oauth/token", "must be of the same region"),
    ],
)
def test_where_api_and_login_are_of_one_region_that_is_not_blamed(api_url: str, token_url: str, advice: str) -> None:
    with pytest.raises(TokenRefused, match=re.escape(advice)):
        read(replace(CLIENT, api_url=api_url, token_url=token_url), 401, DATE, b"", NOW)


@pytest.mark.parametrize(
    ("status", "error"), [(401, REJECTED), (301, UNCONFIRMED), (302, UNCONFIRMED), (307, UNCONFIRMED)]
)
def test_a_token_that_is_not_taken_is_refused(status: int, error: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        told(status, {"code": "bad.credentials"})
    assert (caught.value.error, caught.value.server_time) == (error, NOW)


@pytest.mark.parametrize("status", [400, 408, 418, 429, 500, 503])
def test_what_may_be_told_later_is_not_final(status: int) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        read(CLIENT, status, CIMultiDict({"Retry-After": "9"}), b"", NOW)
    assert (caught.value.error, caught.value.retry_after) == ("unconfirmed", 9)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b"[" * 100_000])
def test_an_answer_that_is_no_object_is_a_portals(body: bytes) -> None:
    with pytest.raises(TokenUnavailable, match="no JSON object"):
        read(CLIENT, 200, DATE, body, NOW)


@pytest.mark.parametrize("value", [None, 7, "", "a\x1b[31m", "x" * 201, ["1"], {}])
def test_an_id_that_no_terminal_should_see_is_none(value: object) -> None:
    assert told(body={"organization": {"id": value, "name": value}}) == Told(None, None, None, NOW)


members = st.sampled_from(["organization", "id", "name", "authorizedScope"])
bodies = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner, max_size=3),
)


@given(bodies)
def test_no_answer_is_an_accident(body: object) -> None:
    try:
        told(body=body)
    except TokenUnavailable:
        assert not isinstance(body, dict)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Told("1", "Acme"), None),
        (Told("1"), None),
        (Told("2", "Globex"), "the token belongs to organization 2 (Globex), and org_id says 1"),
        (Told("2"), "the token belongs to organization 2, and org_id says 1"),
        (Told(name="Acme"), "does not tell this client its organization"),
        (Told(), "does not tell this client its organization, so that org_id can't be compared."),
        (Told(withheld="403 a.b"), "does not tell this client its organization (403 a.b), so that org_id"),
    ],
)
def test_only_the_same_id_is_the_same_organization(found: Told, reason: str | None) -> None:
    said = mismatch("1", found)
    assert said is None if reason is None else reason in (said or "")

"""What is read of the resources that tell a token's organization."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.core.organization import REJECTED, UNCONFIRMED, Told, closed, mismatch, read
from proxy.errors import TokenRefused, TokenUnavailable

NOW = 1_700_000_000.0
DATE = CIMultiDict({"date": formatdate(NOW, usegmt=True)})
ENTITY = {"id": "1", "name": "Acme"}


def told(status: int = 200, body: object = None) -> Told | None:
    return read("acme", status, DATE, json.dumps(body).encode(), NOW)


def test_both_resources_tell_the_organization() -> None:
    token = {"organization": ENTITY, "homeOrganization": {"id": "2"}, "authorizedScope": ["a", "b"]}
    assert told(body=token) == Told("1", "Acme", ("a", "b"), NOW)
    assert told(body=ENTITY) == Told("1", "Acme", None, NOW)


@pytest.mark.parametrize("status", [403, 404])
def test_a_closed_resource_tells_nothing(status: int) -> None:
    assert told(status) is None


@pytest.mark.parametrize("statuses", [[403, 403], [403, 404], [404, 403]])
def test_where_one_is_closed_the_api_is_the_right_one(statuses: list[int]) -> None:
    assert closed("acme", "https://api", statuses) == Told()


def test_where_neither_exists_it_is_not() -> None:
    with pytest.raises(TokenRefused, match="Tenant acme: https://api knows neither"):
        closed("acme", "https://api", [404, 404])


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
        read("acme", status, CIMultiDict({"Retry-After": "9"}), b"", NOW)
    assert (caught.value.error, caught.value.retry_after) == ("unconfirmed", 9)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b"[" * 100_000])
def test_an_answer_that_is_no_object_is_a_portals(body: bytes) -> None:
    with pytest.raises(TokenUnavailable, match="no JSON object"):
        read("acme", 200, DATE, body, NOW)


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
        (Told(), "does not tell this client its organization"),
    ],
)
def test_only_the_same_id_is_the_same_organization(found: Told, reason: str | None) -> None:
    said = mismatch("1", found)
    assert said is None if reason is None else reason in (said or "")

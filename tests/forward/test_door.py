"""The login door: what counts as a person's own login, and a placeholder that gives nothing away."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.routing import PLACEHOLDER
from proxy.forward.door import is_own_login, placeholder, read_form


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"", {}),
        (b"grant_type=client_credentials", {"grant_type": "client_credentials"}),
        (b"a=b%20c+d&e=", {"a": "b c d", "e": ""}),
        (b"a=1&a=2", {"a": "2"}),
        (b"\xff\xfe", {}),
        (b"&".join(b"a%d=b" % n for n in range(65)), {}),
    ],
)
def test_a_form_is_read_and_what_is_none_has_no_parameters(body: bytes, form: dict[str, str]) -> None:
    assert read_form(body) == form


@given(st.binary(max_size=200))
def test_no_body_can_not_be_read(body: bytes) -> None:
    assert isinstance(read_form(body), dict)


@pytest.mark.parametrize(
    ("form", "own"),
    [
        ({}, False),
        ({"grant_type": "client_credentials"}, False),
        ({"grant_type": "refresh_token", "refresh_token": PLACEHOLDER}, False),
        ({"grant_type": "refresh_token", "refresh_token": "a-real-one"}, True),
        ({"grant_type": "refresh_token"}, True),
        ({"grant_type": "authorization_code"}, True),
        ({"grant_type": "password"}, True),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:saml2-bearer"}, True),
        ({"grant_type": "something-else"}, False),
    ],
)
def test_a_persons_own_login_is_told_from_a_programs(form: dict[str, str], own: bool) -> None:
    assert is_own_login(form) is own


@pytest.mark.parametrize(
    ("grant", "refreshable"),
    [("client_credentials", False), ("authorization_code", True), ("refresh_token", True), ("password", False)],
)
def test_a_placeholder_has_what_the_sdks_need_and_no_token(grant: str, refreshable: bool) -> None:
    section, body = placeholder({"grant_type": grant}, 1234.9)
    told = json.loads(body)
    assert told.pop("access_token") == PLACEHOLDER
    assert told.pop("refresh_token", None) == (PLACEHOLDER if refreshable else None)
    assert told == {"token_type": "bearer", "expires_in": 1234}
    assert b"Content-Length: %d\r\n" % len(body) in section
    assert b"Cache-Control: no-store\r\n" in section
    assert section.endswith(b"\r\n")


@pytest.mark.parametrize(("left", "told"), [(2.9, 2), (1.0, 1), (0.4, 1), (-5.0, 1)])
def test_a_placeholder_never_looks_expired(left: float, told: int) -> None:
    assert json.loads(placeholder({}, left)[1])["expires_in"] == told

"""Token requests taken apart, and client authentication."""

from __future__ import annotations

import base64

import jwt
import pytest

from proxy.sandbox import ACME, DEFAULT_ORGS, Client, Org
from proxy.sandbox.clients import (
    CLIENT_ASSERTION_TYPE,
    OAuthError,
    TokenRequest,
    authenticate,
    read_token_request,
)
from tests.sandbox.caller import basic

FORM = "application/x-www-form-urlencoded"
KEY = b"a key of thirty-two bytes or more"


def read(body: str, *authorization: str, content_type: str = FORM) -> TokenRequest:
    return read_token_request(body.encode(), content_type, list(authorization))


def refusal(body: str, *authorization: str, content_type: str = FORM) -> str:
    with pytest.raises(OAuthError) as caught:
        read(body, *authorization, content_type=content_type)
    return caught.value.error


def test_basic_authentication_is_form_url_decoded() -> None:
    request = read("grant_type=client_credentials", basic("an id+", "s%cret: é&"))
    assert (request.client_id, request.client_secret) == ("an id+", "s%cret: é&")
    assert request.client_auth == "client_secret_basic"


def test_a_secret_that_was_not_form_url_encoded_does_not_match() -> None:
    org = Org("1", "one", (Client("id", "a+b"),))
    plain = "Basic " + base64.b64encode(b"id:a+b").decode()
    with pytest.raises(OAuthError, match="authentication failed"):
        authenticate(read("grant_type=client_credentials", plain), [org], 0)
    assert authenticate(read("grant_type=client_credentials", basic("id", "a+b")), [org], 0)


def test_the_body_may_show_the_secret() -> None:
    request = read("grant_type=client_credentials&client_id=an+id&client_secret=a%2Bb")
    assert (request.client_id, request.client_secret) == ("an id", "a+b")
    assert request.client_auth == "client_secret_post"


@pytest.mark.parametrize(
    "body,authorization",
    [
        ("grant_type=x&client_secret=s&client_id=c", [basic("c", "s")]),
        ("grant_type=x&client_assertion=a", [basic("c", "s")]),
        ("grant_type=x&client_secret=s&client_assertion=a&client_id=c", []),
        ("grant_type=x", [basic("c", "s"), basic("c", "s")]),
        ("grant_type=x&client_id=other", [basic("c", "s")]),
        ("grant_type=x&grant_type=x", [basic("c", "s")]),
        ("scope=x", [basic("c", "s")]),
        ("grant_type=%ff", [basic("c", "s")]),
    ],
)
def test_what_rfc_6749_forbids_is_an_invalid_request(body: str, authorization: list[str]) -> None:
    assert refusal(body, *authorization) == "invalid_request"


def test_json_is_an_invalid_request() -> None:
    assert refusal("{}", basic("c", "s"), content_type="application/json") == "invalid_request"


@pytest.mark.parametrize("value", ["Basic", "Basic !", "Bearer x", "Basic bm8gY29sb24="])  # "no colon"
def test_an_authorization_that_is_not_basic_fails(value: str) -> None:
    assert refusal("grant_type=client_credentials", value) == "invalid_client"


def test_no_authentication_at_all_fails() -> None:
    assert refusal("grant_type=client_credentials") == "invalid_client"


def test_the_error_bodies_are_genesys_clouds() -> None:
    with pytest.raises(OAuthError) as unknown:
        authenticate(read("grant_type=x", basic("nobody", "s")), DEFAULT_ORGS, 0)
    assert unknown.value.body() == {
        "error": "invalid_client",
        "description": "client not found",
        "error_description": "client not found",
    }
    with pytest.raises(OAuthError) as wrong:
        authenticate(read("grant_type=x", basic(ACME.clients[0].id, "wrong")), DEFAULT_ORGS, 0)
    assert wrong.value.body() == {
        "error": "invalid_client",
        "description": "authentication failed",
        "error_description": "authentication failed",
    }


def test_a_public_client_is_not_one_that_forgot_its_secret() -> None:
    public = read(f"grant_type=authorization_code&client_id={ACME.clients[1].id}")
    assert authenticate(public, DEFAULT_ORGS, 0) == (ACME.clients[1], ACME)
    with pytest.raises(OAuthError, match="authentication failed"):
        authenticate(read(f"grant_type=authorization_code&client_id={ACME.clients[0].id}"), DEFAULT_ORGS, 0)


@pytest.mark.parametrize(
    "changed,proven",
    [
        ({}, True),
        ({"iss": "other"}, False),
        ({"sub": "other", "iss": "other"}, False),
        ({"exp": 1_000}, False),
        ({"exp": None}, False),
        ({"aud": "https://elsewhere.invalid/"}, False),
    ],
)
def test_an_assertion_must_name_the_client_and_hold(changed: dict[str, object], *, proven: bool) -> None:
    id_ = ACME.clients[0].id
    claims = {"iss": id_, "sub": id_, "aud": "http://127.0.0.1/oauth/token", "exp": 1_060, **changed}
    assertion = jwt.encode({k: v for k, v in claims.items() if v is not None}, KEY, algorithm="HS256")
    request = read(
        f"grant_type=client_credentials&client_id={id_}&client_assertion={assertion}"
        f"&client_assertion_type={CLIENT_ASSERTION_TYPE}"
    )
    assert request.client_auth == "private_key_jwt"
    if proven:
        assert authenticate(request, DEFAULT_ORGS, 1_000)[1] is ACME
        return
    with pytest.raises(OAuthError, match="authentication failed"):
        authenticate(request, DEFAULT_ORGS, 1_000)


def test_nothing_secret_is_shown() -> None:
    request = read(
        "grant_type=refresh_token&refresh_token=hush&resourceServer=partner&scope=a+b&audience=x",
        basic("c", "hush"),
    )
    assert request.shown() == {"audience": "x"}
    assert request.scope == ("a", "b")
    assert "hush" not in repr(request)

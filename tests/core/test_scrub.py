"""What looks like a secret is left out of a text, and ordinary words are not."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.scrub import scrubbed

NAMES = ["access_token", "refresh_token", "client_secret", "client_assertion", "assertion", "code", "password"]
secrets = st.text(st.sampled_from("abcXYZ0189-_.~+/="), min_size=14, max_size=40).map(lambda text: f"S3{text}")


@given(st.sampled_from(NAMES), secrets)
def test_a_parameter_a_member_and_an_item_are_left_out(name: str, secret: str) -> None:
    for text in (
        f"POST {name}={secret}&grant_type=x",
        urlencode({"a": "b", name: secret}),
        json.dumps({name: secret, "expires_in": 3}),
        repr({name: secret}),
        repr({name.encode(): secret.encode()}),
        f"{name} = '{secret}'" if name != "code" else f"code={secret}",
    ):
        assert secret not in scrubbed(text), text


@given(secrets, st.sampled_from(["Bearer", "Basic", "bearer"]))
def test_a_credential_is_left_out_wherever_it_stands(secret: str, scheme: str) -> None:
    for text in (
        f"Authorization: {scheme} {secret}\r\nHost: x",
        f"{{'Authorization': '{scheme} {secret}'}}",
        f"[(b'authorization', b'{scheme} {secret}')]",
        f"sent {scheme} {secret} to the API",
        f"X-Proxy-Key: {secret}",
    ):
        assert secret not in scrubbed(text.replace("', b'", "': b'")), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET /k/0123456789abcdef/t/acme/api", "GET /k/***/t/acme/api"),
        ("jwt eyJhbGciOi.eyJzdWIi.c2ln!", "jwt ***!"),
        ('{"access_token": "a b \\" c", "x": 1}', '{"access_token": ***, "x": 1}'),
        ("client_secret='it has blanks'", "client_secret=***"),
    ],
)
def test_what_stands_around_it_stays(text: str, expected: str) -> None:
    assert scrubbed(text) == expected
    assert scrubbed(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tenant acme: new token for 86400 s",
        "the token endpoint refuses its secret (invalid_client); then client_id and client_secret.",
        "proxy.toml: tenants.acme.client_secret: expected the OAuth client's secret",
        '{"message": "no", "code": "bad.credentials", "status": 401}',
        '{"code": "request_timeout"}',
        "Show a caller key in X-Proxy-Key, or as /k/<key>/ before the path.",
        "basic authentication failed",
        "a bearer token is expected here",
        "exit code: 2",
        "status code=",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert scrubbed(text) == text


@given(st.text(max_size=200))
def test_any_text_is_read_in_little_time_and_only_once(text: str) -> None:
    assert scrubbed(scrubbed(text)) == scrubbed(text)


@pytest.mark.timeout(60)
def test_a_long_text_takes_no_longer_than_its_length() -> None:
    for piece in ("authorization: ", "access_token", 'code="', "a", '"\\', "/k/", "bearer ", "eyJa.", " ="):
        scrubbed(piece * (400_000 // len(piece)))

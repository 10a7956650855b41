"""What a token endpoint's answers mean."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.core.answers import TokenAnswer, read_answer, retry_after, unreachable
from proxy.errors import TokenRefused, TokenUnavailable
from tests.core.test_grants import CLIENT, SECRET

NOW = 1_700_000_000.0


def read(status: int, body: object, headers: Mapping[str, str] | None = None) -> TokenAnswer:
    """Reads an answer; what is neither bytes nor text is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(CLIENT, status, CIMultiDict(headers or {}), content, NOW)


# --- the token ---


def test_a_token_is_read_from_an_answer() -> None:
    body = {"access_token": "abc", "token_type": "bearer", "expires_in": 86400}
    answer = read(200, body, {"Date": formatdate(NOW - 7, usegmt=True)})
    assert answer == TokenAnswer("abc", 86400, NOW - 7)


def test_an_answer_needs_neither_lifetime_nor_type_nor_date() -> None:
    assert read(200, {"access_token": "abc"}) == TokenAnswer("abc", None, None)


def test_what_else_an_answer_says_is_nobodys_concern() -> None:
    body = {"access_token": "abc", "refresh_token": "r", "scope": ["x"], "extra": {"deep": [1]}}
    assert read(200, body).access_token == "abc"


@pytest.mark.parametrize("expires_in", [0, -1, "3600", None, True, 1e9, [], {}])
def test_the_stated_lifetime_is_passed_on_as_it_came(expires_in: object) -> None:
    assert read(200, {"access_token": "abc", "expires_in": expires_in}).expires_in == expires_in


@pytest.mark.parametrize("token_type", ["bearer", "Bearer", "BEARER"])
def test_a_bearer_token_is_one_in_any_case(token_type: str) -> None:
    assert read(200, {"access_token": "abc", "token_type": token_type}).access_token == "abc"


@pytest.mark.parametrize("token_type", ["mac", "DPoP", "", None, 7, ["bearer"]])
def test_a_token_of_another_type_is_refused(token_type: object) -> None:
    with pytest.raises(TokenRefused, match="not a bearer token") as caught:
        read(200, {"access_token": "abc", "token_type": token_type})
    assert caught.value.error == "unsupported_token_type"


@pytest.mark.parametrize(
    "token",
    [None, "", " ", "a b", "abc\n", "abc\r\nX-Injected: 1", "a\x00", "tøken", "\x7f", 7, True, ["abc"], {"a": "b"}],
)
def test_a_token_that_no_field_can_carry_is_no_token(token: object) -> None:
    with pytest.raises(TokenUnavailable, match="without a usable access_token") as caught:
        read(200, {"access_token": token})
    assert caught.value.error == "no_access_token"


def test_an_answer_without_a_token_is_an_error() -> None:
    with pytest.raises(TokenUnavailable, match="without a usable access_token"):
        read(200, {"error": "invalid_client"})


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"", {}, "with nothing"),
        (b"", {"Content-Type": "application/json"}, "with nothing"),
        (b"<html>Sign in</html>", {"Content-Type": "text/html; charset=utf-8"}, "20 bytes of text/html"),
        (b"<html>Sign in</html>", {"content-type": "TEXT/HTML"}, "20 bytes of TEXT/HTML"),
        (b"access_token=abc", {}, "16 bytes of no media type"),
        (b'["abc"]', {"Content-Type": "application/json"}, "7 bytes of application/json"),
        (b'"abc"', {}, "5 bytes"),
        (b"null", {}, "4 bytes"),
        (b'{"access_token": "abc"', {}, "22 bytes"),
        (b'{"access_token": "\xff"}', {}, "21 bytes"),
        (b"[" * 200_000, {}, "200000 bytes"),
        (b'{"a":' * 40_000, {}, "200000 bytes"),
        (b'{"access_token": "abc", "expires_in": ' + b"9" * 5000 + b"}", {}, "bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_answer_that_is_no_json_object_is_an_error_that_says_so(
    body: bytes, headers: dict[str, str], said: str
) -> None:
    with pytest.raises(TokenUnavailable, match=said) as caught:
        read(200, body, headers)
    assert caught.value.error == "no_json"
    assert "captive portal" in str(caught.value)


def test_json_in_another_unicode_encoding_is_read() -> None:
    assert read(200, json.dumps({"access_token": "abc"}).encode("utf-16")).access_token == "abc"
    assert read(200, b"\xef\xbb\xbf" + b'{"access_token": "abc"}').access_token == "abc"


# --- refusals ---


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 521, 599, 408, 425])
def test_a_server_that_is_down_or_busy_may_answer_later(status: int) -> None:
    with pytest.raises(TokenUnavailable, match=f"answered {status}") as caught:
        read(status, b"<html>")
    assert (caught.value.error, caught.value.retry_after) == (f"http_{status}", None)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, b""),
        (429, {"error": "invalid_client"}),
        (400, {"error": "invalid_request", "error_description": "rate limit exceeded for client 1 [300/60s]"}),
        (400, {"error": "invalid_request", "description": "Rate Limit Exceeded"}),
        (400, {"error": "invalid_request (rate limit exceeded for client 1)"}),
        (400, {"error": "invalid_request", "error_description": "Too many requests"}),
        (400, {"error_description": "request was throttled"}),
    ],
)
def test_throttling_is_known_by_429_or_as_genesys_says_it(status: int, body: object) -> None:
    with pytest.raises(TokenUnavailable, match="throttling") as caught:
        read(status, body, {"Retry-After": "42"})
    assert (caught.value.error, caught.value.retry_after) == ("rate_limited", 42.0)


@pytest.mark.parametrize("status", [503, 500, 408])
def test_retry_after_is_heard_whatever_the_reason(status: int) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        read(status, b"", {"retry-after": "7"})
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        (401, "invalid_client", "wrong region"),
        (400, "invalid_client", "wrong region"),
        (400, "invalid_grant", "refuses this grant"),
        (400, "invalid_target", "resource server"),
        (400, "unauthorized_client", "may not use the grant"),
        (400, "unsupported_grant_type", "may not use the grant"),
        (400, "invalid_scope", "compare scope"),
        (400, "invalid_request", "invalid_request, status 400"),
        (403, "access_denied", "access_denied, status 403"),
    ],
)
def test_a_refusal_names_its_reason_and_what_to_do(status: int, error: str, advice: str) -> None:
    with pytest.raises(TokenRefused, match=advice) as caught:
        read(status, {"error": error, "description": "client not found", "error_description": "client not found"})
    assert caught.value.error == error
    assert "Tenant acme" in str(caught.value)


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 405, 410, 422])
def test_any_other_status_is_a_refusal(status: int) -> None:
    with pytest.raises(TokenRefused, match=str(status)) as caught:
        read(status, b"")
    assert caught.value.error == f"http_{status}"


@pytest.mark.parametrize(
    ("status", "message", "code", "told"),
    [
        (
            403,
            "Unauthorized IP address",
            "not.authorized",
            "this machine's IP address is not one .* (not.authorized); add",
        ),
        (403, "", "ip.address.not.allowed", "this machine's IP address is not one .* (ip.address.not.allowed); add"),
        (403, "", "", "refused the request (status 403); check .* whether the org lets this machine's IP address in."),
        (403, "", "missing.permissions", "refused the request (status 403 missing.permissions); check .* IP address"),
        (404, "", "not.found", "refused the request (status 404 not.found); check region, login_url and client."),
        (403, "", "HUNTER2", "refused the request (status 403); "),
        (403, "", "a" * 61, "refused the request (status 403); "),
        (403, "", ["a"], "refused the request (status 403); "),
    ],
)
def test_an_answer_in_genesyss_own_shape_is_understood(status: int, message: str, code: object, told: str) -> None:
    with pytest.raises(TokenRefused, match=told.replace("(", r"\(").replace(")", r"\)")) as caught:
        read(status, {"message": message, "code": code, "status": status})
    assert caught.value.error == f"http_{status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_refusal_that_says_so(status: int) -> None:
    with pytest.raises(TokenRefused, match=rf"redirects \({status}\).*region"):
        read(status, b"", {"Location": "https://login.example.com/"})


def test_a_token_in_an_answer_that_is_not_200_is_not_taken() -> None:
    with pytest.raises(TokenRefused):
        read(203, {"access_token": "abc"})


@pytest.mark.parametrize(
    "error",
    [7, None, "", "x" * 41, "Invalid_Client", "invalid client", "a\nb", "<script>", ["invalid_client"], {"a": 1}, "é"],
)
def test_an_error_that_is_no_short_word_is_not_repeated(error: object) -> None:
    with pytest.raises(TokenRefused) as caught:
        read(400, {"error": error})
    assert caught.value.error == "http_400"


def test_no_error_repeats_what_the_endpoint_sent_or_what_it_was_sent() -> None:
    echo = f"bad: {SECRET}"
    for status in (200, 302, 400, 401, 429, 500):
        names = ("error", "description", "error_description", "message", "code")
        body = {**dict.fromkeys(names, echo), "access_token": f"{SECRET} ."}
        with pytest.raises((TokenRefused, TokenUnavailable)) as caught:
            read(status, body, {"Location": echo, "Content-Type": echo})
        assert SECRET not in f"{caught.value} {caught.value.error}"


@settings(max_examples=60)
@given(
    st.integers(100, 599),
    st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["access_token", "token_type", "expires_in", "error", "error_description", "message", "code"]),
        st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8), st.lists),
    ),
    st.dictionaries(st.sampled_from(["Date", "Retry-After", "Content-Type"]), st.text(max_size=30)),
)
def test_any_answer_is_a_token_or_one_of_our_errors(status: int, body: object, headers: dict[str, str]) -> None:
    try:
        answer = read(status, body, headers)
    except (TokenRefused, TokenUnavailable):
        return
    assert status == 200
    assert answer.access_token


@pytest.mark.parametrize("depth", [900, 950, 980, 990, 1000])
def test_a_description_of_any_depth_is_no_trouble(depth: int) -> None:
    body = b'{"error": "invalid_client", "description": ' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(TokenRefused):
        read(401, body)


# --- times ---


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def _time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    assert os.environ.get("TZ") == before
    time.tzset()


@pytest.mark.usefixtures("_time_zone")
@pytest.mark.parametrize(
    "date",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_a_date_is_read_in_each_of_its_forms_wherever_we_are(date: str) -> None:
    # RFC 9110 5.6.7; the third has no zone and means GMT.
    assert read(200, {"access_token": "abc"}, {"Date": date}).server_time == 784111777.0
    assert retry_after(date, now=784111777.0 - 60) == 60


@pytest.mark.parametrize("date", ["", "now", "0", "-1", "Mon, 00 Jan 0000 00:00:00 GMT", "Sun, 06 Nov 999999999 0:0"])
def test_a_date_that_can_not_be_read_is_none(date: str) -> None:
    assert read(200, {"access_token": "abc"}, {"Date": date}).server_time is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0),
        ("42", 42),
        (" 42 ", 42),
        (" " * 20 + "42", 42),
        ("007", 7),
        ("9" * 400, 999_999_999_999),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("٣", None),
        ("²", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, expected: float | None) -> None:
    assert retry_after(value, NOW) == expected


@given(st.text(max_size=60))
def test_no_retry_after_is_negative_or_an_accident(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0


# --- no answer ---


def test_no_answer_at_all_is_told_with_its_reason_and_what_to_check() -> None:
    error = unreachable(CLIENT, "ConnectionRefusedError")
    assert isinstance(error, TokenUnavailable)
    assert error.error == "unreachable"
    assert str(error) == (
        "Tenant acme: the token endpoint gave no answer (ConnectionRefusedError); check region, login_url and network."
    )

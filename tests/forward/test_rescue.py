"""Every failure becomes one response, in Genesys's shape and marked as ours."""

from __future__ import annotations

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import errors
from proxy.forward.rescue import Failure, error_response, explain, proxy_status

CASES: list[tuple[Exception, int, str]] = [
    (errors.BadRequest("why"), 400, "http_request_error"),
    (errors.ContentTooLarge("why"), 413, "http_request_error"),
    (errors.FieldsTooLarge("why"), 431, "http_request_error"),
    (errors.VersionNotSupported("why"), 505, "http_request_error"),
    (errors.UnknownCoding("why"), 501, "http_request_error"),
    (errors.ClientTimeout("why"), 408, "http_request_error"),
    (errors.NotAllowed("why"), 403, "http_request_denied"),
    (errors.MethodNotAllowed("why", allowed=[b"PUT", b"GET"]), 405, "http_request_denied"),
    (errors.TargetTooLong("why"), 414, "http_request_error"),
    (errors.TooBusy("why"), 503, "connection_limit_reached"),
    (errors.UnknownTenant("why"), 404, "destination_not_found"),
    (errors.TokenRefused("why", error="invalid_client", retry_after=30), 502, "proxy_configuration_error"),
    (errors.TokenUnavailable("why", error="timeout", retry_after=2.5), 503, "destination_unavailable"),
    (errors.UpstreamUnreachable("why"), 502, "destination_unavailable"),
    (errors.UpstreamUnreachable("why", kind="tls_certificate_error"), 502, "tls_certificate_error"),
    (errors.UpstreamClosed("why"), 502, "connection_terminated"),
    (errors.UpstreamSilent("why"), 502, "connection_terminated"),
    (errors.UpstreamProtocolError("why"), 502, "http_protocol_error"),
    (errors.UpstreamTimeout("why"), 504, "http_response_timeout"),
    (errors.UpstreamTimeout("why", kind="connection_timeout"), 504, "connection_timeout"),
    (errors.UpstreamError("why"), 502, "proxy_internal_error"),
]


@pytest.mark.parametrize(("error", "status", "kind"), CASES)
def test_a_failure_has_a_status_a_kind_and_its_own_words(error: Exception, status: int, kind: str) -> None:
    failure = explain(error)
    assert (failure.status, failure.proxy_error, failure.message) == (status, kind, "why")
    assert re.fullmatch(r"[a-z]+(\.[a-z]+)+", failure.code)


def test_every_error_of_the_tree_is_told_apart_and_none_is_a_401() -> None:
    named = {type(error) for error, _, _ in CASES}
    pending = [errors.ProxyError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        untold = (errors.ConfigurationError, errors.ClientClosed, errors.LoginFailed, errors.StoreError)
        if not issubclass(kind, untold) and not kind.__subclasses__():
            assert kind in named
    assert all(explain(error).status != 401 for error, _, _ in CASES)


def test_only_what_may_pass_later_and_was_not_sent_says_when_to_come_back() -> None:
    told = {type(error) for error, _, _ in CASES if explain(error).retry_after is not None}
    assert told == {errors.TokenUnavailable, errors.TooBusy}


@pytest.mark.parametrize(("wait", "told"), [(None, 1), (0.0, 1), (0.2, 1), (2.5, 3), (60.0, 60)])
def test_the_wait_is_told_in_whole_seconds_and_never_as_none(wait: float | None, told: int) -> None:
    assert explain(errors.TokenUnavailable("why", error="timeout", retry_after=wait)).retry_after == told


def test_a_defect_is_logged_with_its_traceback_and_told_without_details(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("secret detail")
    except KeyError as error:
        failure = explain(error)
    assert failure.status == 500
    assert "secret" not in failure.message
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert isinstance(record.exc_info[1], KeyError)


def test_a_failure_of_our_own_kind_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    for error, _, _ in CASES:
        explain(error)
    assert not caplog.records


def test_the_response_has_genesyss_shape_and_says_whose_it_is() -> None:
    section, body = error_response(Failure(503, "some.code", "destination_unavailable", "Some words.", 7))
    told = json.loads(body)
    context = told.pop("contextId")
    assert told == {"message": "Some words.", "code": "some.code", "status": 503, "details": [], "errors": []}
    assert section.split(b"\r\n") == [
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        b'Proxy-Status: genesys-auth-proxy; error=destination_unavailable; details="Some words."',
        b"Retry-After: 7",
        b"",
    ]
    again = json.loads(error_response(Failure(503, "some.code", "destination_unavailable", "Some words."))[1])
    assert again["contextId"] != context


def test_only_a_wrong_method_is_told_the_right_ones() -> None:
    for error, status, _ in CASES:
        section, _ = error_response(explain(error))
        assert (b"\r\nAllow: GET, PUT\r\n" in section) == (status == 405)
        assert (b"\r\nRetry-After: " in section) == (status == 503)


@given(st.text())
def test_whatever_is_said_is_one_quoted_string_in_one_line(details: str) -> None:
    line = proxy_status(details, error="dns_error")
    match = re.fullmatch(
        rb'Proxy-Status: genesys-auth-proxy; error=dns_error; details="((?:[ !#-\[\]-~]|\\["\\])*)"\r\n', line
    )
    assert match
    said = re.sub(rb"\\(.)", rb"\1", match[1]).decode("ascii")
    assert said == "".join(c if " " <= c <= "~" else "?" for c in details)


def test_a_note_on_an_answer_that_passed_is_no_error() -> None:
    assert proxy_status("replayed") == b'Proxy-Status: genesys-auth-proxy; details="replayed"\r\n'

"""Log lines: what a program reads of a request, whatever its peers sent."""

from __future__ import annotations

import json

import pytest

from proxy.cli.logs import _json_request, _text_request
from proxy.core.report import RequestRecord

PLAIN = RequestRecord(
    tenant="acme",
    caller=None,
    method="GET",
    path="/api/v2/x",
    status=200,
    seconds=0.0123456,
    received=1,
    sent=2,
    replayed=False,
    code=None,
    correlation_id=None,
)
AT = 1_800_000_000.0499


def test_a_request_as_json() -> None:
    assert json.loads(_json_request(AT, PLAIN)) == {
        "time": "2027-01-15T08:00:00.049Z",
        "level": "info",
        "event": "request",
        "tenant": "acme",
        "caller": None,
        "method": "GET",
        "path": "/api/v2/x",
        "status": 200,
        "duration": 0.012346,
        "received": 1,
        "sent": 2,
        "replayed": False,
        "code": None,
        "correlation_id": None,
    }


@pytest.mark.parametrize("text", ['a"b', "a\\b", '","status":0,"x":"', ""])
@pytest.mark.parametrize("name", ["method", "path", "code", "correlation_id", "tenant", "caller"])
def test_no_text_changes_the_objects_shape(name: str, text: str) -> None:
    told = json.loads(_json_request(AT, PLAIN._replace(**{name: text})))  # type: ignore[arg-type]
    assert told == json.loads(_json_request(AT, PLAIN)) | {name: text}


def test_a_request_as_text() -> None:
    assert _text_request(AT, PLAIN) == (
        "2027-01-15T08:00:00.049Z info    acme: GET /api/v2/x: 200 in 12.3 ms, 1 B in, 2 B out"
    )
    failed = PLAIN._replace(
        tenant=None, path=None, caller="web", replayed=True, code="bad.request", correlation_id="1-2"
    )
    assert _text_request(AT, failed).endswith(
        " -: GET -: 200 in 12.3 ms, 1 B in, 2 B out, caller web, replayed, bad.request, id 1-2"
    )

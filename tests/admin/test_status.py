"""The status document's shape, member by member: programs rely on it."""

from __future__ import annotations

import json
from dataclasses import replace

from proxy.admin.status import status
from proxy.core.report import ProxyReport
from tests.admin.fakes import busy, dead, report, tenant


def _document(shown: ProxyReport) -> dict[str, object]:
    document: dict[str, object] = json.loads(b"".join(status(shown)))
    return document


def test_the_document_tells_everything_under_stable_names() -> None:
    assert _document(report(tenant(tally=busy()))) == {
        "version": 1,
        "proxy": {"version": "1.2.3", "started_at": 1_800_000_000.0},
        "ready": True,
        "draining": False,
        "needs_restart": ["store"],
        "listening": ["http://127.0.0.1:8080"],
        "connections": {"client": 3, "upstream": 2},
        "refused": {"403": 4},
        "callers": [{"name": "web", "requests": {"200": 5, "503": 1}, "under_way": 2, "websockets": 0}],
        "workers": [{"number": 1, "pid": 4711, "started": 1}, {"number": 2, "pid": None, "started": 3}],
        "tenants": [
            {
                "name": "acme",
                "state": "fresh",
                "usable": True,
                "expires_at": 1_800_003_000.0,
                "expires_in": 3000.0,
                "lifetime": 3600.0,
                "refresh_in": 2940.0,
                "age": 600.0,
                "error": None,
                "diagnosis": None,
                "retry_in": None,
                "rate_limit_remaining": 291,
                "rate_limit_allowed": 300,
                "requests": {"101": 1, "200": 2, "401": 1},
                "under_way": 3,
                "websockets": 2,
                "observed": 2,
                "replays": {"accepted": 1},
                "token_requests": [
                    {"grant": "client_credentials", "outcome": "ok", "count": 2},
                    {"grant": "refresh_token", "outcome": "invalid_grant", "count": 1},
                ],
                "request_duration": {"count": 4, "sum": 20.452},
                "refresh_duration": {"count": 1, "sum": 0.3},
                "history": [
                    {"at": 1_799_999_940.0, "what": "token", "outcome": "ok"},
                    {"at": 1_799_999_995.0, "what": "replay", "outcome": "accepted"},
                ],
            }
        ],
    }


def test_a_tenant_without_a_token_has_nulls_and_its_diagnosis() -> None:
    document = _document(report(dead()))
    assert isinstance(document["tenants"], list)
    entry = document["tenants"][0]
    assert (entry["expires_at"], entry["expires_in"], entry["age"]) == (None, None, None)
    assert entry["usable"] is False
    assert (entry["error"], entry["retry_in"]) == ("invalid_client", 12.5)
    assert entry["diagnosis"] == "Check the region and the client id."


def test_any_number_of_tenants_makes_a_document() -> None:
    for count in (0, 1, 3):
        document = _document(report(*(tenant(f"t{number}") for number in range(count))))
        assert isinstance(document["tenants"], list)
        assert [entry["name"] for entry in document["tenants"]] == [f"t{number}" for number in range(count)]


def test_ready_means_the_same_as_in_readyz() -> None:
    assert _document(replace(report(), draining=True))["ready"] is False
    assert _document(replace(report(), listening=()))["ready"] is False

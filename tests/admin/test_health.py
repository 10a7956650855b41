"""Readiness of the proxy and of one tenant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.admin.health import readiness
from proxy.core.report import TokenState
from proxy.errors import UnknownTenant
from tests.admin.fakes import dead, report, tenant


def test_a_listening_proxy_is_ready_and_lists_each_tenant() -> None:
    status, body = readiness(report(tenant("acme"), tenant("beta", TokenState.STALE)))
    assert status == 200
    assert body == {
        "ready": True,
        "draining": False,
        "listening": ["http://127.0.0.1:8080"],
        "tenants": {"acme": "fresh", "beta": "stale"},
        "failing": {},
    }


def test_one_dead_credential_shows_but_does_not_make_the_proxy_unready() -> None:
    status, body = readiness(report(tenant(), dead()))
    assert status == 200
    assert body["tenants"] == {"acme": "fresh", "dead": "none"}
    assert body["failing"] == {"dead": "Check the region and the client id."}


def test_a_failure_without_a_diagnosis_shows_its_code() -> None:
    _, body = readiness(report(replace(dead(), diagnosis=None)))
    assert body["failing"] == {"dead": "invalid_client"}


def test_a_proxy_that_does_not_listen_yet_is_not_ready() -> None:
    status, body = readiness(replace(report(tenant()), listening=()))
    assert (status, body["ready"], body["code"]) == (503, False, "not.listening")


def test_a_draining_proxy_is_not_ready() -> None:
    status, body = readiness(replace(report(tenant()), draining=True))
    assert (status, body["ready"], body["code"]) == (503, False, "draining")


@pytest.mark.parametrize(
    "state, status",
    [(TokenState.FRESH, 200), (TokenState.STALE, 200), (TokenState.EXPIRED, 503), (TokenState.NONE, 503)],
)
def test_a_tenant_is_ready_while_its_token_is_usable(state: TokenState, status: int) -> None:
    found, body = readiness(report(tenant("acme", state), tenant("beta")), "acme")
    assert found == status
    assert body["ready"] is (status == 200)
    assert body["tenants"] == {"acme": state.value}


def test_a_tenant_is_not_ready_while_the_proxy_is_not() -> None:
    assert readiness(replace(report(tenant()), draining=True), "acme")[0] == 503
    assert readiness(replace(report(tenant()), listening=()), "acme")[0] == 503


@pytest.mark.parametrize("name", ["nobody", "", "ACME"])
def test_a_name_that_is_no_tenants_is_unknown(name: str) -> None:
    with pytest.raises(UnknownTenant):
        readiness(report(tenant()), name)


def test_an_unready_answer_has_the_members_of_an_error() -> None:
    _, body = readiness(report(dead()), "dead")
    assert {"message", "code", "status", "contextId", "details", "errors"} <= body.keys()
    assert body["status"] == 503

"""Readiness of the proxy and of one tenant."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.admin.health import readiness, startup
from proxy.core.report import TenantReport, TokenState
from proxy.errors import UnknownTenant
from tests.admin.fakes import dead, report, tenant


def test_a_listening_proxy_is_ready_and_lists_each_tenant() -> None:
    status, body = readiness(report(tenant("acme"), tenant("beta", TokenState.STALE)))
    assert status == 200
    assert body == {
        "ready": True,
        "ready_for": None,
        "draining": False,
        "listening": ["http://127.0.0.1:8080"],
        "tenants": {"acme": "fresh", "beta": "stale"},
        "failing": {},
        "lasts": {},
    }


@pytest.mark.parametrize("started, status", [(True, 200), (False, 503)])
def test_it_has_started_once_the_first_tokens_were_asked_for(started: bool, status: int) -> None:
    found, body = startup(replace(report(tenant(), dead()), started=started))
    assert (found, body["started"]) == (status, started)


def test_while_it_starts_it_tells_which_tenants_it_waits_for() -> None:
    asked = replace(tenant("new", TokenState.NONE), expires_in=None)
    _, body = startup(replace(report(tenant(), dead(), asked), started=False))
    assert body["waiting"] == ["new"]
    assert {"message", "code", "status", "contextId", "details", "errors"} <= body.keys()


def failing(name: str, expires_in: float) -> TenantReport:
    """A tenant whose token still lives and whose token requests fail."""
    return replace(tenant(name), expires_in=expires_in, error="unreachable", diagnosis="Look at the network.")


def test_while_no_token_can_be_had_it_is_ready_and_says_for_how_long() -> None:
    status, body = readiness(report(failing("acme", 100.25), failing("beta", 900.0), dead()))
    assert (status, body["ready"], body["ready_for"]) == (200, True, 900.0)
    assert body["lasts"] == {"acme": 100.25, "beta": 900.0, "dead": 0.0}
    assert body["failing"] == dict.fromkeys(("acme", "beta"), "Look at the network.") | {
        "dead": "Check the region and the client id."
    }


def test_one_whose_token_can_be_had_gives_it_no_end() -> None:
    assert readiness(report(failing("acme", 100.0), tenant()))[1]["ready_for"] is None
    unused = replace(tenant("unused", TokenState.NONE), expires_in=None)
    assert readiness(report(failing("acme", 100.0), unused))[1]["ready_for"] is None


def test_it_is_unready_when_all_fail_and_no_token_is_left() -> None:
    gone = replace(failing("acme", 0.0), state=TokenState.EXPIRED)
    status, body = readiness(report(gone, dead()))
    assert (status, body["ready"], body["code"], body["ready_for"]) == (503, False, "no.token", 0.0)
    assert readiness(report(gone, dead(), tenant()))[0] == 200
    assert readiness(report(gone, failing("beta", 0.5)))[0] == 200


def test_a_tenant_says_for_how_long_it_is_ready() -> None:
    assert readiness(report(failing("acme", 7.0), tenant("beta")), "acme")[1]["ready_for"] == 7.0
    assert readiness(report(tenant(), dead()), "acme")[1]["ready_for"] is None


def test_one_dead_credential_shows_but_does_not_make_the_proxy_unready() -> None:
    status, body = readiness(report(tenant(), dead()))
    assert status == 200
    assert body["tenants"] == {"acme": "fresh", "dead": "none"}
    assert body["failing"] == {"dead": "Check the region and the client id."}


def test_a_failure_without_a_diagnosis_shows_its_code() -> None:
    _, body = readiness(report(replace(dead(), diagnosis=None), tenant()))
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

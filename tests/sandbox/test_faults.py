"""Faults on demand."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.sandbox.faults import KINDS, Faults


def test_a_fault_lasts_until_it_is_cleared() -> None:
    faults = Faults()
    faults.set("api_status")
    assert all(faults.take("api_status") for _ in range(100))
    faults.clear("api_status")
    assert faults.take("api_status") is None


def test_a_counted_fault_is_met_so_many_times() -> None:
    faults = Faults()
    faults.set("api_status", count=2)
    assert [faults.take("api_status") is not None for _ in range(3)] == [True, True, False]


def test_a_fault_of_one_org_is_not_met_by_another() -> None:
    faults = Faults()
    faults.set("api_status", org="acme", count=1)
    assert faults.take("api_status", org="globex") is None
    assert faults.take("api_status", org="acme") is not None


def test_an_orgs_own_fault_goes_before_the_one_for_all() -> None:
    faults = Faults()
    faults.set("api_status", 503)
    faults.set("api_status", 500, org="acme")
    own = faults.take("api_status", org="acme")
    assert own is not None
    assert own.value == 500


def test_a_fault_of_one_grant_is_not_met_by_another() -> None:
    faults = Faults()
    faults.set("token_invalid_grant", grant="refresh_token")
    assert faults.take("token_invalid_grant", org="acme", grant="client_credentials") is None
    assert faults.take("token_invalid_grant", org="acme", grant="refresh_token") is not None


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_takes_its_own_default(name: str) -> None:
    assert Faults().set(name).value == KINDS[name].default


@pytest.mark.parametrize(
    "name,value",
    [
        ("no_such_fault", None),
        ("token_latency", -1),
        ("token_latency", "2"),
        ("token_latency", True),
        ("token_status", 200),
        ("token_drop", "never"),
        ("token_invalid_client", "other words"),
        ("clock_ahead", "60"),
    ],
)
def test_a_value_that_the_kind_does_not_take_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Faults().set(name, value)


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        Faults().set("api_status", count=0)


def test_an_api_fault_can_not_be_for_a_grant() -> None:
    with pytest.raises(ValueError, match="grant"):
        Faults().set("api_status", grant="refresh_token")


def test_replacing_ends_what_was_in_force() -> None:
    faults, others = Faults(), Faults()
    faults.set("api_status")
    others.set("token_hang", count=1)
    faults.replace(others)
    assert [fault["name"] for fault in faults.as_json()] == ["token_hang"]

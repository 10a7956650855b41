"""The ledger's counts."""

from __future__ import annotations

from proxy.sandbox import Ledger, Outcome, SeenCall


def call(org: str, outcome: Outcome) -> SeenCall:
    return SeenCall(0.0, org, "GET", "/api/v2/tokens/me", outcome, 200, 1, "id")


def test_refusals_are_counted_by_reason_over_orgs_and_guests() -> None:
    ledger = Ledger()
    for org, outcome, guest in (
        ("acme", Outcome.EXPIRED, False),
        ("globex", Outcome.EXPIRED, False),
        ("acme", Outcome.REVOKED, True),
        ("acme", Outcome.ACCEPTED, False),
        ("acme", Outcome.RATE_LIMITED, False),
    ):
        ledger.saw_call(call(org, outcome), guest=guest)
    assert ledger.refused() == {"expired": 2, "revoked": 1}
    assert ledger.refused("globex") == {"expired": 1}
    assert ledger.accepted() == ledger.accepted("acme") == 1
    assert ledger.accepted("globex") == 0


def test_an_external_id_that_comes_again_is_a_double_execution() -> None:
    ledger = Ledger()
    for org, external_id in (("acme", "1"), ("acme", "2"), ("globex", "1"), ("acme", "1"), ("acme", "1")):
        ledger.saw_contact(org, external_id)
    assert ledger.double_executions == 2
    assert ledger.contacts_created == {"acme": 4, "globex": 1}


def test_contacts_without_an_external_id_are_no_double_executions() -> None:
    ledger = Ledger()
    ledger.saw_contact("acme", None)
    ledger.saw_contact("acme", None)
    assert ledger.double_executions == 0


def test_only_the_latest_calls_are_kept_and_fewer_are_told() -> None:
    ledger = Ledger()
    for _ in range(2_000):
        ledger.saw_call(call("acme", Outcome.ACCEPTED), guest=False)
    assert len(ledger.latest_calls) == 1_000
    assert len(ledger.as_json(latest=3)["latestCalls"]) == 3
    assert ledger.as_json(latest=0)["latestCalls"] == []
    assert ledger.as_json()["calls"] == {"acme": {"accepted": 2_000}}


def test_a_reset_forgets_all_but_the_open_sockets() -> None:
    ledger = Ledger(sockets_open=2, sockets_opened=5)
    ledger.saw_contact("acme", "1")
    ledger.saw_call(call("acme", Outcome.EXPIRED), guest=False)
    ledger.reset()
    assert ledger == Ledger(sockets_open=2)

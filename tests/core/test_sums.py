"""What several processes report, added up."""

from __future__ import annotations

from dataclasses import fields, replace

from proxy.core.report import HISTORY, CallerTally, Happening, Headroom, ProxyReport, Tally, TenantReport, TokenState
from proxy.core.sums import Departed, program_of, tally_of, tenant_of


def tally(count: int = 0) -> Tally:
    made = Tally(
        replays={"accepted": count},
        token_requests={("client_credentials", "ok"): count},
        limited={"waited": count},
        at_once=count,
        observed=count,
        websockets=count,
        websocket_received=count,
        websocket_sent=count,
        history=(Happening(float(count), "token", "ok"),),
    )
    made.count(401, 0.1)
    for _ in range(count):
        made.count(200, 0.1)
        made.refreshes.observe(0.2)
    return made


def tenant(**values: object) -> TenantReport:
    report = TenantReport(
        name="acme",
        state=TokenState.FRESH,
        expires_in=100.0,
        lifetime=300.0,
        refresh_in=40.0,
        expires_at=1100.0,
        age=200.0,
        error=None,
        diagnosis=None,
        retry_in=None,
        headroom=None,
        tally=Tally(),
    )
    return replace(report, **values)  # type: ignore[arg-type]


NO_TOKEN = tenant(state=TokenState.NONE, expires_in=None, lifetime=None, refresh_in=None, expires_at=None, age=None)


def program(*tenants: TenantReport, refused: dict[int, int] | None = None, started: bool = True) -> ProxyReport:
    callers = {"crm": CallerTally({200: 1}, 2)}
    return ProxyReport("1", 1000.0, ("http://localhost:1",), False, started, 3, 2, refused or {}, tenants, callers)


# --- counts ---


def test_counts_and_durations_are_added_and_the_parts_stay_as_they_are() -> None:
    parts = [tally(2), tally(5)]
    total = tally_of(parts)
    assert total.requests == {200: 7, 401: 2}
    assert total.replays == {"accepted": 7}
    assert total.token_requests == {("client_credentials", "ok"): 7}
    assert (sum(total.durations.counts), sum(total.refreshes.counts)) == (9, 7)
    assert round(total.durations.total, 6) == 0.9
    assert parts == [tally(2), tally(5)]


def test_every_kind_of_count_is_added() -> None:
    total = tally_of([tally(2)])
    # A rate limit is the token's, and no sum.
    summed = {field.name for field in fields(Tally) if getattr(total, field.name) == getattr(tally(2), field.name)}
    assert summed == {field.name for field in fields(Tally)}


def test_what_happened_is_told_in_its_order_and_only_the_last_of_it() -> None:
    early, late = tally(), tally()
    early.history = tuple(Happening(float(at), "token", "ok") for at in range(0, 2 * HISTORY, 2))
    late.history = tuple(Happening(float(at), "token", "ok") for at in range(1, 2 * HISTORY, 2))
    told = [happening.at for happening in tally_of([late, early]).history]
    assert told == [float(at) for at in range(HISTORY, 2 * HISTORY)]


# --- one tenant ---


def test_the_token_that_lives_longest_is_told() -> None:
    newer = tenant(expires_in=280.0, age=20.0)
    assert tenant_of("acme", [tenant(), newer, NO_TOKEN], Tally()) == newer


def test_a_tenant_that_no_process_knows_of_yet_has_no_token() -> None:
    assert tenant_of("acme", [], tally(1)) == replace(NO_TOKEN, tally=tally_of([tally(1)]))


def test_an_expired_token_is_no_better_than_none() -> None:
    expired = tenant(state=TokenState.EXPIRED, expires_in=4.0)
    stale = tenant(state=TokenState.STALE, expires_in=3.0)
    assert tenant_of("acme", [expired, stale], Tally()).state is TokenState.STALE


def test_a_failure_of_a_process_with_the_same_token_shows() -> None:
    failed = tenant(expires_in=99.0, error="invalid_client", diagnosis="Compare the region.", retry_in=9.0)
    told = tenant_of("acme", [tenant(), failed], Tally())
    assert (told.error, told.diagnosis, told.retry_in) == ("invalid_client", "Compare the region.", 9.0)
    assert told.expires_in == 100.0


def test_a_failure_of_a_process_that_has_yet_to_take_the_newer_token_does_not_show() -> None:
    failed = tenant(expires_in=10.0, error="server_error", diagnosis="It is down.", retry_in=9.0)
    assert tenant_of("acme", [tenant(), failed], Tally()).error is None
    without = replace(NO_TOKEN, error="server_error", diagnosis="It is down.", retry_in=9.0)
    assert tenant_of("acme", [without, tenant()], Tally()).error is None


def test_of_several_failures_the_one_that_is_over_first_shows() -> None:
    failed = [tenant(error="server_error", diagnosis="down", retry_in=after) for after in (9.0, 3.0)]
    assert tenant_of("acme", [tenant(), *failed], Tally()).retry_in == 3.0


def test_the_least_that_a_process_was_told_of_the_rate_limit_is_told() -> None:
    reports = [tenant(headroom=None), tenant(headroom=Headroom(50, 300)), tenant(headroom=Headroom(20, 300))]
    assert tenant_of("acme", reports, Tally()).headroom == Headroom(20, 300)


# --- the program ---


def test_a_program_is_the_sum_of_its_processes_and_of_those_that_are_no_more() -> None:
    departed = Departed()
    departed.add(program(tenant(tally=tally(1)), refused={404: 1}))
    departed.add(program(tenant(tally=tally(2)), refused={404: 1, 400: 1}))
    own = replace(program(), client_connections=0, upstream_connections=0)
    told = program_of(
        own,
        [program(tenant(tally=tally(4)), refused={404: 3}), program(tenant(tally=tally(8)))],
        departed,
        ["acme", "globex"],
    )
    assert [each.name for each in told.tenants] == ["acme", "globex"]
    assert told.tenants[0].tally.requests == {200: 15, 401: 4}
    assert told.refused == {404: 5, 400: 1}
    assert (told.client_connections, told.upstream_connections) == (6, 4)
    assert departed.refused == {404: 2, 400: 1}
    counted = told.tenants[0].tally
    assert (counted.at_once, counted.websockets, counted.websocket_sent) == (12, 12, 15)
    assert told.callers == {"crm": CallerTally({200: 4}, 4)}


def test_a_tenant_that_was_removed_is_not_told_of_and_is_forgotten() -> None:
    departed = Departed()
    departed.add(program(tenant(tally=tally(1))))
    assert program_of(program(), [program(tenant())], departed, []).tenants == ()
    departed.keep(["acme"])
    assert departed.tallies
    departed.keep([])
    assert not departed.tallies


def test_a_program_has_started_when_all_of_its_processes_have() -> None:
    assert program_of(program(), [program(), program()], Departed(), []).started
    assert not program_of(program(), [program(), program(started=False)], Departed(), []).started
    assert not program_of(program(), [], Departed(), []).started

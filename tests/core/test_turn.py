"""Each decision about a record, and both sides of each border."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.core.grants import Client
from proxy.core.lineage import Access, Journal, Lease, Record, Setback, Verdict, digest
from proxy.core.secret import Secret
from proxy.core.turn import (
    CLOCK_SLACK,
    GRACE,
    LEASE,
    SEEDS,
    Adopt,
    Ask,
    Asker,
    GiveUp,
    Refuse,
    Step,
    Wait,
    failed,
    granted,
    is_usable,
    led,
    merged,
    next_step,
    set_back,
    supplied,
)
from proxy.errors import TokenError, TokenRefused, TokenUnavailable

NOW = 1_700_000_000.0
SEED = Secret("refresh-0")
CURRENT = Secret("refresh-5")

CLIENT = Client("acme", "https://login.example.com/oauth/token", "id", Secret("secret"))
PERSON = replace(CLIENT, grant="refresh_token", refresh_token=SEED)
ACCESS = Access(Secret("access"), NOW - 100.0, 3600.0, PERSON.key)
RECORD = Record(refresh_token=CURRENT, generation=5, seeds=(digest(SEED),))
"""A line of refresh tokens that nobody is busy with."""

REFUSED = TokenRefused("Tenant acme: refused.", error="invalid_client")
USED_UP = TokenRefused("Tenant acme: used.", error="invalid_grant")
DOWN = TokenUnavailable("Tenant acme: down.", error="http_503")


def asker(client: Client = PERSON, access: Access | None = None, **more: object) -> Asker:
    return replace(Asker(client, "me/1", access), **more)  # type: ignore[arg-type]


def step(record: Record, who: Asker | None = None, now: float = NOW, *, abandoned: bool = False) -> Step:
    return next_step(record, who or asker(), now, abandoned=abandoned)


# --- a token that another process has got ---


def test_a_token_of_another_process_is_taken() -> None:
    assert step(replace(RECORD, access=ACCESS)) == Adopt(ACCESS)


def test_a_token_is_taken_even_while_somebody_asks_for_the_next() -> None:
    assert step(replace(RECORD, access=ACCESS, lease=Lease("other/1", NOW + 5))) == Adopt(ACCESS)


@pytest.mark.parametrize(
    ("had", "taken"),
    [
        (None, True),
        (replace(ACCESS, token=Secret("older"), obtained=ACCESS.obtained - 1), True),
        (replace(ACCESS, token=Secret("as old"), obtained=ACCESS.obtained), True),
        (ACCESS, False),
        (replace(ACCESS, token=Secret("newer"), obtained=ACCESS.obtained + 1), False),
    ],
)
def test_only_a_newer_token_than_the_last_is_taken(had: Access | None, taken: bool) -> None:
    found = step(replace(RECORD, access=ACCESS), asker(access=had))
    assert isinstance(found, Adopt if taken else Ask)


def test_a_token_of_a_client_that_asks_otherwise_is_not_taken() -> None:
    assert isinstance(step(replace(RECORD, access=replace(ACCESS, issued_to="another"))), Ask)


@pytest.mark.parametrize(
    ("age", "lifetime", "usable"),
    [
        (0.0, 3600.0, True), (3594.9, 3600.0, True), (3595.0, 3600.0, False), (9.4, 10.0, True), (9.5, 10.0, False),
        (-CLOCK_SLACK, 3600.0, True), (-CLOCK_SLACK - 0.1, 3600.0, False), (0.0, 0.0, False), (0.0, -5.0, False),
    ],
)  # fmt: skip
def test_a_token_that_has_expired_or_comes_from_the_future_is_not_taken(
    age: float, lifetime: float, usable: bool
) -> None:
    access = replace(ACCESS, obtained=NOW - age, lifetime=lifetime)
    assert is_usable(access, NOW) is usable
    assert isinstance(step(replace(RECORD, access=access)), Adopt if usable else Ask)


def test_a_rejected_token_is_taken_away_from_all() -> None:
    record = replace(RECORD, access=ACCESS)
    for rejected, left in ((True, None), (False, ACCESS)):
        found = step(record, asker(access=ACCESS, rejected=rejected))
        assert isinstance(found, Ask)
        assert found.record.access == left


def test_a_newer_token_than_the_rejected_is_taken() -> None:
    older = replace(ACCESS, token=Secret("older"), obtained=ACCESS.obtained - 1)
    assert step(replace(RECORD, access=ACCESS), asker(access=older, rejected=True)) == Adopt(ACCESS)


# --- leases ---


@pytest.mark.parametrize(("left", "waits"), [(LEASE, True), (0.1, True), (0.0, False), (-1.0, False)])
def test_anothers_lease_is_respected_until_it_is_over(left: float, waits: bool) -> None:
    lease = Lease("other/1", NOW + left)
    found = step(replace(RECORD, lease=lease))
    if waits:
        assert isinstance(found, Wait)
        assert found.lease == lease
        assert found.seconds == pytest.approx(left)
    else:
        assert isinstance(found, Ask)


def test_the_lease_of_a_dead_owner_is_over() -> None:
    assert isinstance(step(replace(RECORD, lease=Lease("other/1", NOW + 10)), abandoned=True), Ask)


def test_ones_own_lease_is_in_nobodys_way() -> None:
    assert isinstance(step(replace(RECORD, lease=Lease("me/1", NOW + 10))), Ask)


@pytest.mark.parametrize(("watched", "waits"), [(LEASE - 0.1, True), (LEASE, False)])
def test_a_lease_that_stays_is_over_though_a_clock_was_set_back(watched: float, waits: bool) -> None:
    lease = Lease("other/1", NOW + 1e9)
    found = step(replace(RECORD, lease=lease), asker(watching=lease, watched=watched))
    assert isinstance(found, Wait) is waits
    another = replace(lease, until=NOW + 2e9)
    assert isinstance(step(replace(RECORD, lease=another), asker(watching=lease, watched=watched)), Wait)


def test_who_asks_takes_the_lease() -> None:
    found = step(RECORD)
    assert isinstance(found, Ask)
    assert found.record.lease == Lease("me/1", NOW + LEASE)


# --- failures ---

SETBACK = Setback(NOW - 1.0, NOW + 9.0, 3, "http_503", "Tenant acme: down.", final=False)


@pytest.mark.parametrize(("final", "kind"), [(True, TokenRefused), (False, TokenUnavailable)])
def test_the_failure_of_another_is_ones_own(final: bool, kind: type[TokenError]) -> None:
    found = step(replace(RECORD, setback=replace(SETBACK, final=final)))
    assert isinstance(found, Refuse)
    assert isinstance(found.error, kind)
    assert (str(found.error), found.error.error) == ("Tenant acme: down.", "http_503")
    assert (found.pause, found.count) == (9.0, 3)


@pytest.mark.parametrize(("now", "asks"), [(SETBACK.until - 0.1, False), (SETBACK.until, True)])
def test_a_failure_is_over_after_its_pause_and_counts_on(now: float, asks: bool) -> None:
    found = step(replace(RECORD, setback=SETBACK), now=now)
    assert isinstance(found, Ask) is asks
    if isinstance(found, Ask):
        assert failed(found, DOWN, 5.0, now).setback == Setback(now, now + 5.0, 4, "http_503", str(DOWN), False)


def test_a_failure_that_is_pardoned_is_forgotten_and_counts_no_more() -> None:
    found = step(replace(RECORD, setback=SETBACK), asker(pardoned=SETBACK))
    assert isinstance(found, Ask)
    assert found.record.setback is None


def test_a_failure_after_the_pardon_holds() -> None:
    assert isinstance(step(replace(RECORD, setback=replace(SETBACK, at=NOW)), asker(pardoned=SETBACK)), Refuse)


def test_a_failure_from_the_future_holds_nobody_up() -> None:
    later = replace(SETBACK, at=NOW + 1e6, until=NOW + 1e6 + 10)
    assert isinstance(step(replace(RECORD, setback=later)), Ask)


# --- refresh tokens ---


def test_a_client_without_refresh_tokens_just_asks() -> None:
    found = step(Record(), asker(CLIENT))
    assert found == Ask(Record(lease=Lease("me/1", NOW + LEASE)), CLIENT)


def test_a_refresh_token_is_sent_after_a_note_of_it() -> None:
    found = step(RECORD)
    assert isinstance(found, Ask)
    assert (found.refresh_token, found.client) == (CURRENT, PERSON)
    assert found.record.journal == Journal(NOW)


def test_a_configured_refresh_token_is_taken_up_once() -> None:
    first = step(Record())
    assert isinstance(first, Ask)
    assert first.refresh_token == SEED
    assert (first.record.generation, first.record.seeds) == (1, (digest(SEED),))
    again = step(RECORD)
    assert isinstance(again, Ask)
    assert again.refresh_token == CURRENT


def test_a_new_configured_refresh_token_takes_the_place_of_what_is_kept() -> None:
    verdict = Verdict(digest(CURRENT), NOW, lost=False)
    record = replace(RECORD, verdict=verdict, setback=SETBACK, access=ACCESS, organization="old")
    found = step(record, asker(replace(PERSON, refresh_token=Secret("new"))))
    assert isinstance(found, Ask)
    assert found.refresh_token == Secret("new")
    kept = replace(found.record, lease=None, journal=None)
    assert kept == Record(refresh_token=Secret("new"), generation=6, seeds=(digest(SEED), digest(Secret("new"))))


def test_a_configured_refresh_token_is_taken_up_in_no_line_but_its_own() -> None:
    elsewhere = asker(replace(PERSON, refresh_token=Secret("new")), seeds=False)
    found = step(RECORD, elsewhere)
    assert isinstance(found, Ask)
    assert (found.refresh_token, found.record.seeds) == (CURRENT, RECORD.seeds)
    assert isinstance(step(Record(), elsewhere), Refuse)


def test_a_name_leads_elsewhere_and_keeps_what_other_names_may_lead_to() -> None:
    record = replace(RECORD, verdict=Verdict(digest(CURRENT), NOW, lost=False), access=ACCESS)
    assert led(record, "new", "there") == replace(record, kept_at="there", seeds=(digest(SEED), "new"))
    again = led(led(record, "new", "there"), "newer", "elsewhere")
    assert again == replace(record, kept_at="elsewhere", seeds=(digest(SEED), "new", "newer"))


def test_a_name_that_leads_elsewhere_keeps_no_refresh_token_of_a_login() -> None:
    record = Record(refresh_token=CURRENT, generation=5, access=ACCESS, lease=Lease("other/1", NOW + 9))
    found = led(record, "new", "there")
    assert found == Record(kept_at="there", seeds=("new",), generation=6)
    asked = Ask(record, PERSON, CURRENT)
    answered = granted(asked, ACCESS, Secret("next"))
    assert merged(found, asked, answered, "me/1") is None, "whoever was refreshing that lets go of it"


def test_what_is_written_later_leaves_a_name_where_it_leads_by_then() -> None:
    leading = led(RECORD, "new", "there")
    for current in (leading, replace(leading, refresh_token=Secret("old"), generation=4)):
        found = merged(current, ASKED, OUTCOME, "me/1")
        assert found == replace(OUTCOME, kept_at="there", seeds=(digest(SEED), "new"))
    assert supplied(leading, Secret("login")).kept_at == "there"


def test_of_configured_refresh_tokens_the_latest_are_remembered() -> None:
    record = Record()
    for number in range(SEEDS + 5):
        record = supplied(record, Secret(f"{number}"), seeds=(f"seed-{number}",))
    assert record.seeds == tuple(f"seed-{number}" for number in range(5, SEEDS + 5))
    assert record.generation == SEEDS + 5


def test_without_a_refresh_token_there_is_nothing_but_a_login() -> None:
    found = step(Record(), asker(replace(PERSON, refresh_token=None)))
    assert isinstance(found, Refuse)
    assert isinstance(found.error, TokenRefused)
    assert found.error.error == "login_required"
    assert "genesys-auth-proxy login acme" in str(found.error)


@pytest.mark.parametrize(("lost", "word"), [(True, "killed"), (False, "invalid_grant")])
def test_a_refresh_token_that_was_refused_is_never_sent_again(lost: bool, word: str) -> None:
    record = replace(RECORD, verdict=Verdict(digest(CURRENT), NOW - 1e6, lost))
    found = step(record)
    assert isinstance(found, Refuse)
    assert found.error.error == "invalid_grant"
    assert word in str(found.error)
    assert "genesys-auth-proxy login acme" in str(found.error)


def test_a_verdict_is_about_one_refresh_token_only() -> None:
    record = replace(RECORD, verdict=Verdict(digest(Secret("another")), NOW, lost=False))
    assert isinstance(step(record), Ask)


@pytest.mark.parametrize("record", [replace(RECORD, verdict=Verdict(digest(CURRENT), NOW, lost=False)), Record()])
def test_the_fallback_grant_is_asked_for_where_there_is_one(record: Record) -> None:
    client = replace(PERSON, fallback_grant="client_credentials", refresh_token=None)
    found = step(record, asker(client))
    assert isinstance(found, Ask)
    assert (found.client, found.refresh_token, found.record.journal) == (client.fallback, None, None)


# --- deaths ---

DIED = replace(RECORD, lease=Lease("other/1", NOW - 1.0), journal=Journal(NOW - 13.0))


def test_a_refresh_token_that_was_under_way_is_left_alone_for_a_while() -> None:
    assert step(DIED) == Wait(Lease("other/1", NOW - 1.0), GRACE)
    for watched, waits in ((GRACE - 0.1, True), (GRACE, False)):
        assert isinstance(step(DIED, asker(watching=DIED.lease, watched=watched)), Wait) is waits


def test_a_refresh_token_that_was_under_way_is_sent_once_more() -> None:
    found = step(DIED, abandoned=True)
    assert isinstance(found, Ask)
    assert found.refresh_token == CURRENT
    assert found.record.journal == Journal(NOW, retried=True)


def test_a_refresh_token_that_two_have_died_over_is_given_up() -> None:
    found = step(replace(DIED, journal=Journal(NOW - 13.0, retried=True)), abandoned=True)
    assert isinstance(found, GiveUp)
    assert found.record == replace(RECORD, verdict=Verdict(digest(CURRENT), NOW, lost=True))
    assert isinstance(step(found.record), Refuse)


def test_a_note_that_was_left_without_a_lease_is_one_of_a_death() -> None:
    found = step(replace(DIED, lease=None))
    assert isinstance(found, Ask)
    assert found.record.journal == Journal(NOW, retried=True)


def test_ones_own_note_is_no_trace_of_a_death() -> None:
    found = step(replace(DIED, lease=Lease("me/1", NOW - 1.0)))
    assert isinstance(found, Ask)
    assert found.record.journal == Journal(NOW)


# --- outcomes ---

ASKED = Ask(replace(RECORD, lease=Lease("me/1", NOW), journal=Journal(NOW), setback=SETBACK), PERSON, CURRENT)
NEXT = Secret("refresh-6")


def test_an_answer_ends_lease_note_and_failure() -> None:
    record = granted(ASKED, ACCESS, NEXT)
    assert record == replace(RECORD, access=ACCESS, refresh_token=NEXT, generation=6)


@pytest.mark.parametrize("refresh_token", [None, CURRENT])
def test_an_answer_without_a_new_refresh_token_keeps_the_old(refresh_token: Secret | None) -> None:
    assert granted(ASKED, ACCESS, refresh_token) == replace(RECORD, access=ACCESS)


def test_the_refresh_token_of_another_grants_answer_is_not_taken() -> None:
    verdict = Verdict(digest(CURRENT), NOW, lost=False)
    asked = Ask(replace(RECORD, verdict=verdict), PERSON)
    assert granted(asked, ACCESS, NEXT) == replace(RECORD, access=ACCESS, verdict=verdict)


@pytest.mark.parametrize("retried", [True, False])
def test_invalid_grant_is_final_for_that_refresh_token(retried: bool) -> None:
    asked = replace(ASKED, record=replace(ASKED.record, journal=Journal(NOW, retried=retried)))
    record = failed(asked, USED_UP, 10.0, NOW)
    assert record == replace(RECORD, verdict=Verdict(digest(CURRENT), NOW, lost=retried))


def test_invalid_grant_without_a_refresh_token_is_a_failure_like_others() -> None:
    record = failed(Ask(Record(), CLIENT), USED_UP, 10.0, NOW)
    assert record.verdict is None
    assert record.setback == Setback(NOW, NOW + 10.0, 1, "invalid_grant", str(USED_UP), final=True)


@pytest.mark.parametrize(("error", "final"), [(REFUSED, True), (DOWN, False)])
def test_other_failures_are_none_of_the_refresh_tokens(error: TokenError, final: bool) -> None:
    record = failed(ASKED, error, 10.0, NOW)
    assert record == replace(RECORD, setback=Setback(NOW, NOW + 10.0, 4, error.error, str(error), final))


# --- what somebody else has written meanwhile ---

OUTCOME = granted(ASKED, ACCESS, NEXT)


def test_an_answer_is_written_over_a_lease_that_was_lost() -> None:
    for lease in (None, Lease("me/1", NOW)):
        assert merged(replace(RECORD, lease=lease), ASKED, OUTCOME, "me/1") == OUTCOME


def test_an_answer_leaves_the_lease_and_note_of_another() -> None:
    current = replace(RECORD, lease=Lease("other/1", NOW + 9), journal=Journal(NOW + 1, retried=True))
    assert merged(current, ASKED, OUTCOME, "me/1") == replace(OUTCOME, lease=current.lease, journal=current.journal)


def test_a_refresh_token_of_somebody_else_stays() -> None:
    current = replace(RECORD, refresh_token=Secret("from a login"), generation=6)
    assert merged(current, ASKED, OUTCOME, "me/1") is None
    assert merged(OUTCOME, ASKED, OUTCOME, "me/1") is None


def test_a_failure_does_not_disturb_another_who_tries() -> None:
    current = replace(RECORD, lease=Lease("other/1", NOW + 9), journal=Journal(NOW + 1))
    assert merged(current, ASKED, set_back(RECORD, DOWN, 1.0, NOW), "me/1") is None


def test_what_the_store_has_forgotten_is_put_back() -> None:
    assert merged(Record(), ASKED, OUTCOME, "me/1") == OUTCOME
    assert merged(replace(RECORD, refresh_token=Secret("old"), generation=4), ASKED, OUTCOME, "me/1") == OUTCOME

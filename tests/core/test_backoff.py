"""How long a token endpoint is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.backoff import LONGEST_PAUSE, LONGEST_REFUSAL, LONGEST_RETRY_AFTER, pause, restart_pause

failures = st.integers(1, 10**9)
jitters = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("in_a_row", "expected"),
    [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (8, 30), (1000, 30), (10**9, 30)],
)
def test_the_pause_doubles_up_to_half_a_minute(in_a_row: int, expected: float) -> None:
    assert pause(in_a_row, final=False, retry_after=None, jitter=0) == expected


@pytest.mark.parametrize(("in_a_row", "expected"), [(1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (10**9, 60)])
def test_a_refusal_is_remembered_for_longer_and_for_a_minute_at_most(in_a_row: int, expected: float) -> None:
    assert pause(in_a_row, final=True, retry_after=None, jitter=0) == expected


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(None, 0.5), (0, 0.5), (0.4, 0.5), (0.6, 0.6), (42, 42), (300, 300), (301, 300), (1e12, 300)],
)
def test_retry_after_is_heeded_within_reason(retry_after: float | None, expected: float) -> None:
    assert pause(1, final=False, retry_after=retry_after, jitter=0) == expected


@given(failures, st.booleans(), st.none() | st.floats(0, 1e9), jitters)
def test_a_pause_is_neither_none_nor_endless(
    in_a_row: int, final: bool, retry_after: float | None, jitter: float
) -> None:
    longest = max(LONGEST_REFUSAL if final else LONGEST_PAUSE, min(retry_after or 0, LONGEST_RETRY_AFTER))
    assert 0.375 <= pause(in_a_row, final=final, retry_after=retry_after, jitter=jitter) <= longest


@given(failures, st.booleans(), st.floats(0, LONGEST_RETRY_AFTER), jitters)
def test_what_the_endpoint_asks_for_is_never_undercut(
    in_a_row: int, final: bool, retry_after: float, jitter: float
) -> None:
    assert pause(in_a_row, final=final, retry_after=retry_after, jitter=jitter) >= retry_after


@given(failures, st.booleans(), jitters)
def test_jitter_shortens_a_pause_by_up_to_a_quarter(in_a_row: int, final: bool, jitter: float) -> None:
    whole = pause(in_a_row, final=final, retry_after=None, jitter=0)
    assert whole * 0.75 <= pause(in_a_row, final=final, retry_after=None, jitter=jitter) <= whole


def test_jitter_spreads_clients_that_failed_together() -> None:
    pauses = {pause(5, final=False, retry_after=None, jitter=step / 100) for step in range(100)}
    assert len(pauses) == 100


@given(failures, st.booleans(), jitters)
def test_a_further_failure_never_shortens_the_pause(in_a_row: int, final: bool, jitter: float) -> None:
    shorter, longer = (pause(count, final=final, retry_after=None, jitter=jitter) for count in (in_a_row, in_a_row + 1))
    assert shorter <= longer


@pytest.mark.parametrize(
    ("deaths", "seconds"),
    [(1, 0.0), (2, 0.5), (3, 1.0), (4, 2.0), (7, 16.0), (8, LONGEST_PAUSE), (10_000, LONGEST_PAUSE)],
)
def test_a_process_that_can_not_start_is_replaced_ever_later(deaths: int, seconds: float) -> None:
    assert restart_pause(deaths, served=False) == seconds


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0), (10_000, 1.0)])
def test_a_process_that_served_before_it_died_is_replaced_soon(deaths: int, seconds: float) -> None:
    assert restart_pause(deaths, served=True) == seconds

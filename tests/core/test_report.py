"""Counts as the planes add to them."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.report import DURATION_BUCKETS, HISTORY, Happening, Headroom, Histogram, Tally, headroom


@pytest.mark.parametrize(
    ("observed", "bucket"),
    [(0.0, 0), (0.005, 0), (0.0051, 1), (0.01, 1), (0.3, 6), (0.5, 6), (15.0, 11), (15.001, 12), (1e6, 12)],
)
def test_a_duration_is_counted_below_the_first_bound_that_it_does_not_exceed(observed: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.observe(observed)
    assert histogram.counts == [1 if index == bucket else 0 for index in range(len(DURATION_BUCKETS) + 1)]
    assert histogram.total == observed


@given(st.lists(st.floats(0, 1e4), max_size=50))
def test_every_duration_is_counted_once(durations: list[float]) -> None:
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    assert sum(histogram.counts) == len(durations)
    assert histogram.total == pytest.approx(math.fsum(durations))
    for index, bound in enumerate(DURATION_BUCKETS):
        assert sum(histogram.counts[: index + 1]) == sum(seconds <= bound for seconds in durations)


def test_bounds_rise() -> None:
    assert list(DURATION_BUCKETS) == sorted(set(DURATION_BUCKETS))


@pytest.mark.parametrize(
    ("allowed", "count", "expected"),
    [
        (b"300", b"9", 291),
        (b"300", b"300", 0),
        (b"300", b"301", 0),
        (b"0", b"0", 0),
        (b"", b"9", None),
        (b"300", b"", None),
        (b"-1", b"9", None),
        (b"300.0", b"9", None),
        (b"300, 300", b"9", None),
        (b"\xb2", b"9", None),
        (b"9" * 5000, b"1", None),
    ],
)
def test_what_is_left_of_a_rate_limit_is_known_where_the_upstream_said_it(
    allowed: bytes, count: bytes, expected: int | None
) -> None:
    found = headroom(_told(allowed, count, b"60"), 1000.0)
    assert (found and found.remaining) == expected


def _told(allowed: bytes, count: bytes, reset: bytes) -> Tally:
    tally = Tally()
    tally.hear(allowed, count, reset, 1000.0)
    return tally


def test_without_a_word_of_the_upstream_nothing_is_known_of_a_rate_limit() -> None:
    assert headroom(Tally(), 0.0) is None


def test_two_tenants_share_no_counts() -> None:
    one, other = Tally(), Tally()
    one.count(200, 1.0)
    one.count(418, 1.0)
    one.hear(b"300", b"9", b"42", 1.0)
    one.refreshes.observe(1.0)
    assert other == Tally()


@pytest.mark.parametrize(("passed", "expected"), [(0.0, 291), (41.9, 291), (42.0, 300), (3600.0, 300)])
def test_once_the_minute_is_over_all_of_a_rate_limit_is_left(passed: float, expected: int) -> None:
    found = headroom(_told(b"300", b"9", b"42"), 1000.0 + passed)
    assert found == Headroom(expected, 300)


def test_what_happened_is_remembered_up_to_a_number() -> None:
    tally = Tally()
    for number in range(HISTORY):
        tally.count_replay("accepted", float(number))
    tally.count_token_request("client_credentials", "ok", 0.1, 99.0)
    assert len(tally.history) == HISTORY
    assert tally.history[0] == Happening(1.0, "replay", "accepted")
    assert tally.history[-1] == Happening(99.0, "token", "ok")
    assert tally.replays == {"accepted": HISTORY}
    assert tally.token_requests == {("client_credentials", "ok"): 1}
    assert sum(tally.refreshes.counts) == 1


@given(st.lists(st.tuples(st.integers(100, 999), st.floats(0, 100)), max_size=50))
def test_answers_of_any_status_are_counted_and_added_up(answers: list[tuple[int, float]]) -> None:
    one, other, both = Tally(), Tally(), Tally()
    for number, (status, seconds) in enumerate(answers):
        (one if number % 2 else other).count(status, seconds)
        both.count(status, seconds)
    assert both.requests == Counter(status for status, _ in answers)
    assert list(both.requests) == sorted(both.requests)
    assert both.upgraded == (101 in both.requests)
    histogram = Histogram()
    for _, seconds in answers:
        histogram.observe(seconds)
    assert both.durations.counts == histogram.counts
    assert both.durations.total == pytest.approx(histogram.total)
    one.add(other)
    assert one.requests == both.requests
    assert one.durations.counts == both.durations.counts
    assert one.durations.total == pytest.approx(both.durations.total)


def test_a_rate_limit_is_not_added_up() -> None:
    one, other = _told(b"300", b"9", b"42"), _told(b"300", b"100", b"42")
    one.add(other)
    assert headroom(one, 1000.0) == Headroom(291, 300)


def test_what_can_not_be_read_of_a_rate_limit_takes_the_place_of_what_could() -> None:
    tally = _told(b"300", b"9", b"42")
    tally.hear(b"300", b"many", b"42", 1001.0)
    assert headroom(tally, 1001.0) is None

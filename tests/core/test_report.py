"""Counts as the planes add to them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.report import DURATION_BUCKETS, Histogram, Tally


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
    assert Tally(rate_limit=(allowed, count)).rate_limit_remaining == expected


def test_without_a_word_of_the_upstream_nothing_is_known_of_a_rate_limit() -> None:
    assert Tally().rate_limit_remaining is None


def test_two_tenants_share_no_counts() -> None:
    one, other = Tally(), Tally()
    one.requests[200] = 1
    one.durations.observe(1.0)
    one.refreshes.observe(1.0)
    assert other == Tally()
    assert one.durations.counts is not other.durations.counts is not other.refreshes.counts


@pytest.mark.parametrize(
    ("said", "remaining"),
    [
        (None, None),
        ((b"300", b"9"), 291),
        ((b"300", b"300"), 0),
        ((b"300", b"310"), 0),
        ((b"300", b""), None),
        ((b"many", b"9"), None),
        ((b"-1", b"9"), None),
        ((b"9" * 4000, b"9"), None),
    ],
)
def test_what_is_left_of_a_rate_limit(said: tuple[bytes, bytes] | None, remaining: int | None) -> None:
    assert Tally(rate_limit=said).rate_limit_remaining == remaining

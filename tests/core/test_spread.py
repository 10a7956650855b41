"""What is left of a token's rate limit, as far as can be known here."""

from __future__ import annotations

import pytest

from proxy.core.spread import ALLOWED, MINUTE, Share


def test_all_is_left_of_a_token_that_nothing_is_known_of() -> None:
    assert Share().available(1000.0) == ALLOWED


def test_what_is_sent_counts_until_the_minute_is_over() -> None:
    share = Share()
    share.available(1000.0)
    share.left -= 10
    assert share.available(1000.0 + MINUTE - 0.1) == ALLOWED - 10
    assert share.available(1000.0 + MINUTE) == ALLOWED


def test_an_answer_puts_the_estimate_right_until_its_own_reset() -> None:
    share = Share()
    share.available(1000.0)
    share.hear((b"60", b"50", b"7"), 1000.0)
    assert share.available(1006.9) == 10
    assert share.available(1007.0) == 60


@pytest.mark.parametrize("said", [(b"", b"1", b"1"), (b"-1", b"1", b"1"), (b"1", b"x", b"1"), (b"1", b"1", b"1" * 7)])
def test_nonsense_changes_nothing(said: tuple[bytes, bytes, bytes]) -> None:
    share = Share()
    share.available(1000.0)
    share.hear(said, 1000.0)
    assert share == Share(ALLOWED, ALLOWED, 1000.0 + MINUTE)


def test_a_limit_that_was_met_leaves_nothing_for_so_long() -> None:
    share = Share()
    share.hear((b"300", b"300", b"2"), 1000.0)
    share.exhaust(30.0, 1000.0)
    assert share.available(1029.9) == 0
    assert share.available(1030.0) == 300


def test_a_limit_that_was_met_is_not_over_before_the_reset_that_was_told() -> None:
    share = Share()
    share.hear((b"300", b"10", b"50"), 1000.0)
    share.exhaust(1.0, 1000.0)
    assert share.available(1049.9) == 0

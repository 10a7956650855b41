"""How long a token lives, when it is refreshed, and when it can no longer be used."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.report import TokenState
from proxy.core.tokens import (
    LEEWAY,
    LONGEST_LIFETIME,
    UNKNOWN_LIFETIME,
    Instant,
    Token,
    age,
    ahead,
    lifetime,
    remaining,
    state,
)

START = Instant(elapsed=5_000.0, wall=1_700_000_000.0)
HOUR = 3600.0

seconds = st.floats(-2e5, 2e5)
lifetimes = st.floats(0.001, LONGEST_LIFETIME)
tokens = st.builds(
    Token,
    access_token=st.just("t"),
    obtained=st.just(START),
    lifetime=lifetimes,
    ahead=st.floats(0, 10) | st.floats(0, 4e4),
)


def token(lives: float = HOUR, window: float = 60.0) -> Token:
    return Token("t", START, lives, window)


def after(elapsed: float, *, stepped: float = 0.0) -> Instant:
    """``elapsed`` seconds later, with the wall clock stepped by ``stepped``."""
    return Instant(START.elapsed + elapsed, START.wall + elapsed + stepped)


# --- the three states ---


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [
        (0, TokenState.FRESH),
        (3539.999, TokenState.FRESH),
        (3540, TokenState.STALE),
        (3594.999, TokenState.STALE),
        (3595, TokenState.EXPIRED),
        (3600, TokenState.EXPIRED),
        (1e9, TokenState.EXPIRED),
    ],
)
def test_each_state_ends_where_the_next_begins(elapsed: float, expected: TokenState) -> None:
    assert state(token(), after(elapsed)) is expected


def test_before_the_first_token_there_is_none() -> None:
    assert state(None, START) is TokenState.NONE


@given(tokens, st.floats(-20, 20))
def test_a_token_is_never_usable_within_its_leeway(token: Token, left: float) -> None:
    now = after(token.lifetime - left)
    usable = state(token, now) in (TokenState.FRESH, TokenState.STALE)
    assert usable == (remaining(token, now) > token.leeway)


@given(tokens, st.floats(0, 2e5), st.floats(0, 2e5))
def test_a_token_only_grows_older(token: Token, elapsed: float, further: float) -> None:
    order = [TokenState.FRESH, TokenState.STALE, TokenState.EXPIRED]
    earlier, later = (state(token, after(at)) for at in (elapsed, elapsed + further))
    assert order.index(earlier) <= order.index(later)


def test_a_window_shorter_than_the_leeway_does_not_shorten_the_leeway() -> None:
    impatient = token(window=1.0)
    assert state(impatient, after(HOUR - LEEWAY - 0.001)) is not TokenState.EXPIRED
    assert state(impatient, after(HOUR - LEEWAY)) is TokenState.EXPIRED
    assert state(impatient, after(HOUR - 2.0)) is TokenState.EXPIRED


@pytest.mark.parametrize(("lives", "leeway"), [(HOUR, 5.0), (100.0, 5.0), (99.0, 4.95), (10.0, 0.5), (1.0, 0.05)])
def test_the_leeway_is_five_seconds_or_a_twentieth_of_a_very_short_life(lives: float, leeway: float) -> None:
    assert token(lives).leeway == pytest.approx(leeway)


@given(lifetimes, st.floats(0.001, 86_400), st.floats(0, 1, exclude_max=True))
def test_a_new_token_is_fresh(lives: float, refresh_ahead: float, jitter: float) -> None:
    issued = Token("t", START, lives, ahead(lives, refresh_ahead, jitter=jitter))
    assert state(issued, START) is TokenState.FRESH


# --- two clocks ---


def test_a_token_grows_older_by_whichever_clock_saw_more() -> None:
    assert age(token(), after(100, stepped=HOUR)) == 100 + HOUR
    assert age(token(), after(100, stepped=-HOUR)) == 100


@given(tokens, st.floats(0, 2e5), seconds)
def test_no_step_of_the_wall_clock_prolongs_a_life(token: Token, elapsed: float, stepped: float) -> None:
    assert remaining(token, after(elapsed, stepped=stepped)) <= token.lifetime - elapsed + 1e-3


@given(tokens, st.floats(0, 2e5), st.floats(-2e5, 0))
def test_a_wall_clock_stepped_back_changes_nothing(token: Token, elapsed: float, stepped: float) -> None:
    now = after(elapsed, stepped=stepped)
    assert remaining(token, now) == pytest.approx(token.lifetime - elapsed, abs=1e-3)


def test_a_pause_that_only_the_wall_clock_saw_counts() -> None:
    assert state(token(), after(1, stepped=HOUR)) is TokenState.EXPIRED


def test_remaining_is_negative_after_expiry() -> None:
    assert remaining(token(), after(HOUR + 10)) == -10


# --- when to refresh ---


@pytest.mark.parametrize(
    ("lives", "refresh_ahead", "expected"),
    [(86_400, 60, 60), (300, 60, 60), (299, 60, 59.8), (10, 60, 2), (86_400, 86_400, 17_280), (HOUR, 1, 1)],
)
def test_the_refresh_begins_refresh_ahead_before_expiry_and_within_the_last_fifth(
    lives: float, refresh_ahead: float, expected: float
) -> None:
    assert ahead(lives, refresh_ahead, jitter=0.0) == pytest.approx(expected)


@given(lifetimes, st.floats(0.001, 86_400), st.floats(0, 1, exclude_max=True))
def test_jitter_only_shortens_the_window_and_by_a_third_at_most(
    lives: float, refresh_ahead: float, jitter: float
) -> None:
    longest = min(refresh_ahead, lives / 5)
    assert longest * 2 / 3 - 1e-9 <= ahead(lives, refresh_ahead, jitter=jitter) <= longest


def test_jitter_spreads_the_refreshes_of_tokens_issued_together() -> None:
    windows = {ahead(HOUR, 60, jitter=step / 100) for step in range(100)}
    assert len(windows) == 100
    assert max(windows) - min(windows) > 19


# --- expires_in and exp ---


@pytest.mark.parametrize(
    ("expires_in", "expected"),
    [
        (3600, 3600),
        (3600.5, 3600.5),
        (1, 1),
        ("3600", 3600),
        (" 3600 ", 3600),
        ("3600.0", 3600),
        (0, 0),
        ("0", 0),
        (-5, -5),
        ("-5", -5),
        (172_800, LONGEST_LIFETIME),
        (172_801, LONGEST_LIFETIME),
        (10**12, LONGEST_LIFETIME),
        pytest.param(10**400, LONGEST_LIFETIME, id="10**400"),
        pytest.param("9" * 500, LONGEST_LIFETIME, id="500 digits"),
        (math.inf, LONGEST_LIFETIME),
        ("inf", LONGEST_LIFETIME),
        (None, UNKNOWN_LIFETIME),
        (math.nan, UNKNOWN_LIFETIME),
        ("nan", UNKNOWN_LIFETIME),
        (True, UNKNOWN_LIFETIME),
        (False, UNKNOWN_LIFETIME),
        ("", UNKNOWN_LIFETIME),
        ("an hour", UNKNOWN_LIFETIME),
        ("3600s", UNKNOWN_LIFETIME),
        ([3600], UNKNOWN_LIFETIME),
        ({"seconds": 3600}, UNKNOWN_LIFETIME),
    ],
)
def test_every_expires_in_has_a_meaning(expires_in: object, expected: float) -> None:
    assert lifetime(expires_in, server_time=START.wall) == expected


@pytest.mark.parametrize("expires_in", [-math.inf, "-inf", pytest.param(-(10**400), id="-(10**400)")])
def test_a_token_that_expired_long_ago_is_dead_on_arrival(expires_in: object) -> None:
    assert lifetime(expires_in, server_time=START.wall) <= 0


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
    st.none() | st.floats(allow_nan=False),
)
def test_a_lifetime_is_a_number_and_never_absurdly_long(expires_in: object, expiry: float | None) -> None:
    lives = lifetime(expires_in, expiry=expiry, server_time=START.wall)
    assert not math.isnan(lives)
    assert lives <= LONGEST_LIFETIME


@pytest.mark.parametrize(
    ("expires_in", "left", "expected"),
    [
        (3600, 900, 900),
        (3600, 3600, 3600),
        (3600, 7200, 3600),
        (3600, -1, -1),
        (None, 900, 900),
        (None, 7200, 7200),
        (None, 1e9, LONGEST_LIFETIME),
        (None, math.inf, LONGEST_LIFETIME),
        (-5, 900, -5),
    ],
)
def test_the_earlier_of_expires_in_and_exp_counts(expires_in: object, left: float, expected: float) -> None:
    assert lifetime(expires_in, expiry=START.wall + left, server_time=START.wall) == expected


def test_exp_is_measured_by_the_endpoints_own_clock() -> None:
    server_time = START.wall - HOUR
    assert lifetime(3600, expiry=server_time + 900, server_time=server_time) == 900


# --- the token itself ---


def test_a_token_carries_its_credential() -> None:
    assert Token("abc", START, HOUR, 60).credential == b"Bearer abc"


def test_no_way_of_printing_shows_a_token() -> None:
    shown = repr(Token("hunter2", START, HOUR, 60))
    assert "hunter2" not in shown
    assert "3600" in shown

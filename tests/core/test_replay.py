"""Which refused requests are sent once more."""

from __future__ import annotations

import pytest

from proxy.core.replay import COOL_DOWN, Verdict, decide, pause


@pytest.mark.parametrize(
    ("replayed", "body_kept", "cooling_down", "expected"),
    [
        (False, True, False, Verdict.REPLAY),
        (False, False, False, Verdict.TOO_LONG),
        (False, True, True, Verdict.COOLING_DOWN),
        (False, False, True, Verdict.COOLING_DOWN),
        (True, True, False, Verdict.REFUSED_AGAIN),
        (True, False, False, Verdict.REFUSED_AGAIN),
        (True, True, True, Verdict.REFUSED_AGAIN),
        (True, False, True, Verdict.REFUSED_AGAIN),
    ],
)
def test_a_refused_request_is_sent_once_more_while_it_can_help_and_never_a_third_time(
    replayed: bool, body_kept: bool, cooling_down: bool, expected: Verdict
) -> None:
    assert decide(replayed=replayed, body_kept=body_kept, cooling_down=cooling_down) is expected


def test_a_cool_down_lasts_seconds_and_not_minutes() -> None:
    assert 1 <= COOL_DOWN <= 10


# --- rate limits ---


@pytest.mark.parametrize(
    ("retry_after", "waited", "longest", "patience", "expected"),
    [
        (b"2", 0.0, 2.0, 15.0, 2.0),
        (b"3", 0.0, 2.0, 15.0, None),
        (b"2", 1.0, 3.0, 15.0, 2.0),
        (b"2", 1.1, 3.0, 15.0, None),
        (b"2", 0.0, 10.0, 2.1, 2.0),
        (b"2", 0.0, 10.0, 2.0, None),
        (b"0", 0.0, 1.0, 15.0, 1.0),
        (b"0", 1.0, 1.0, 15.0, None),
        (b"0", 0.0, 0.0, 15.0, None),
        (b"2", 0.0, 0.0, 15.0, None),
        (None, 0.0, 10.0, 15.0, None),
        (b"", 0.0, 10.0, 15.0, None),
        (b"-1", 0.0, 10.0, 15.0, None),
        (b"2.5", 0.0, 10.0, 15.0, None),
        (b"Wed, 21 Oct 2026 07:28:00 GMT", 0.0, 1e9, 1e9, None),
        (b"\xb2", 0.0, 10.0, 15.0, None),
        (b"1" * 5000, 0.0, 1e9, 1e9, None),
    ],
)
def test_a_rate_limit_is_waited_for_where_the_wait_is_known_and_short(
    retry_after: bytes | None, waited: float, longest: float, patience: float, expected: float | None
) -> None:
    assert pause(retry_after, body_kept=True, waited=waited, longest=longest, patience=patience) == expected
    assert pause(retry_after, body_kept=False, waited=waited, longest=longest, patience=patience) is None

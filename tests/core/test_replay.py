"""Which refused requests are sent once more."""

from __future__ import annotations

import pytest

from proxy.core.replay import COOL_DOWN, Verdict, decide


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

"""Some times in a row, and then at a steady pace."""

from __future__ import annotations

import pytest

from proxy.core.allowance import Allowance


def test_it_can_be_used_up_at_once_and_comes_back_evenly() -> None:
    allowance = Allowance(4, 60.0)
    assert [allowance.take(1000.0) for _ in range(4)] == [0.0] * 4
    assert allowance.take(1000.0) == 15.0
    assert allowance.take(1014.0) == 1.0, "who is refused uses nothing"
    assert allowance.take(1015.0) == 0.0
    assert allowance.take(1015.0) == 15.0


@pytest.mark.parametrize("quiet", [60.0, 1e6])
def test_what_is_not_used_does_not_add_up(quiet: float) -> None:
    allowance = Allowance(4, 60.0)
    for now in (0.0, quiet):
        assert [allowance.take(now) for _ in range(4)] == [0.0] * 4
        assert allowance.take(now) == 15.0


def test_a_slow_use_is_never_refused() -> None:
    allowance = Allowance(4, 60.0)
    assert {allowance.take(16.0 * number) for number in range(100)} == {0.0}

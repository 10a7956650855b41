"""Rate windows."""

from proxy.sandbox.limits import RateWindow


def test_calls_up_to_the_limit_are_within_it() -> None:
    window = RateWindow(2)
    assert [window.take(0), window.take(1), window.take(2)] == [True, True, False]


def test_a_call_too_many_does_not_count() -> None:
    window = RateWindow(1)
    window.take(0)
    window.take(0)
    assert window.count == 1


def test_a_window_begins_with_its_first_call_and_lasts_its_length() -> None:
    window = RateWindow(1, length=60)
    window.take(1_000)
    assert not window.take(1_059.9)
    assert window.take(1_060)


def test_what_was_spent_counts_until_the_reset_in_whole_seconds_rounded_up() -> None:
    window = RateWindow(5, length=60)
    assert window.spent(100) == (0, 60)
    window.take(100)
    window.take(101)
    assert window.spent(101.5) == (2, 59)
    assert window.spent(159.9) == (2, 1)
    assert window.spent(160) == (0, 60)


def test_without_a_limit_calls_are_counted_all_the_same() -> None:
    window = RateWindow(None)
    assert all(window.take(0) for _ in range(1_000))
    assert window.count == 1_000

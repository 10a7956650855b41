"""The mechanism that leaves tests out: what is missing is told last, and fails a run under CI."""

from __future__ import annotations

import inspect
from typing import Protocol

import pytest

from tests import conftest, system
from tests.system import Need


class Run(Protocol):
    def __call__(self, source: str, *options: str) -> pytest.RunResult: ...


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a test file under the real conftest on a machine that has "here" and lacks "absent"."""
    monkeypatch.setitem(system.NEEDS, "here", Need(lambda: None))
    monkeypatch.setitem(system.NEEDS, "absent", Need(lambda: "absent is not installed"))
    monkeypatch.delenv("CI", raising=False)
    pytester.makeconftest(inspect.getsource(conftest))

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=f"import pytest\n{inspect.cleandoc(source)}")
        without = [f"-pno:{plugin}" for plugin in ("cacheprovider", "asyncio", "hypothesispytest")]
        return pytester.runpytest_inprocess(*without, *options)

    return run


ONE_OF_EACH = """
    @pytest.mark.needs("absent")
    def test_asks_for_what_is_missing():
        raise AssertionError

    @pytest.mark.needs("here")
    def test_asks_for_what_is_there():
        pass
"""


def test_the_last_lines_say_which_test_was_left_out_and_why(run: Run) -> None:
    result = run(ONE_OF_EACH)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1, skipped=1)
    last = [line for line in result.outlines if line][-3:]
    assert "left out" in last[0]
    assert last[1] == "test_it.py::test_asks_for_what_is_missing: absent is not installed"
    assert "1 passed, 1 skipped" in last[2]


def test_a_run_under_ci_fails_when_a_test_was_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = run(ONE_OF_EACH)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*left out, which fails a run with CI=true*"])


def test_a_run_under_ci_passes_when_nothing_was_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = run("""
        @pytest.mark.needs("here")
        def test_asks_for_what_is_there():
            pass
    """)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*left out*")


def test_a_skip_without_the_marker_counts_as_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = run("""
        def test_skips_itself():
            pytest.skip("not today")
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["test_it.py::test_skips_itself: not today"])


def test_processes_that_share_the_tests_tell_of_each_once_and_fail_under_ci(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    source = """
        def test_skips_itself():
            pytest.skip("not today")

        def test_runs():
            pass
    """
    result = run(source, "-n2", "--dist=load")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*left out, which fails a run with CI=true*"])
    assert [line for line in result.outlines if "not today" in line] == ["test_it.py::test_skips_itself: not today"]


def test_many_tests_of_a_file_share_a_line(run: Run) -> None:
    result = run("""
        pytestmark = pytest.mark.needs("here", "absent")

        @pytest.mark.parametrize("n", range(30))
        def test_it(n):
            pass
    """)
    result.stdout.fnmatch_lines(["test_it.py (30 tests): absent is not installed"])


def test_no_fixture_runs_for_a_test_that_is_left_out(run: Run) -> None:
    result = run("""
        @pytest.fixture
        def server():
            raise AssertionError

        @pytest.mark.needs("absent")
        def test_it(server):
            pass
    """)
    result.assert_outcomes(skipped=1)


def test_a_name_that_nobody_knows_is_an_error(run: Run) -> None:
    result = run("""
        @pytest.mark.needs("abacus")
        def test_it():
            pass
    """)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*abacus*"])


def test_what_cannot_be_installed_is_told_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed: list[str] = []

    def fail() -> None:
        raise OSError("no network")

    needs = {
        "absent": Need(lambda: "absent is not installed", install=fail),
        "here": Need(lambda: None, install=lambda: installed.append("here")),
        "next": Need(lambda: "next is not installed", install=lambda: installed.append("next")),
    }
    monkeypatch.setattr(system, "NEEDS", needs)
    system.install()
    assert installed == ["next"]
    assert "absent could not be installed (no network)" in capsys.readouterr().out

"""Tests that were left out are told in the run's last lines; under CI they fail it.

``@pytest.mark.needs("node", "curl")`` leaves a test out where the machine lacks one of them, as
``tests/system.py`` tells. A test that was skipped in any other way counts the same.

With ``-n auto``, processes share the test files out among themselves: a file's tests stay together, for the sake of the
fixtures that they share.

Hypothesis tries the same examples in every run, however slow the machine is; ``--hypothesis-profile=default`` others.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Generator

import hypothesis
import pytest

from tests.system import NEEDS

hypothesis.settings.load_profile("ci")

_LONG = ("project", "e2e", "workers", "cli", "sdk", "browser", "admin", "conformance", "forward")
"""Folders whose files take long because they start programs or wait, in the order in which they are begun."""


@functools.cache
def _missing(name: str) -> str | None:
    return NEEDS[name].missing()


def _left_out(session: pytest.Session) -> list[pytest.TestReport | pytest.CollectReport]:
    reporter: pytest.TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter else []


def _rank(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return _LONG.index(folder) if folder in _LONG else len(_LONG)


def _ci() -> bool:
    return os.environ.get("CI") == "true"


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are processors, for most tests wait for other processes, or for time to pass."""
    return min(8, 2 * (os.cpu_count() or 1))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): what the test uses of the machine, see tests/system.py")
    config.addinivalue_line("markers", "slow: takes long; only run where -m names it")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = {name for item in items for marker in item.iter_markers("needs") for name in marker.args}
    if unknown := sorted(named - NEEDS.keys()):
        raise pytest.UsageError(f"needs({unknown[0]!r}): tests/system.py knows {', '.join(sorted(NEEDS))}")
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow and "slow" not in config.getoption("markexpr"):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    if hasattr(config, "workerinput"):  # one process of several, which end together if the long files come first
        items.sort(key=_rank)


@pytest.hookimpl(tryfirst=True)  # before any fixture of the test
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if (reason := _missing(name)) is not None:
                pytest.skip(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _ci() and _left_out(session) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the outermost, so that only the line of counts comes after it
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    yield
    left_out: dict[tuple[str, str], list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        left_out[report.nodeid.partition("::")[0], reason.removeprefix("Skipped: ")].append(report.nodeid)
    if not left_out:
        return
    title = "left out, which fails a run with CI=true" if _ci() else "left out"
    terminalreporter.write_sep("=", title, yellow=True)
    for (file, reason), tests in sorted(left_out.items()):
        which = tests[0] if len(tests) == 1 else f"{file} ({len(tests)} tests)"
        terminalreporter.write_line(f"{which}: {reason}")

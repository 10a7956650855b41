"""The rules of ``rules``, each for all its siblings."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.conformance import rules
from tests.conformance.cases import Entry
from tests.conformance.expectations import shortcomings
from tests.conformance.play import Part, Stage
from tests.conformance.selection import selected

_AT_ONCE = 24
_ENTRIES = list(rules.entries())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outcomes(request: pytest.FixtureRequest, stage: Stage) -> dict[str, list[str]]:
    """Where the proxy falls short, by case: they all are played before the first is judged."""
    chosen: list[Entry] = selected(request, "entry")
    parts = [
        Part(entry.id, entry.tenant, entry.case, lambda case, seen: shortcomings(case.expect, seen)) for entry in chosen
    ]
    return await stage.perform(parts, at_once=_AT_ONCE)


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.id) for entry in _ENTRIES])
def test_the_proxy_keeps_the_rule_of(entry: Entry, outcomes: dict[str, list[str]]) -> None:
    problems = outcomes[entry.id]
    assert not problems, f"{entry.source}\n" + "\n".join(problems)

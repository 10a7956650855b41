"""Requests that two parsers may read differently: whatever reaches the upstream can be read one way only."""

from __future__ import annotations

from functools import partial

import pytest
import pytest_asyncio

from tests.conformance import desync
from tests.conformance.cases import Case, Names
from tests.conformance.observation import Observation
from tests.conformance.play import Part, Stage
from tests.conformance.script import Send
from tests.conformance.selection import selected

_AT_ONCE = 12
_NAMES = sorted(desync.corpus(Names("localhost:8080", "/t/any")))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outcomes(request: pytest.FixtureRequest, stage: Stage) -> dict[str, list[str]]:
    """What is wrong, by request: they all are sent before the first is judged."""
    chosen: list[str] = selected(request, "name")
    return await stage.perform(
        [Part(name, "any", partial(desync.case, name), _judge) for name in chosen], at_once=_AT_ONCE
    )


def _judge(case: Case, seen: Observation) -> list[str]:
    (sent,) = case.client
    assert isinstance(sent, Send)
    return desync.faults(sent.data, seen)


@pytest.mark.parametrize("name", _NAMES)
def test_no_two_parsers_disagree_on(name: str, outcomes: dict[str, list[str]]) -> None:
    assert not outcomes[name]

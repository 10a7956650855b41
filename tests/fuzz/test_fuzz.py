"""A few of the random clients and upstreams, the same each time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import clients, upstreams
from tests.fuzz.loop import run

_FEW = settings(
    max_examples=350,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@_FEW
@given(clients.scripts())
@pytest.mark.timeout(240)
def test_no_client_gets_more_or_other_requests_through_than_it_sent(script: clients.Script) -> None:
    run(clients.play(script))


@_FEW
@given(upstreams.scripts())
@pytest.mark.timeout(240)
def test_no_upstream_gets_more_or_other_answers_through_than_it_may(script: upstreams.Script) -> None:
    run(upstreams.play(script))

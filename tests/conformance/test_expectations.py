"""Each demand that a case can make is noticed where it is not met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from tests.conformance.expectations import ClientDemands, Expectation, UpstreamDemands, shortcomings
from tests.conformance.messages import Answer, Field
from tests.conformance.observation import Observation, Record, Request


def _seen() -> Observation:
    """One ordinary exchange, after which the client left and the upstream connection ended."""
    some: list[Field] = [("X-A", "b"), ("x-a", "c"), ("Connection", "close")]
    request = Request("GET /x HTTP/1.1", some, bytearray(b"hello"), "cl", complete=True)
    seen = Observation(Record([request], [bytearray(b"GET /x ... hello")], {0: 102.0}))
    seen.raw, seen.ended, seen.started, seen.left_at = bytearray(b"HTTP/1.1 200 OK ... ok"), True, 90.0, 100.0
    seen.arrived, seen.reached, seen.tunnel = {b"first": 0.5}, {b"hel"}, b"frames"
    seen.answers = [Answer(200, some, b"ok", complete=True, interim=[103], framing="cl")]
    return seen


_MET_AND_UNMET: list[tuple[str, str, Any, Any]] = [
    ("client", "status", [404, "2xx"], [404, "5xx", "none"]),
    ("client", "statuses", ["2xx"], [200, 200]),
    ("client", "bodies", ["ok"], ["ok", "ok"]),
    ("client", "body", "ok", "o"),
    ("client", "body_length", 2, 3),
    ("client", "max_answers", 1, 0),
    ("client", "interim", [103], []),
    ("client", "framing", ["te", "cl"], ["te"]),
    ("client", "raw_absent", ["EVIL"], ["EVIL", "ok"]),
    ("client", "tunnel_contains", ["frame"], ["frame", "other"]),
    ("client", "in_time", {"first": 0.5}, {"first": 0.4}),
    ("client", "in_time", {"first": 1}, {"never": 1}),
    ("upstream", "requests", 1, 2),
    ("upstream", "connections", 1, 2),
    ("upstream", "complete", 1, 0),
    ("upstream", "line", ["GET /x HTTP/1.1"], ["GET /x"]),
    ("upstream", "line", ["~^GET /[xy] "], ["~^POST "]),
    ("upstream", "line_absent", ["/smuggled"], ["/x"]),
    ("upstream", "body", "hello", ""),
    ("upstream", "body_length", 5, 0),
    ("upstream", "framing", ["cl"], ["none"]),
    ("upstream", "raw_absent", ["EVIL"], ["GET"]),
    ("upstream", "reached", ["hel"], ["lo"]),
    ("upstream", "closed_within", 2.0, 1.9),
    *[
        (side, demand, met, unmet)
        for side in ("client", "upstream")
        for demand, met, unmet in (
            ("has_field", {"X-A": "c"}, {"X-A": "d"}),
            ("has_field", {"X-A": "~^[bc]$"}, {"X-B": "~"}),
            ("field_absent", ["X-B"], ["x-a"]),
            ("field_count", {"X-A": 2}, {"X-A": 1}),
            ("field_values", {"X-A": ["b", "c"]}, {"X-A": ["c", "b"]}),
            ("field_without", {"X-A": "d"}, {"Connection": "CLOSE"}),
        )
    ],
]


def _problems(side: str, demand: str, value: Any, seen: Observation) -> list[str]:
    return shortcomings([Expectation.read({side: {demand: value}})], seen)


@pytest.mark.parametrize("side, demand, met, unmet", _MET_AND_UNMET)
def test_a_demand_is_met_or_not(side: str, demand: str, met: Any, unmet: Any) -> None:
    assert _problems(side, demand, met, _seen()) == []
    (problem,) = _problems(side, demand, unmet, _seen())
    assert problem.startswith(side)


def _incomplete(seen: Observation) -> None:
    seen.answers[0].complete = False


def _open(seen: Observation) -> None:
    seen.ended = False


def _as_it_was(seen: Observation) -> None:
    pass


def _ended_by_close(seen: Observation) -> None:
    seen.answers[0].framing = "eof"


def _ended_by_reset(seen: Observation) -> None:
    seen.answers[0].framing = "eof"
    seen.reset = True


def _upstream_still_open(seen: Observation) -> None:
    seen.upstream.ended.clear()


def _without_answer(seen: Observation) -> None:
    seen.answers.clear()


_CHANGES: list[tuple[str, str, Any, Callable[[Observation], None], bool]] = [
    ("client", "complete", True, _as_it_was, True),
    ("client", "complete", True, _incomplete, False),
    ("client", "closed", True, _as_it_was, True),
    ("client", "closed", True, _open, False),
    ("client", "truncated", True, _incomplete, True),
    ("client", "truncated", True, _as_it_was, False),
    ("client", "truncated", True, _ended_by_reset, True),
    ("client", "truncated", True, _ended_by_close, False),
    ("client", "status", ["none"], _without_answer, True),
    ("client", "status", ["2xx"], _without_answer, False),
    ("upstream", "closed_within", 60, _upstream_still_open, False),
]


@pytest.mark.parametrize("side, demand, value, change, met", _CHANGES)
def test_a_demand_on_an_end_is_met_or_not(
    side: str, demand: str, value: Any, change: Callable[[Observation], None], met: bool
) -> None:
    seen = _seen()
    change(seen)
    assert (_problems(side, demand, value, seen) == []) is met


def test_every_demand_is_among_those_tested_here() -> None:
    tested = {(side, demand) for side, demand, *_ in [*_MET_AND_UNMET, *_CHANGES]}
    demands = {("client", each.name) for each in fields(ClientDemands)}
    assert tested == demands | {("upstream", each.name) for each in fields(UpstreamDemands)}


def test_one_alternative_is_enough_and_the_nearest_is_told() -> None:
    far = Expectation.read({"client": {"status": [400], "body": "no"}})
    near = Expectation.read({"client": {"status": [502]}})
    assert shortcomings([far, near, Expectation.read({})], _seen()) == []
    assert shortcomings([far, near], _seen()) == ["client: status 200, want [502]"]


@pytest.mark.parametrize("entry", [{"client": {"stauts": [200]}}, {"clinet": {}}, {"upstream": {"status": [200]}}])
def test_a_demand_that_nothing_checks_is_an_error(entry: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Expectation.read(entry)

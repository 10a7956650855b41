"""The file of cases holds what its README says."""

from __future__ import annotations

import re

import pytest

from tests.conformance.cases import Entry, Names, entries
from tests.conformance.script import Send, read_client_step, read_reply

_ENTRIES = list(entries())
_KEYS = {"id", "area", "level", "title", "source", "tenant", "client", "upstream", "expect"}
_KEYS |= {"answers", "methods", "limit", "linger", "settle"}


def test_no_two_cases_share_an_id() -> None:
    assert len({entry.id for entry in _ENTRIES}) == len(_ENTRIES)


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.id) for entry in _ENTRIES])
def test_a_case_says_where_it_comes_from_and_can_be_played(entry: Entry) -> None:
    assert entry.form.keys() <= _KEYS
    assert entry.title
    assert re.search(r"\w{3}", entry.source)
    assert entry.form["level"] in {"MUST", "SHOULD", "SEC", "PROD", "ROBUST"}
    assert entry.tenant in {"any", "own", "default", "guarded"}
    case = entry.case(Names("127.0.0.1:8080", "/t/a", "X: v\r\n"))
    assert case.expect
    assert not any(b"${" in step.data for step in case.client if isinstance(step, Send))


@pytest.mark.parametrize("step", [{"slep": 1}, {"pause": "1"}, {"close": False}, {"switch_to_websocket": True}, 5])
def test_a_step_that_no_client_can_do_is_an_error(step: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no step"):
        read_client_step(step)


@pytest.mark.parametrize("step", [{"await": "x"}, {"half_close": True}, {}])
def test_a_step_that_no_upstream_can_do_is_an_error(step: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no step"):
        read_reply([step])


def test_an_upstream_may_answer_before_the_body() -> None:
    reply = read_reply([{"before_body": True}, "HTTP/1.1 413 Content Too Large\r\n\r\n"])
    assert reply.before_body
    assert reply.steps == (Send(b"HTTP/1.1 413 Content Too Large\r\n\r\n"),)

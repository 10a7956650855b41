"""The conformance tests fail on proxies that deserve it, and on nothing else they do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from functools import partial
from itertools import groupby

import pytest_asyncio

from tests.conformance import desync, rules
from tests.conformance.cases import Case, Entry, Names, entries
from tests.conformance.desync import Label
from tests.conformance.expectations import shortcomings
from tests.conformance.observation import Observation
from tests.conformance.play import Lane, Part, Stage
from tests.conformance.relays import blind_relay, yes_man
from tests.conformance.script import Send
from tests.conformance.upstream import ScriptedUpstream

_RELAYED_BLINDLY = {
    "hop-12", "hop-13", "hop-14", "sm-71", "sm-72", "uri-07", "uri-12", "rs-04", "rs-05", "rs-07", "rs-08",
    "rs-23", "rs-28", "rs-32", "rs-36", "rs-42", "rb-01", "rb-03", "rb-04", "rb-07", "rb-10", "rb-20",
    "cm-02", "cm-12", "cm-13", "ws-02", "ws-07", "ws-08", "ls-07", "au-08",
}  # fmt: skip
"""What a proxy that does nothing gets right."""
_NEEDS_A_PROXY = {
    "hop-01", "hop-09", "hop-10", "hop-24", "hop-26", "sm-02", "sm-19", "sm-25", "sm-27", "sm-33", "sm-38",
    "sm-46", "sm-57", "sm-60", "sm-64", "sm-70", "sm-73", "uri-01", "uri-02", "uri-17", "rs-10", "rs-12",
    "rs-13", "rs-15", "rs-17", "rs-20", "rs-22", "rs-40", "cm-04", "cm-07", "cm-08", "cm-10", "ls-01",
    "ls-11", "ls-14", "ls-15", "ls-16", "au-02", "au-04", "au-05",
}  # fmt: skip
_NEEDS_AN_UPSTREAM = {
    "hop-12", "rb-01", "rb-03", "rb-13", "rs-05", "rs-23", "rs-32", "rs-36", "rs-43", "cm-04", "ws-02",
    "au-02", "au-05", "sm-72",
}  # fmt: skip
"""What a proxy that answers everything itself gets wrong."""

_KEPT_BLINDLY = {
    "end-to-end field of a request", "end-to-end field of an answer", "coded content", "status",
    "request that breaks off", "answer that breaks off",
}  # fmt: skip
"""Families of rules that are kept by doing nothing."""

_KINDS = (*["any"] * 8, *["default"] * 6, "guarded", *["own"] * 5)


@pytest_asyncio.fixture
async def upstreams() -> AsyncIterator[list[ScriptedUpstream]]:
    async with AsyncExitStack() as open_upstreams:
        started = [ScriptedUpstream() for _ in _KINDS]
        for upstream in started:
            await upstream.start()
            open_upstreams.push_async_callback(upstream.close)
        yield started


@pytest_asyncio.fixture
async def relay(upstreams: list[ScriptedUpstream]) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as relays:
        ports = [await relays.enter_async_context(blind_relay(upstream.port)) for upstream in upstreams]
        yield _stage(ports, upstreams)


def _stage(ports: Iterable[int], upstreams: Iterable[ScriptedUpstream]) -> Stage:
    return Stage(
        Lane(kind, "127.0.0.1", port, upstream) for kind, port, upstream in zip(_KINDS, ports, upstreams, strict=True)
    )


async def _failed(stage: Stage, ids: set[str], of: Iterable[Entry] | None = None) -> set[str]:
    parts = [
        Part(entry.id, entry.tenant, entry.case, lambda case, seen: shortcomings(case.expect, seen))
        for entry in of or entries()
        if entry.id in ids
    ]
    assert len(parts) == len(ids)
    return {name for name, problems in (await stage.perform(parts, at_once=8)).items() if problems}


async def test_a_proxy_that_hands_on_every_byte_fails_where_one_has_to_act(relay: Stage) -> None:
    assert await _failed(relay, _NEEDS_A_PROXY | _RELAYED_BLINDLY) == _NEEDS_A_PROXY


async def test_a_proxy_that_asks_no_upstream_fails(upstreams: list[ScriptedUpstream]) -> None:
    async with yes_man() as port:
        stage = _stage([port] * len(upstreams), upstreams)
        assert await _failed(stage, _NEEDS_AN_UPSTREAM) == _NEEDS_AN_UPSTREAM


async def test_what_a_blind_relay_lets_through_is_found_in_every_family(relay: Stage) -> None:
    every_fifth = list(desync.corpus(Names("127.0.0.1:80", "")))[::5]
    labels: dict[str, Label] = {}

    def judge(case: Case, seen: Observation) -> list[str]:
        (sent,) = case.client
        assert isinstance(sent, Send)
        labels[case.id] = desync.label(sent.data)
        return desync.faults(sent.data, seen)

    parts = [Part(name, "any", partial(desync.case, name), judge) for name in every_fifth]
    outcomes = await relay.perform(parts, at_once=8)
    failed = {name for name, problems in outcomes.items() if problems}
    odd = {name for name, label in labels.items() if label in (Label.ODD, Label.REFUSED)}
    # Of those that only stay incomplete, the upstream makes no more than the relay does.
    assert len(odd - failed) < 0.05 * len(odd)
    assert _families(odd & failed) == _families(odd)
    # The others are as legal behind the relay as before it, except where a body follows that none of them announces.
    assert _families(labels.keys() - odd - failed) >= {"chunks", "method", "target", "version"}
    assert _families(failed - odd) <= {
        "odd byte in transfer encoding",
        "odd byte beside content length",
        "transfer coding",
    }


async def test_a_blind_relay_keeps_none_of_the_rules_that_a_proxy_is_needed_for(relay: Stage) -> None:
    families = groupby(rules.entries(), lambda entry: entry.id.partition(":")[0])
    some = [entry for _, family in families for entry in _a_few(list(family))]
    failed = await _failed(relay, {entry.id for entry in some}, some)
    kept = _families(entry.id for entry in some) - _families(failed)
    assert kept == _KEPT_BLINDLY


def _a_few(family: list[Entry]) -> list[Entry]:
    return family[:: max(1, len(family) // 8)]


def _families(names: Iterable[str]) -> set[str]:
    return {name.partition(":")[0] for name in names}

"""What the log is told of requests: of which, and what."""

from __future__ import annotations

import json

import pytest

from proxy.core.report import RequestRecord
from proxy.forward.journal import LONGEST, Journal
from tests.support.peers import Peer
from tests.support.rig import OK, REFUSED, Rig, answer, chunked, request, rig

pytestmark = pytest.mark.one_loop

ALL = {"access": "all"}
KEY = "a-caller-key-for-tests"


async def told(proxy: Rig, client: Peer, sent: bytes, answered: bytes = OK) -> RequestRecord:
    """The record of one request."""
    await proxy.exchange(client, sent, answered)
    [record] = proxy.records
    return record


async def test_a_request_is_told_with_what_it_cost() -> None:
    async with rig(log=ALL) as proxy, proxy.client() as client:
        got = await told(
            proxy,
            client,
            request("POST", "/t/acme/api/v2/x?token=secret", body=b"12345"),
            answer(201, "ININ-Correlation-Id: 1-2-3", body=b"1234567"),
        )
    assert got._replace(seconds=0.0) == RequestRecord(
        tenant="acme",
        caller=None,
        method="POST",
        path="/api/v2/x",
        status=201,
        seconds=0.0,
        received=5,
        sent=7,
        replayed=False,
        code=None,
        correlation_id="1-2-3",
    )
    assert 0 < got.seconds < 10


async def test_content_that_comes_in_pieces_is_counted_without_its_framing() -> None:
    async with rig(log=ALL) as proxy, proxy.client() as client:
        body = b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * 70_000, b"y" * 5)
        got = await told(proxy, client, request(), b"HTTP/1.1 200 OK\r\n" + body)
    assert got.sent == 70_005


async def test_a_caller_key_in_the_path_is_not_told() -> None:
    async with rig(log=ALL, access={"caller_keys": [KEY]}) as proxy, proxy.client() as client:
        got = await told(proxy, client, request("GET", f"/k/{KEY}/t/acme/api/v2/x"))
        assert got.path == "/api/v2/x"
        wrong = KEY.replace("tests", "other")
        client.send(request("GET", f"/k/{wrong}/t/acme/api/v2/y?a=b"))
        assert (await client.message()).status == 403
    assert (proxy.records[1].path, proxy.records[1].tenant) == (None, None)
    assert not [record for record in proxy.records if "key" in repr(record)]


async def test_a_replay_is_told_though_only_failures_are() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request())
        client.send(request())
        await upstream.message()
        upstream.send(REFUSED)
        await upstream.message()
        upstream.send(OK)
        assert (await client.message()).status == 200
    [record] = proxy.records
    assert (record.status, record.replayed) == (200, True)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        *((status, False) for status in (200, 302, 400, 402, 403, 404, 428, 430, 498)),
        *((status, True) for status in (401, 429, 499, 500, 503)),
    ],
)
async def test_by_default_only_what_failed_is_told(status: int, told: bool) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        for _ in range(2 if status == 401 else 1):
            await upstream.message()
            upstream.send(answer(status))
        assert (await client.message()).status == status
    assert [record.status for record in proxy.records] == ([status] if told else [])


async def test_none_tells_nothing() -> None:
    async with rig(log={"access": "none"}) as proxy, proxy.client() as client:
        await proxy.exchange(client, request(), answer(500))
        assert proxy.records == []


async def test_an_answer_of_our_own_is_told_with_its_code_and_its_context() -> None:
    async with rig(log=ALL) as proxy, proxy.client() as client:
        client.send(request("GET", "/t/nobody/api/v2/x"))
        body = json.loads((await client.message()).body)
        client.send(b"GET http:/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.message()).status == 400
    first, second = proxy.records
    assert (first.status, first.tenant, first.code) == (404, None, "tenant.not.found")
    assert first.correlation_id == body["contextId"]
    assert first.sent > 0
    assert (second.code, second.path) == ("bad.request", None)


async def test_a_client_that_leaves_is_told_as_499() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        await (await proxy.api.accept()).message()
        client.reset()
        await proxy.clients_gone()
    [record] = proxy.records
    assert (record.status, record.sent) == (499, 0)


async def test_a_reload_changes_what_is_told() -> None:
    async with rig() as proxy, proxy.client() as client:
        proxy.edit("[log]\n", '[log]\naccess = "all"\n')
        assert await proxy.proxy.reload() == []
        await told(proxy, client, request())


async def test_what_a_peer_sends_is_told_in_printable_ascii() -> None:
    async with rig(log=ALL) as proxy, proxy.client() as client:
        target = b"/api/v2/\xc2\x9b31m\xff"
        sent = request("GET", "/api/v2/x").replace(b"/api/v2/x", target)
        got = await told(proxy, client, sent, answer(200, "ININ-Correlation-Id: a\tb"))
    assert got.path == "/api/v2/\\xc2\\x9b31m\\xff"
    assert got.correlation_id == "a\\tb"


@pytest.mark.parametrize(("length", "end"), [(LONGEST, "x"), (LONGEST + 1, "...")])
async def test_what_a_peer_sends_is_told_up_to_a_length(length: int, end: str) -> None:
    async with rig(log=ALL) as proxy, proxy.client() as client:
        got = await told(proxy, client, request("GET", "/" + "x" * (length - 1)))
    assert got.path is not None
    assert got.path.endswith(end)
    assert len(got.path.removesuffix("...")) == LONGEST


@pytest.mark.parametrize(("chance", "told"), [(0.0, 1), (0.249, 1), (0.25, 0), (0.99, 0)])
async def test_a_share_of_what_did_not_fail_is_told(chance: float, told: int) -> None:
    async with rig() as proxy, proxy.client() as client:
        forwarder = proxy.proxy._forwarder
        forwarder.journal = Journal(proxy.records.append, everything=True, share=0.25, chance=lambda: chance)
        await proxy.exchange(client, request())
        assert len(proxy.records) == told


async def test_a_share_leaves_no_failure_out() -> None:
    async with rig(log={"access": "all", "access_share": 0}) as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request(), answer(500))
        client.send(request())
        await upstream.message()
        upstream.send(OK)
        await client.message()
    assert [record.status for record in proxy.records] == [500]

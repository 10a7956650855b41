"""Limits: how much a request may be, and how many at once, for each tenant, caller and connection."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.forward.test_upgrade import handshake, upgraded
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer
from tests.support.rig import OK, Rig, answer, chunked, request, rig
from tests.support.stages import until

pytestmark = pytest.mark.one_loop

TWO: dict[str, dict[str, object]] = {"acme": {}, "globex": {}}
WEB, BATCH = "key-of-the-web-server", "key-of-a-batch-job"


async def refused(client: Peer, sent: bytes, status: int, code: str) -> None:
    client.send(sent)
    got = await client.message()
    assert (got.status, json.loads(got.body)["code"]) == (status, code)
    assert (got.get(b"Retry-After") is not None) == (status == 503)


@contextlib.asynccontextmanager
async def under_way(proxy: Rig, *sent: bytes) -> AsyncIterator[list[tuple[Peer, Peer]]]:
    """Requests that wait for their answers: each one's client and upstream."""
    async with contextlib.AsyncExitStack() as stack:
        pairs = []
        for each in sent:
            client = await stack.enter_async_context(proxy.client())
            client.send(each)
            upstream = await proxy.api.accept()
            await upstream.message()
            pairs.append((client, upstream))
        yield pairs
        for client, _ in pairs:
            if not client.closed:
                client.reset()


# --- how many at once ---


async def test_a_tenant_with_as_many_requests_as_it_may_have_is_told_so_and_no_other_is() -> None:
    async with rig(tenants=TWO, limits={"max_requests_per_tenant": 2}) as proxy:
        acme = request("GET", "/t/acme/api/v2/x")
        async with under_way(proxy, acme, acme) as ((_, upstream), _), proxy.client() as client:
            await refused(client, acme, 503, "too.busy")
            await proxy.exchange(client, request("GET", "/t/globex/api/v2/x"), answer(200, "Connection: close"))
            upstream.send(OK)
            await until(lambda: proxy.proxy.report().tenants[0].tally.at_once == 1)
            client.send(acme)
            await upstream.message()
            upstream.send(OK)
            assert (await client.message()).status == 200
        await until(lambda: proxy.proxy.report().tenants[0].tally.at_once == 0)


async def test_a_caller_with_as_many_requests_as_it_may_have_leaves_room_for_others() -> None:
    keys = [{"key": WEB, "name": "web"}, {"key": BATCH, "name": "batch"}]
    async with rig(access={"caller_keys": keys}, limits={"max_requests_per_caller": 1}) as proxy:
        batch, web = (request("GET", "/api/v2/x", f"X-Proxy-Key: {key}") for key in (BATCH, WEB))
        async with under_way(proxy, batch), proxy.client() as client:
            await refused(client, batch, 503, "too.busy")
            await proxy.exchange(client, web)
            callers = proxy.proxy.report().callers
            assert {name: tally.requests for name, tally in callers.items()} == {"batch": {503: 1}, "web": {200: 1}}
            assert callers["batch"].at_once == 1
        await until(lambda: callers["batch"].at_once == 0)
        assert callers["batch"].requests == {503: 1, 499: 1}


async def test_a_place_is_given_up_however_a_request_ends() -> None:
    async with rig(limits={"max_requests_per_tenant": 1, "request_timeout": 0.2}) as proxy:
        tally = proxy.proxy.report().tenants[0].tally
        for end in ("client", "upstream", "late"):
            async with under_way(proxy, request()) as ((client, upstream),):
                assert tally.at_once == 1
                match end:
                    case "client":
                        client.reset()
                    case "upstream":
                        upstream.reset()
                        assert (await client.message()).status == 502
                    case "late":
                        assert (await client.message()).status == 504
                await until(lambda: tally.at_once == 0)


async def test_a_refused_request_gives_up_no_place_that_is_anothers() -> None:
    one = {"max_requests_per_tenant": 1}
    async with rig(limits=one) as proxy, under_way(proxy, request()), proxy.client() as client:
        for _ in range(3):
            await refused(client, request(), 503, "too.busy")
            await refused(client, request("DELETE", "/api/v2/tokens/me"), 403, "not.allowed")
        assert proxy.proxy.report().tenants[0].tally.at_once == 1


async def test_an_open_websocket_takes_no_place() -> None:
    async with rig(limits={"max_requests_per_tenant": 1}) as proxy, proxy.client() as talking, proxy.client() as client:
        await upgraded(proxy, talking)
        assert proxy.proxy.report().tenants[0].tally.at_once == 0
        await proxy.exchange(client, request())
        talking.reset()
        await until(lambda: proxy.client_connections == 1)
        assert proxy.proxy.report().tenants[0].tally.at_once == 0


async def test_a_caller_with_as_many_websockets_as_it_may_have_leaves_room_for_others() -> None:
    keys = [{"key": WEB, "name": "web"}, {"key": BATCH, "name": "batch"}]
    async with (
        rig(access={"caller_keys": keys}, limits={"max_websockets_per_caller": 1}) as proxy,
        proxy.client() as talking,
        proxy.client() as client,
    ):
        await upgraded(proxy, talking, f"X-Proxy-Key: {BATCH}")
        callers = proxy.proxy.report().callers
        assert {name: tally.websockets for name, tally in callers.items()} == {"batch": 1, "web": 0}
        await refused(client, handshake(f"X-Proxy-Key: {BATCH}"), 503, "too.busy")
        async with proxy.client() as other:
            await upgraded(proxy, other, f"X-Proxy-Key: {WEB}")
        talking.reset()
        await until(lambda: callers["batch"].websockets == 0)
        async with proxy.client() as again:
            await upgraded(proxy, again, f"X-Proxy-Key: {BATCH}")
            await proxy.exchange(client, request("GET", "/api/v2/x", f"X-Proxy-Key: {BATCH}"))


async def test_a_full_house_is_told_as_any_failure_of_ours() -> None:
    one = {"max_connections": 1}
    async with rig(limits=one) as proxy, under_way(proxy, request()), proxy.client() as late:
        await refused(late, request(), 503, "too.busy")
        assert await late.rest() == b""
        assert proxy.proxy.report().refused == {503: 1}


async def test_silent_connections_keep_nobody_out() -> None:
    async with rig(limits={"max_connections": 20}) as proxy, contextlib.AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(proxy.client())
        async with proxy.client() as client:
            await proxy.exchange(client, request())
            assert proxy.client_connections <= 20


# --- keys for tenants ---


async def test_a_key_opens_its_tenants_alone() -> None:
    keys = [{"key": WEB, "name": "web", "tenants": ["acme"]}, BATCH]
    async with rig(tenants=TWO, access={"caller_keys": keys}) as proxy, proxy.client() as client:
        for tenant in ("globex", "nobody"):
            await refused(client, request("GET", f"/k/{WEB}/t/{tenant}/api/v2/x"), 403, "not.allowed")
        arrived, _, upstream = await proxy.exchange(client, request("GET", f"/k/{WEB}/t/acme/api/v2/x"))
        assert arrived.target == b"/api/v2/x"
        client.send(request("GET", f"/k/{BATCH}/t/globex/api/v2/x"))
        assert (await upstream.message()).target == b"/api/v2/x"
        upstream.send(OK)
        assert (await client.message()).status == 200
        client.send(request("GET", f"/k/{BATCH}/t/nobody/api/v2/x"))
        assert (await client.message()).status == 404
        requests = {name: tally.requests for name, tally in proxy.proxy.report().callers.items()}
        assert requests == {"web": {403: 2, 200: 1}, "": {200: 1, 404: 1}}


# --- how large ---


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 414)])
async def test_a_request_line_may_be_so_long_and_no_longer(over: int, status: int) -> None:
    async with rig(limits={"max_request_line_bytes": 1024}) as proxy, proxy.client() as client:
        target = "/api/v2/" + "x" * (1024 + over - len("GET /api/v2/ HTTP/1.1"))
        if status == 200:
            await proxy.exchange(client, request("GET", target))
        else:
            await refused(client, request("GET", target), 414, "request.uri.too.long")
            assert await client.rest() == b""


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 431)])
async def test_a_request_may_have_so_many_fields_and_no_more(over: int, status: int) -> None:
    async with rig(limits={"max_header_count": 20}) as proxy, proxy.client() as client:
        sent = request("GET", "/api/v2/x", *(f"X-{number}: x" for number in range(19 + over)))
        if status == 200:
            await proxy.exchange(client, sent)
        else:
            await refused(client, sent, 431, "request.header.fields.too.large")


@pytest.mark.parametrize("kind", ["length", "chunked"])
async def test_a_body_may_be_so_long_and_no_longer(kind: str) -> None:
    def sent(size: int) -> bytes:
        if kind == "length":
            return request("POST", body=b"x" * size)
        return request("POST", "/api/v2/x", "Transfer-Encoding: chunked") + chunked(b"x" * 500, b"x" * (size - 500))

    async with rig(limits={"max_body_bytes": 1000}) as proxy, proxy.client() as client:
        arrived, _, _ = await proxy.exchange(client, sent(1000))
        assert len(arrived.body) == 1000
        await refused(client, sent(1001), 413, "request.entity.too.large")
        assert await client.rest() == b""


async def test_a_body_that_grows_too_long_never_reaches_the_upstream_whole() -> None:
    async with rig(limits={"max_body_bytes": 1000}) as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Transfer-Encoding: chunked"), b"1f4\r\n", b"x" * 500, b"\r\n")
        upstream = await proxy.api.accept()
        await upstream.until(b"x" * 500 + b"\r\n")
        client.send(b"1f5\r\n", b"x" * 501, b"\r\n0\r\n\r\n")
        assert (await client.message()).status == 413
        assert not await upstream.ended()


async def test_a_body_that_trickles_has_an_end(clock: SkippingLoop) -> None:
    async with rig(limits={"body_timeout": 20, "idle_timeout": 15}) as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 1000"))
        upstream = await proxy.api.accept()
        for _ in range(2):
            client.send(b"x")
            await clock.skip(9)
        assert await client.silent()
        client.send(b"x")
        await clock.skip(4)
        assert (await client.message()).status == 408
        assert not await upstream.ended()


async def test_a_long_body_has_a_second_more_for_each_kilobyte(clock: SkippingLoop) -> None:
    async with rig(limits={"body_timeout": 2, "idle_timeout": 5}) as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", f"Content-Length: {20 * 1024}"))
        upstream = await proxy.api.accept()
        for _ in range(10):
            client.send(b"x" * 2048)
            await clock.skip(1.5)
        assert (await upstream.message()).body == b"x" * 20480
        upstream.send(OK)
        assert (await client.message()).status == 200


async def test_an_upstream_that_is_slow_to_take_a_body_is_not_the_clients_fault(clock: SkippingLoop) -> None:
    async with rig(limits={"body_timeout": 2, "request_timeout": 50}) as proxy, proxy.client() as client:
        size = 8_000_000
        client.send(request("POST", "/api/v2/x", f"Content-Length: {size + 1}"))
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.stop_reading()
        await client.push(size, b"x" * 100_000)
        await clock.skip(10)
        assert await client.silent()


# --- connections ---


async def test_the_last_request_of_a_connection_is_answered_and_says_so() -> None:
    async with rig(limits={"max_requests_per_connection": 2}) as proxy, proxy.client() as client:
        _, got, upstream = await proxy.exchange(client, request())
        assert got.get(b"Connection") is None
        client.send(request())
        await upstream.message()
        upstream.send(OK)
        assert (await client.message()).get(b"Connection") == b"close"
        assert await client.rest() == b""


async def test_requests_sent_ahead_are_answered_up_to_a_depth() -> None:
    async with rig(limits={"max_pipelined_requests": 3}) as proxy, proxy.client() as client:
        door = request("GET", "/logout")
        client.send(door)
        assert (await client.message()).status == 302
        client.send(door * 10)
        closing = [(await client.message()).get(b"Connection") == b"close" for _ in range(4)]
        assert closing == [False, False, False, True]
        assert await client.rest() == b""


# --- a policy that only observes ---


async def test_a_policy_that_only_observes_lets_pass_counts_and_reports_once(caplog: pytest.LogCaptureFixture) -> None:
    rules = {"acme": {"policy": "observe", "allow": ["GET /api/v2/users/*"], "deny": ["* /api/v2/x"]}}
    async with rig(tenants=rules) as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request("GET", "/api/v2/x?secret=1"))
        for target in ("/api/v2/x?secret=1", "/api/v2/users/me", "/api/v2/y"):
            client.send(request("GET", target))
            await upstream.message()
            upstream.send(OK)
            assert (await client.message()).status == 200
        assert proxy.proxy.report().tenants[0].tally.observed == 3
    told = [record.getMessage() for record in caplog.records if "let pass" in record.getMessage()]
    assert told == [
        "tenant acme: let pass 'GET /api/v2/x': The tenant's policy denies this: deny = [\"* /api/v2/x\"].",
        "tenant acme: let pass 'GET /api/v2/y': The tenant's policy does not allow this: no rule of allow matches.",
    ]


async def test_without_a_word_a_policy_is_enforced() -> None:
    async with rig(tenants={"acme": {"deny": ["* /api/v2/x"]}}) as proxy, proxy.client() as client:
        await refused(client, request(), 403, "not.allowed")
        assert proxy.proxy.report().tenants[0].tally.observed == 0


async def test_a_request_is_told_with_its_callers_name_and_never_with_the_key(caplog: pytest.LogCaptureFixture) -> None:
    keys = [{"key": WEB, "name": "web"}, BATCH]
    async with rig(access={"caller_keys": keys}, log={"access": "all"}) as proxy, proxy.client() as client:
        for key in (WEB, BATCH):
            await refused(client, request("DELETE", f"/k/{key}/api/v2/tokens/me"), 403, "not.allowed")
        await until(lambda: len(proxy.records) == 2)
        assert [record.caller for record in proxy.records] == ["web", None]
        assert WEB not in repr(proxy.records) + caplog.text

"""One token for everybody: who asks for it, who waits for it, and what becomes of it when it is refused."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.stages import CONTACTS, ECHO, WHO, Answer, Tenant, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def configuration() -> str:
    return "keep_warm = false\n[limits]\nreplay_buffer = 262144\n"


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not told, so that it is sent in chunks."""
    for at in range(0, len(body), 50_000):
        yield body[at : at + 50_000]


def statuses(answers: list[Answer]) -> set[int]:
    return {answer.status for answer in answers}


async def test_300_requests_at_once_on_a_cold_start_cause_one_token_request(tenant: Tenant) -> None:
    tenant.fault("token_latency", 0.3, count=1)
    answers = await asyncio.gather(*(tenant.get() for _ in range(300)))
    assert statuses(answers) == {200}
    assert tenant.token_requests == {"ok": 1}
    assert tenant.refused == {}


async def test_a_revoked_token_costs_50_concurrent_posts_one_refresh_and_no_byte(tenant: Tenant) -> None:
    bodies = [os.urandom(200_000) for _ in range(50)]
    await tenant.get()
    tenant.revoke()
    answers = await asyncio.gather(*(tenant.call("POST", ECHO, data=body) for body in bodies))
    assert statuses(answers) == {200}
    assert [answer.json["bodySha256"] for answer in answers] == [hashlib.sha256(body).hexdigest() for body in bodies]
    assert tenant.token_requests == {"ok": 2}
    replayed = [answer for answer in answers if "replay" in answer.proxy_status]
    assert len(replayed) == tenant.refused["revoked"] > 0


async def test_a_late_refusal_throws_away_the_token_it_is_about_and_not_the_next(tenant: Tenant) -> None:
    await tenant.get()
    tenant.fault("api_latency", 0.5, count=1)
    async with asyncio.TaskGroup() as group:
        late = group.create_task(tenant.get(), name="refused late")
        await tenant.met("api_latency")
        tenant.revoke()
        early = await tenant.get()
    assert early.json["tokenSerial"] == late.result().json["tokenSerial"]
    assert tenant.refused == {"revoked": 2}
    assert tenant.token_requests == {"ok": 2}


async def test_a_post_refused_for_its_token_is_executed_once(tenant: Tenant) -> None:
    await tenant.get()
    tenant.revoke()
    answers = await asyncio.gather(*(tenant.call("POST", CONTACTS, json={"externalId": str(n)}) for n in range(20)))
    assert statuses(answers) == {200}
    ledger = tenant.stage.sandbox.ledger
    assert ledger.contacts_created[tenant.name] == 20
    assert ledger.double_executions == 0


async def test_a_token_refused_before_its_time_is_replaced_unnoticed(tenant: Tenant) -> None:
    """As when the org has an idle timeout, or its clock is ahead."""
    await tenant.get()
    tenant.fault("clock_ahead", 90_000, count=1)
    answer = await tenant.get(WHO)
    assert (answer.status, answer.json["name"]) == (200, tenant.name)
    assert tenant.refused == {"expired": 1}
    assert answer.proxy_status.startswith("genesys-auth-proxy;")


async def test_a_permanent_401_is_passed_on_and_costs_three_token_requests_at_most(tenant: Tenant) -> None:
    tenant.fault("api_unauthorized")
    one_by_one = [await tenant.get() for _ in range(15)]
    at_once = await asyncio.gather(*(tenant.get() for _ in range(15)))
    for answer in [*one_by_one, *at_once]:
        assert (answer.status, answer.json["code"]) == (401, "bad.credentials")
        assert "genesys-auth-proxy" in answer.proxy_status
    assert tenant.token_requests.total() <= 3
    tenant.mend()
    assert (await tenant.get()).status == 200


async def test_a_401_that_is_not_the_tokens_fault_hurts_nobody_while_login_is_down(tenant: Tenant) -> None:
    assert (await tenant.get()).status == 200
    tenant.fault("token_status", 503)
    tenant.fault("api_unauthorized", count=1)
    async with asyncio.TaskGroup() as group:
        refused = group.create_task(tenant.get(), name="refused")
        await tenant.met("api_unauthorized")
        others = [await tenant.get() for _ in range(4)]
        assert statuses(others) == {200}
        assert max(answer.seconds for answer in others) < 5
        assert not refused.done()
        tenant.mend()
    assert refused.result().status == 200


@pytest.mark.parametrize("fault", [("token_status", 503), ("token_throttled", 1), ("token_drop",)])
async def test_a_revocation_while_login_fails_once_is_waited_out(tenant: Tenant, fault: tuple[str, float]) -> None:
    assert (await tenant.get()).status == 200
    tenant.fault(*fault, count=1)
    tenant.revoke()
    answers = await asyncio.gather(*(tenant.get() for _ in range(5)))
    assert statuses(answers) == {200}


async def test_a_revocation_while_login_refuses_the_client_is_no_401(tenant: Tenant) -> None:
    assert (await tenant.get()).status == 200
    tenant.fault("token_status", 401)
    tenant.revoke()
    answers = [await tenant.get() for _ in range(3)]
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(502, "token.refused")}


async def test_a_forbidden_call_never_costs_a_token(tenant: Tenant) -> None:
    tenant.fault("api_status", 403)
    answers = [await tenant.get() for _ in range(3)]
    assert statuses(answers) == {403}
    assert {answer.proxy_status for answer in answers} == {""}
    assert tenant.token_requests == {"ok": 1}


async def test_a_client_that_hangs_up_does_not_cancel_the_refresh(tenant: Tenant) -> None:
    tenant.fault("token_latency", 0.5, count=1)
    _, writer = await asyncio.open_connection(tenant.stage.proxy.host, tenant.stage.proxy.port)
    writer.write(f"GET {tenant.path}{ECHO} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await tenant.met("token_latency")
    writer.transport.abort()
    answer = await tenant.get()
    assert answer.status == 200
    assert tenant.token_requests == {"ok": 1}


async def test_a_hundred_clients_that_hang_up_leave_the_next_one_its_token(tenant: Tenant) -> None:
    tenant.fault("token_latency", 0.5, count=1)
    url = tenant.stage.proxy.url + tenant.path + ECHO
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as impatient:
        calls = [asyncio.ensure_future(impatient.get(url)) for _ in range(100)]  # noqa: TID251 cancelled here
        await tenant.met("token_latency")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await until(lambda: tenant.token_requests.total() > 0)
    assert (await tenant.get()).status == 200
    assert tenant.token_requests == {"ok": 1}


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_a_body_within_the_replay_buffer_is_replayed_whole(tenant: Tenant, chunked: bool) -> None:
    body = os.urandom(200_000)
    await tenant.get()
    tenant.revoke()
    answer = await tenant.call("PUT", ECHO, data=in_pieces(body) if chunked else body)
    assert answer.status == 200
    assert answer.json["bodySha256"] == hashlib.sha256(body).hexdigest()
    assert "replay" in answer.proxy_status
    assert tenant.token_requests == {"ok": 2}


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_a_longer_body_is_answered_with_the_upstreams_401_marked_so(tenant: Tenant, chunked: bool) -> None:
    body = os.urandom(262_145)
    await tenant.get()
    tenant.revoke()
    answer = await tenant.call("PUT", ECHO, data=in_pieces(body) if chunked else body)
    assert (answer.status, answer.json["code"]) == (401, "bad.credentials")
    assert answer.proxy_status.startswith("genesys-auth-proxy;")
    assert "too long" in answer.proxy_status
    assert tenant.refused == {"revoked": 1}
    # The refused token is gone, so whoever sends it again succeeds.
    again = await tenant.call("PUT", ECHO, data=body)
    assert (again.status, again.json["bodySha256"]) == (200, hashlib.sha256(body).hexdigest())
    assert tenant.token_requests == {"ok": 2}

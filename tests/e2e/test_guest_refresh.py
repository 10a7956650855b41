"""``guest_refresh``: a chat outlives its JWT, and nobody but its guest has anything of it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import jwt
import pytest
import pytest_asyncio

from tests.e2e.test_guests import MESSAGES, TOKEN, as_guest, guest_of
from tests.support.rig import answer, chunked, request, rig
from tests.support.stages import Stage, Tenant, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIFETIME = 2.0
"""Seconds; a JWT's exp is a whole number, so it may live one more."""


@pytest.fixture(scope="module")
def configuration() -> str:
    return "keep_warm = false\nguest_refresh = true\n"


@pytest.fixture(scope="module")
def sandbox_options() -> dict[str, Any]:
    return {"guest_token_lifetime": LIFETIME}


def expiry(token: str) -> float:
    found: float = jwt.decode(token, options={"verify_signature": False})["exp"]
    return found


async def expired(token: str) -> None:
    await until(lambda: time.time() >= expiry(token))


Aged = tuple[Tenant, dict[str, str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aged(stage: Stage) -> list[Aged]:
    """Guests of tenants that no other test uses, whose JWTs have all expired: waited for once."""
    tenants = [stage.tenant() for _ in range(5)]
    guests = await asyncio.gather(*map(guest_of, tenants))
    await expired(guests[-1]["jwt"])
    return list(zip(tenants, guests, strict=True))


@pytest.fixture
def old(aged: list[Aged]) -> Aged:
    """A tenant and its guest, whose JWT has expired."""
    return aged.pop()


async def test_a_chat_goes_on_with_the_jwt_it_began_with(tenant: Tenant) -> None:
    guest = await guest_of(tenant)
    ends = time.time() + 3 * LIFETIME
    while time.time() < ends:
        assert (await as_guest(tenant, guest["jwt"])).status == 200
        await asyncio.sleep(0.05)
    assert tenant.refused == {}, "no expired JWT was sent"
    assert tenant.token_requests == {}, "the org's token is no affair of a guest's"


async def test_fifty_calls_at_once_with_an_expired_jwt_cost_one_refresh(old: Aged) -> None:
    tenant, guest = old
    answers = await asyncio.gather(*(as_guest(tenant, guest["jwt"]) for _ in range(50)))
    assert {each.status for each in answers} == {200}
    assert await counted(tenant) == ONE


async def counted(tenant: Tenant) -> dict[tuple[str, str], int]:
    """The proxy's token requests for the tenant, by grant and outcome."""
    found = (await tenant.status())["token_requests"]
    return {(each["grant"], each["outcome"]): each["count"] for each in found}


ONE = {("guest_refresh", "ok"): 1}


async def test_a_refused_jwt_is_replaced_within_the_call(tenant: Tenant) -> None:
    """The API calls it expired before the proxy does: its clock is ahead."""
    guest = await guest_of(tenant)
    tenant.fault("clock_ahead", 60, count=1)
    told = await as_guest(tenant, guest["jwt"])
    assert told.status == 200
    assert "answer to a replay with a new token" in told.proxy_status
    assert tenant.refused == {"expired": 1}


async def test_a_permanent_refusal_is_passed_on_after_one_replay(tenant: Tenant) -> None:
    guest = await guest_of(tenant)
    tenant.fault("clock_ahead", 60)
    told = [await as_guest(tenant, guest["jwt"]) for _ in range(3)]
    tenant.mend()
    assert {each.status for each in told} == {401}
    assert tenant.refused == {"expired": 4}
    assert await counted(tenant) == ONE


async def test_only_the_guest_who_was_given_the_jwt_is_served(old: Aged) -> None:
    tenant, guest = old
    other = tenant.stage.tenant()
    head, claims, signature = guest["jwt"].split(".")
    forged = f"{head}.{claims}.{signature[::-1]}"
    assert (await as_guest(tenant, forged)).status == 401
    assert (await as_guest(other, guest["jwt"])).status == 401, "another tenant knows nothing of them"
    assert (await tenant.call("GET", MESSAGES, fields={"Authorization": "Bearer "})).status == 401
    assert await counted(tenant) == {}
    assert (await as_guest(tenant, guest["jwt"])).status == 200


async def test_a_guest_who_refreshes_is_known_by_the_new_jwt_too(tenant: Tenant) -> None:
    guest = await guest_of(tenant)
    renewed = await tenant.call("POST", f"{TOKEN}/refresh", json={"refreshToken": guest["refreshToken"]})
    await expired(renewed.json["jwt"])
    for token in (guest["jwt"], renewed.json["jwt"]):
        assert (await as_guest(tenant, token)).status == 200
    assert await counted(tenant) == ONE


async def test_a_guest_whose_exchange_went_elsewhere_is_known_from_their_refresh_on(tenant: Tenant) -> None:
    stage = tenant.stage
    direct = f"{stage.sandbox.base_url}{TOKEN}/oauthcodegrantjwtexchange"
    sent = {"deploymentId": tenant.org.deployments[0], "oauth": {"code": f"elsewhere-{tenant.name}"}}
    async with stage.session.post(direct, json=sent) as exchanged:
        guest = await exchanged.json()
    await expired(guest["jwt"])
    assert (await as_guest(tenant, guest["jwt"])).status == 401
    renewed = await tenant.call("POST", f"{TOKEN}/refresh", json={"refreshToken": guest["refreshToken"]})
    await expired(renewed.json["jwt"])
    assert (await as_guest(tenant, renewed.json["jwt"])).status == 200


async def test_revoke_ends_it_even_with_an_expired_jwt(old: Aged) -> None:
    tenant, guest = old
    assert (await as_guest(tenant, guest["jwt"], "DELETE", f"{TOKEN}/revoke")).status == 204
    before = await counted(tenant)
    told = await as_guest(tenant, guest["jwt"])
    assert (told.status, told.proxy_status) == (401, "")
    assert await counted(tenant) == before, "forgotten, not tried"


async def test_a_session_that_was_ended_elsewhere_is_forgotten_at_the_first_refusal(tenant: Tenant) -> None:
    guest = await guest_of(tenant)
    tenant.stage.sandbox.guests.revoke_all(tenant.name)
    for _ in range(3):
        assert (await as_guest(tenant, guest["jwt"])).status == 401
    assert await counted(tenant) == {("guest_refresh", "http_401"): 1}


async def test_a_body_is_sent_again_and_the_org_path_stays_the_orgs(tenant: Tenant) -> None:
    guest = await guest_of(tenant)
    tenant.fault("clock_ahead", 60, count=1)
    target = f"/api/v2/journey/deployments/{tenant.org.deployments[0]}/appevents"
    told = await tenant.call("POST", target, data=b"x" * 1000, fields={"Authorization": f"Bearer {guest['jwt']}"})
    assert (told.status, told.json["method"]) == (200, "POST")
    replaced = await as_guest(tenant, guest["jwt"], target="/api/v2/tokens/me")
    assert replaced.json["organization"]["name"] == tenant.name


async def test_nothing_of_a_guest_is_told_or_written(stage: Stage, old: Aged) -> None:
    tenant, guest = old
    assert (await as_guest(tenant, guest["jwt"])).status == 200
    tenant.fault("api_status", 500, count=3)
    await as_guest(tenant, guest["jwt"])
    told = [stage.proxy.output]
    told += [
        (await stage.admin("GET", target)).body.decode() for target in ("/metrics", "/status.json", "/", "/readyz")
    ]
    written = [file.read_bytes().decode("latin-1") for file in stage.proxy.configuration.parent.iterdir()]
    for text in told + written:
        assert guest["jwt"] not in text
        assert guest["refreshToken"] not in text


async def test_a_reload_forgets_nobody_and_switching_it_off_everybody(stage: Stage, old: Aged) -> None:
    """The last of those with guests that are old: it forgets them all."""
    tenant, guest = old
    assert (await stage.admin("POST", "/reload")).status == 200
    assert (await as_guest(tenant, guest["jwt"])).status == 200
    file = stage.proxy.configuration
    held = file.read_text()
    file.write_text(held.replace("guest_refresh = true", "guest_refresh = false"))
    assert (await stage.admin("POST", "/reload")).status == 200
    assert (await as_guest(tenant, guest["jwt"])).status == 401
    file.write_text(held)
    assert (await stage.admin("POST", "/reload")).status == 200
    assert (await as_guest(tenant, guest["jwt"])).status == 401


# --- the answer on its way ---

EXCHANGE = f"{TOKEN}/oauthcodegrantjwtexchange"


def issued(token: str, **members: str) -> bytes:
    return json.dumps({"jwt": token, "refreshToken": "r1", **members}).encode()


def opaque(seconds: float) -> str:
    return jwt.encode({"exp": int(time.time() + seconds)}, "k" * 32, "HS256")


async def test_the_answer_that_is_read_passes_as_it_comes() -> None:
    token = opaque(900)
    body = issued(token, pad="x" * 2000)
    async with rig(tenants={"acme": {"guest_refresh": True}}) as bench, bench.client() as client:
        client.send(request("POST", EXCHANGE, "Accept-Encoding: br, gzip", body=b"{}"))
        upstream = await bench.api.accept()
        arrived = await upstream.message()
        assert arrived.all(b"accept-encoding") == [], "so that it can be read"
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(body[:100])[:-5])
        assert (await client.until(body[90:100])).endswith(body[90:100]), "the first piece, before the last is there"
        upstream.send(chunked(body[100:]))
        assert body[100:] in await client.until(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("fields", "body", "known"),
    [
        ([], issued("{token}"), True),
        ([], issued("{token}", pad="x" * 60_000), True),
        ([], issued("{token}", pad="x" * 70_000), False),
        (["Content-Encoding: gzip"], issued("{token}"), False),
        ([], b'{"jwt": "{token}"}', False),
        ([], b"<html>{token}</html>", False),
    ],
    ids=["plain", "long", "too long", "coded", "no refresh token", "no JSON"],
)
async def test_only_a_small_plain_answer_is_learnt_from(fields: list[str], body: bytes, known: bool) -> None:
    token = opaque(-60)
    body = body.replace(b"{token}", token.encode())
    async with rig(tenants={"acme": {"guest_refresh": True}}) as bench, bench.client() as client:
        _, told, upstream = await bench.exchange(
            client, request("POST", EXCHANGE, body=b"{}"), answer(200, *fields, body=body)
        )
        assert told.body == body
        client.send(request("GET", MESSAGES, f"Authorization: Bearer {token}"))
        if known:
            refresh = await (await bench.api.accept()).message()
            assert (refresh.target, refresh.body) == (f"{TOKEN}/refresh".encode(), b'{"refreshToken": "r1"}')
            assert refresh.all(b"authorization") == []
        else:
            called = await upstream.message()
            assert called.get(b"authorization") == f"Bearer {token}".encode()


async def test_without_guest_refresh_nothing_is_read_or_changed() -> None:
    token = opaque(-60)
    async with rig() as bench, bench.client() as client:
        sent = request("POST", EXCHANGE, "Accept-Encoding: br, gzip", body=b"{}")
        arrived, _, upstream = await bench.exchange(client, sent, answer(200, body=issued(token)))
        assert arrived.all(b"accept-encoding") == [b"br, gzip"]
        client.send(request("GET", MESSAGES, f"Authorization: Bearer {token}"))
        assert (await upstream.message()).get(b"authorization") == f"Bearer {token}".encode()

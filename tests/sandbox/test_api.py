"""The platform API over loopback."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from proxy.sandbox import ACME, GLOBEX, Outcome, Sandbox, SandboxOptions
from proxy.sandbox.orgs import ACME_CLIENT_ID, GLOBEX_CLIENT_ID
from tests.sandbox.caller import Answer, Caller, Clock

ME = "/api/v2/tokens/me"
CONTACTS = "/api/v2/messaging/contacts"


def assert_error(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status
    assert answer.json.keys() == {"message", "code", "status", "contextId", "details", "errors"}
    assert (answer.json["code"], answer.json["status"]) == (code, status)
    assert answer.json["contextId"] == answer.fields["ININ-Correlation-Id"]


# --- tokens ---


@pytest.mark.parametrize("options", [SandboxOptions(token_lifetime=2)])
async def test_a_token_is_accepted_until_it_expires_by_the_sandboxs_clock(
    caller: Caller, sandbox: Sandbox, clock: Clock
) -> None:
    token = await caller.token()
    clock.move(1.999)
    assert (await caller.get(ME, token)).status == 200
    clock.move(0.001)
    assert_error(await caller.get(ME, token), 401, "credentials.expired")
    assert sandbox.ledger.refused() == {"expired": 1}
    assert sandbox.ledger.accepted("acme") == 1


async def test_a_revoked_token_is_refused(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    assert sandbox.revoke("globex") == 0
    assert (await caller.get(ME, token)).status == 200
    assert sandbox.revoke("acme") == 1
    assert_error(await caller.get(ME, token), 401, "bad.credentials")
    assert sandbox.ledger.refused() == {"revoked": 1}


def test_only_tokens_of_orgs_that_exist_can_be_revoked() -> None:
    with pytest.raises(ValueError, match="initech"):
        Sandbox().revoke("initech")


async def test_deleting_a_token_revokes_it_for_everybody(caller: Caller, sandbox: Sandbox) -> None:
    token, other = await caller.token(), await caller.token()
    assert (await caller.send("DELETE", ME, token)).status == 204
    assert_error(await caller.get(ME, token), 401, "bad.credentials")
    assert (await caller.get(ME, other)).status == 200
    assert sandbox.ledger.tokens_revoked == 1


@pytest.mark.parametrize(
    "authorization,code,reason",
    [
        (None, "authentication.required", "missing"),
        ("Bearer ", "authentication.required", "missing"),
        ("Bearer never-issued", "bad.credentials", "unknown"),
        ("[REDACTED]", "bad.credentials", "malformed"),
        ("Basic YTpi", "bad.credentials", "malformed"),
    ],
)
async def test_a_call_without_a_good_token_is_refused(
    caller: Caller, sandbox: Sandbox, authorization: str | None, code: str, reason: str
) -> None:
    fields = {} if authorization is None else {"Authorization": authorization}
    assert_error(await caller.send("GET", ME, fields=fields), 401, code)
    assert sandbox.ledger.refused() == {reason: 1}


async def test_two_authorization_fields_are_refused(caller: Caller, sandbox: Sandbox) -> None:
    value = f"Bearer {await caller.token()}"
    headers = [("Authorization", value), ("Authorization", value)]
    async with caller.session.get(caller.base_url + ME, headers=headers) as response:
        assert response.status == 401
    assert sandbox.ledger.refused() == {"malformed": 1}


async def test_the_scheme_may_be_written_in_any_case(caller: Caller) -> None:
    fields = {"Authorization": f"bearer {await caller.token()}"}
    assert (await caller.send("GET", ME, fields=fields)).status == 200


@pytest.mark.parametrize("options", [SandboxOptions(idle_timeout=300)])
async def test_a_token_that_idles_dies_and_one_in_use_does_not(caller: Caller, sandbox: Sandbox, clock: Clock) -> None:
    used, idle = await caller.token(), await caller.token()
    clock.move(299)
    me = await caller.get(ME, used)
    assert me.json["dateTokenIdles"] == "2023-11-14T22:23:19.000Z"
    clock.move(1)
    assert (await caller.get(ME, used)).status == 200
    assert_error(await caller.get(ME, idle), 401, "credentials.expired")
    assert sandbox.ledger.refused() == {"idle": 1}


async def test_a_token_tells_its_org_and_scope(caller: Caller) -> None:
    me = await caller.get(ME, await caller.token(scope="messaging:write users"))
    org = {"id": ACME.id, "name": "acme"}
    assert (me.json["organization"], me.json["homeOrganization"]) == (org, org)
    assert me.json["authorizedScope"] == ["messaging:write", "users"]
    assert me.json["dateTokenIdles"] is None


# --- rate limits ---


@pytest.mark.parametrize("options", [SandboxOptions(rate_limit=2)])
async def test_each_token_has_a_rate_limit_of_its_own(caller: Caller, clock: Clock, sandbox: Sandbox) -> None:
    token, other = await caller.token(), await caller.token()
    first = await caller.get(ME, token)
    told = {name: first.fields[f"inin-ratelimit-{name}"] for name in ("count", "allowed", "reset")}
    assert told == {"count": "1", "allowed": "2", "reset": "60"}
    clock.move(18)
    await caller.get(ME, token)
    refused = await caller.get(ME, token)
    assert_error(refused, 429, "too.many.requests.retry.after")
    assert refused.fields["Retry-After"] == "42"
    assert refused.fields["inin-ratelimit-count"] == "2"
    assert refused.json["message"].endswith("Retry the request in [42] seconds")
    assert (await caller.get(ME, other)).status == 200
    clock.move(42)
    assert (await caller.get(ME, token)).status == 200
    assert sandbox.ledger.calls["acme", Outcome.RATE_LIMITED] == 1


@pytest.mark.parametrize("options", [SandboxOptions(rate_limit=2, org_rate_limit=3)])
async def test_the_org_has_a_limit_above_its_tokens(caller: Caller, sandbox: Sandbox) -> None:
    tokens = [await caller.token(), await caller.token()]
    answers = [await caller.get(ME, token) for token in tokens for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].fields["Retry-After"] == "60"
    assert (await caller.get(ME, sandbox.issue(GLOBEX_CLIENT_ID).value)).status == 200


@pytest.mark.parametrize("options", [SandboxOptions(rate_limit=None, org_rate_limit=None)])
async def test_without_a_limit_none_is_told(caller: Caller) -> None:
    token = await caller.token()
    answers = [await caller.get(ME, token) for _ in range(310)]
    assert {answer.status for answer in answers} == {200}
    assert not any(name.lower().startswith("inin-ratelimit") for name in answers[0].fields)


async def test_every_answer_has_rate_fields_and_a_correlation_id(caller: Caller) -> None:
    for answer in (await caller.get(ME, await caller.token()), await caller.get(ME)):
        assert answer.fields["inin-ratelimit-allowed"] == "300"
        assert UUID(answer.fields["ININ-Correlation-Id"]).version == 4


# --- resources ---


async def test_contacts_are_created_and_listed_in_their_org_only(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    created = await caller.send("POST", CONTACTS, token, json={"externalId": "1", "name": "Ada"})
    assert (created.status, created.json["name"]) == (200, "Ada")
    assert (await caller.get(created.json["selfUri"], token)).json == created.json
    assert (await caller.get(CONTACTS, token)).json["entities"] == [created.json]
    foreign = sandbox.issue(GLOBEX_CLIENT_ID).value
    assert (await caller.get(CONTACTS, foreign)).json["total"] == 0
    assert_error(await caller.get(created.json["selfUri"], foreign), 404, "not.found")


async def test_a_post_that_comes_twice_is_executed_twice_and_counted(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    for _ in range(2):
        await caller.send("POST", CONTACTS, token, json={"externalId": "1"})
    assert sandbox.ledger.double_executions == 1
    assert len(sandbox.contacts["acme"]) == 2


async def test_a_refused_post_is_not_executed(caller: Caller, sandbox: Sandbox) -> None:
    assert (await caller.send("POST", CONTACTS, "never-issued", json={"externalId": "1"})).status == 401
    assert not sandbox.contacts["acme"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_a_contact_that_is_no_json_object_is_a_bad_request(caller: Caller, body: bytes) -> None:
    assert_error(await caller.send("POST", CONTACTS, await caller.token(), data=body), 400, "bad.request")


async def test_listings_come_in_pages_with_relative_uris(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    sandbox.contacts["acme"].extend({"id": str(n)} for n in range(5))
    page = (await caller.get(f"{CONTACTS}?pageSize=2&pageNumber=2", token)).json
    assert ([c["id"] for c in page["entities"]], page["total"], page["pageCount"]) == (["2", "3"], 5, 3)
    assert page["nextUri"] == f"{CONTACTS}?pageSize=2&pageNumber=3"
    assert "nextUri" not in (await caller.get(page["nextUri"], token)).json
    assert_error(await caller.get(f"{CONTACTS}?pageSize=x", token), 400, "bad.request")


@pytest.mark.parametrize("row,key", [("a/b", "a/b"), ("a%2Fb", "a/b"), ("a%2fb%20", "a/b "), ("%7Ec/../d", "~c/../d")])
async def test_a_path_parameter_may_hold_a_slash_and_comes_back_raw(caller: Caller, row: str, key: str) -> None:
    target = f"/api/v2/flows/datatables/t1/rows/{row}?showbrief=%66alse"
    answer = await caller.get(target, await caller.token())
    assert answer.json == {"table": "t1", "key": key, "target": target}


async def test_the_echo_tells_what_arrived_but_not_the_token(caller: Caller) -> None:
    token, body = await caller.token(), bytes(range(256))
    answer = await caller.send("PUT", "/api/v2/echo/a%2F?b=%63", token, fields={"X-One": "1"}, data=body)
    told = answer.json
    assert (told["org"], told["tokenSerial"], told["method"]) == ("acme", 1, "PUT")
    assert told["target"] == "/api/v2/echo/a%2F?b=%63"
    assert ["X-One", "1"] in told["fields"]
    assert (told["bodyLength"], told["bodySha256"]) == (256, hashlib.sha256(body).hexdigest())
    assert token not in answer.body.decode()


async def test_a_download_redirects_elsewhere(caller: Caller) -> None:
    answer = await caller.get("/api/v2/downloads/7", await caller.token())
    assert (answer.status, answer.fields["Location"]) == (
        302,
        f"https://downloads.sandbox.invalid/{ACME.id}/7",
    )


async def test_client_credentials_are_no_user(caller: Caller) -> None:
    assert_error(await caller.get("/api/v2/users/me", await caller.token()), 400, "bad.request")


async def test_the_org_is_the_tokens(caller: Caller, sandbox: Sandbox) -> None:
    answer = await caller.get("/api/v2/organizations/me", sandbox.issue(GLOBEX_CLIENT_ID).value)
    assert (answer.json["id"], answer.json["name"]) == (GLOBEX.id, "globex")


async def test_a_head_has_the_fields_of_a_get_and_no_body(caller: Caller) -> None:
    answer = await caller.send("HEAD", ME, await caller.token())
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.fields["Content-Length"]) > 0


async def test_what_does_not_exist_is_told_only_to_those_with_a_token(caller: Caller) -> None:
    assert_error(await caller.get("/api/v2/nothing", await caller.token()), 404, "not.found")
    assert_error(await caller.get("/api/v2/nothing"), 401, "authentication.required")


async def test_a_body_over_the_limit_is_too_large(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    allowed = await caller.send("POST", "/api/v2/echo", token, data=b"x" * 512_000)
    assert allowed.json["bodyLength"] == 512_000
    refused = await caller.send("POST", "/api/v2/echo", token, data=b"x" * 512_001)
    assert_error(refused, 413, "request.entity.too.large")
    assert sandbox.ledger.calls["acme", Outcome.BAD_REQUEST] == 1


async def test_the_ledger_tells_which_token_made_which_call(caller: Caller, sandbox: Sandbox) -> None:
    token = sandbox.issue(ACME_CLIENT_ID)
    answer = await caller.get(f"{CONTACTS}?pageSize=%31", token.value)
    call = sandbox.ledger.latest_calls[-1]
    assert (call.org, call.method, call.target) == ("acme", "GET", f"{CONTACTS}?pageSize=%31")
    assert (call.serial, call.status, call.outcome) == (token.serial, 200, Outcome.ACCEPTED)
    assert call.correlation_id == answer.fields["ININ-Correlation-Id"]


# --- faults ---


@pytest.mark.parametrize(
    "name,value,status,code",
    [
        ("api_status", None, 503, "service.unavailable"),
        ("api_status", 500, 500, "internal.server.error"),
        ("api_status", 502, 502, "internal.server.error"),
        ("api_status", 403, 403, "not.authorized"),
        ("api_status", 418, 418, "bad.request"),
        ("api_unauthorized", None, 401, "bad.credentials"),
        ("api_throttled", None, 429, "too.many.requests.retry.after"),
    ],
)
async def test_errors_come_on_demand_even_for_a_good_token(
    caller: Caller, sandbox: Sandbox, name: str, value: Any, status: int, code: str
) -> None:
    token = await caller.token()
    sandbox.faults.set(name, value, count=1, org="acme")
    assert (await caller.get(ME, sandbox.issue(GLOBEX_CLIENT_ID).value)).status == 200
    assert_error(await caller.get(ME, token), status, code)
    assert (await caller.get(ME, token)).status == 200


async def test_a_token_can_be_revoked_at_its_next_call(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    sandbox.faults.set("api_revoked", count=1)
    assert_error(await caller.get(ME, token), 401, "bad.credentials")
    assert_error(await caller.get(ME, token), 401, "bad.credentials")
    assert (await caller.get(ME, await caller.token())).status == 200
    assert sandbox.ledger.refused() == {"revoked": 2}


async def test_a_clock_that_is_ahead_ends_tokens_early(caller: Caller, sandbox: Sandbox, clock: Clock) -> None:
    token = await caller.token()
    sandbox.faults.set("clock_ahead", 60)
    clock.move(86_339)
    assert (await caller.get(ME, token)).status == 200
    clock.move(1)
    assert_error(await caller.get(ME, token), 401, "credentials.expired")


async def test_a_call_dropped_before_it_was_carried_out_leaves_no_trace(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    sandbox.faults.set("api_drop", count=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await caller.send("POST", CONTACTS, token, json={"externalId": "1"})
    assert not sandbox.contacts["acme"]
    assert sandbox.ledger.latest_calls[-1].status is None


async def test_a_call_whose_client_hangs_up_meanwhile_is_not_carried_out(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    sandbox.faults.set("api_latency", 1_000, count=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(caller.send("POST", CONTACTS, token, json={"externalId": "1"}), 0.1)
    await caller.get(ME, token)
    assert [call.outcome for call in sandbox.ledger.latest_calls] == ["client_gone", "accepted"]
    assert not sandbox.contacts["acme"]


async def test_a_call_dropped_afterwards_was_executed(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    sandbox.faults.set("api_drop", "after", count=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await caller.send("POST", CONTACTS, token, json={"externalId": "1"})
    assert len(sandbox.contacts["acme"]) == 1

"""Control over HTTP."""

from __future__ import annotations

import pytest

from proxy.sandbox import KINDS, Sandbox
from proxy.sandbox.orgs import ACME_CLIENT_ID, ACME_CLIENT_SECRET, ACME_REFRESH_TOKEN
from tests.sandbox.caller import Caller


async def test_the_ledger_is_told_and_reset(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    await caller.get("/api/v2/tokens/me", token)
    await caller.get("/api/v2/tokens/me", "never-issued")
    told = (await caller.get("/sandbox/ledger")).json
    assert told["tokenRequests"] == [{"org": "acme", "grant": "client_credentials", "outcome": "ok", "count": 1}]
    assert told["calls"] == {"acme": {"accepted": 1}, "-": {"unknown": 1}}
    assert told["refused"] == {"unknown": 1}
    assert len((await caller.get("/sandbox/ledger?latest=1")).json["latestCalls"]) == 1
    assert (await caller.send("DELETE", "/sandbox/ledger")).status == 204
    assert (await caller.get("/sandbox/ledger")).json["calls"] == {}


async def test_faults_are_added_listed_and_cleared(caller: Caller, sandbox: Sandbox) -> None:
    one = {"name": "token_status", "value": 503, "count": 2, "org": "acme", "grant": None}
    await caller.send("POST", "/sandbox/faults", json=one)
    await caller.send("POST", "/sandbox/faults", json={"name": "api_status"})
    listed = (await caller.get("/sandbox/faults")).json
    assert listed[0] == one
    assert [fault["name"] for fault in listed] == ["token_status", "api_status"]
    assert (await caller.ask()).status == 503
    assert (await caller.send("DELETE", "/sandbox/faults/token_status")).status == 204
    assert (await caller.ask()).status == 200
    await caller.send("DELETE", "/sandbox/faults")
    assert sandbox.faults.as_json() == []


async def test_faults_are_replaced_as_a_whole_or_not_at_all(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("api_status")
    wrong = await caller.send("PUT", "/sandbox/faults", json=[{"name": "token_hang"}, {"name": "nonsense"}])
    assert wrong.status == 400
    assert [fault["name"] for fault in sandbox.faults.as_json()] == ["api_status"]
    await caller.send("PUT", "/sandbox/faults", json=[{"name": "token_hang"}])
    assert [fault["name"] for fault in sandbox.faults.as_json()] == ["token_hang"]


@pytest.mark.parametrize(
    "method,target,body,expected",
    [
        ("POST", "/sandbox/faults", b"{", ""),
        ("POST", "/sandbox/faults", b"[]", "name"),
        ("POST", "/sandbox/faults", b'{"name": "nonsense"}', "token_latency"),
        ("POST", "/sandbox/faults", b'{"name": "api_status", "value": "x"}', "status from 400 to 599"),
        ("POST", "/sandbox/faults", b'{"name": "api_status", "count": "x"}', "count"),
        ("POST", "/sandbox/faults", b'{"name": "api_status", "count": true}', "count"),
        ("POST", "/sandbox/faults", b'{"name": "api_status", "org": 1}', "org"),
        ("POST", "/sandbox/faults", b'{"name": "api_status", "times": 1}', "times"),
        ("PUT", "/sandbox/faults", b"{}", "list"),
        ("DELETE", "/sandbox/faults/nonsense", b"", "token_latency"),
        ("POST", "/sandbox/revoke", b'{"org": "initech"}', "acme, globex"),
        ("POST", "/sandbox/revoke", b'{"org": 1}', "org"),
        ("POST", "/sandbox/revoke", b'{"token": "x"}', "refreshTokens"),
        ("GET", "/sandbox/ledger?latest=x", b"", ""),
    ],
)
async def test_what_can_not_be_done_is_told(
    caller: Caller, method: str, target: str, body: bytes, expected: str
) -> None:
    answer = await caller.send(method, target, data=body or None)
    assert answer.status == 400
    assert expected in answer.json["message"]


async def test_tokens_are_revoked_for_one_org_or_all(caller: Caller, sandbox: Sandbox) -> None:
    token = await caller.token()
    globex = await caller.send("POST", "/sandbox/revoke", json={"org": "globex"})
    assert globex.json == {"revoked": 0}
    assert (await caller.send("POST", "/sandbox/revoke")).json == {"revoked": 1}
    assert (await caller.get("/api/v2/tokens/me", token)).status == 401
    await caller.send("POST", "/sandbox/revoke", json={"refreshTokens": True})
    refused = await caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN)
    assert refused.json["error"] == "invalid_grant"


async def test_the_overview_tells_orgs_and_faults_and_no_secret(caller: Caller) -> None:
    answer = await caller.get("/sandbox")
    assert answer.json["url"] == caller.base_url
    assert [org["name"] for org in answer.json["orgs"]] == ["acme", "globex"]
    assert answer.json["orgs"][0]["clients"][0] == {"id": ACME_CLIENT_ID, "public": False}
    assert answer.json["faults"].keys() == KINDS.keys()
    assert ACME_CLIENT_SECRET not in answer.body.decode()

"""Guests over loopback: REST, the socket, the deployment's configuration."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from proxy.sandbox import Outcome, Sandbox, SandboxOptions
from proxy.sandbox.orgs import ACME_CLIENT_ID, ACME_DEPLOYMENT_ID
from tests.sandbox.caller import Caller, Clock

TOKEN_PATH = "/api/v2/webdeployments/token"
MESSAGES = "/api/v2/webmessaging/messages"
SOCKET = f"/v1?deploymentId={ACME_DEPLOYMENT_ID}"
SESSION = "11111111-1111-4111-8111-111111111111"


async def exchange(caller: Caller, code: str = "code") -> Any:
    sent = {"deploymentId": ACME_DEPLOYMENT_ID, "oauth": {"code": code, "redirectUri": "http://x.invalid"}}
    return (await caller.send("POST", f"{TOKEN_PATH}/oauthcodegrantjwtexchange", json=sent)).json


async def test_a_guest_exchanges_refreshes_and_revokes(caller: Caller, clock: Clock, sandbox: Sandbox) -> None:
    guest = await exchange(caller)
    assert guest.keys() == {"jwt", "refreshToken"}
    assert (await caller.get(MESSAGES, guest["jwt"])).status == 200
    clock.move(900)
    expired = await caller.get(MESSAGES, guest["jwt"])
    assert (expired.status, expired.json["code"]) == (401, "credentials.expired")
    sent = {"refreshToken": guest["refreshToken"]}
    fresh = (await caller.send("POST", f"{TOKEN_PATH}/refresh", json=sent)).json
    assert fresh.keys() == {"jwt"}
    assert (await caller.get(MESSAGES, fresh["jwt"])).status == 200
    assert (await caller.send("DELETE", f"{TOKEN_PATH}/revoke", fresh["jwt"])).status == 204
    revoked = await caller.get(MESSAGES, fresh["jwt"])
    assert (revoked.status, revoked.json["code"]) == (401, "bad.credentials")
    assert (await caller.send("POST", f"{TOKEN_PATH}/refresh", json=sent)).status == 401
    assert sandbox.ledger.guest_calls["acme", Outcome.EXPIRED] == 1
    assert sandbox.ledger.refused() == {"expired": 1, "revoked": 1}


@pytest.mark.parametrize(
    "method,target",
    [
        ("POST", f"{TOKEN_PATH}/oauthcodegrantjwtexchange"),
        ("POST", f"{TOKEN_PATH}/refresh"),
        ("DELETE", f"{TOKEN_PATH}/revoke"),
        ("GET", MESSAGES),
        ("GET", f"/api/v2/webdeployments/deployments/{ACME_DEPLOYMENT_ID}/cobrowse/1"),
        ("POST", f"/api/v2/webmessaging/deployments/{ACME_DEPLOYMENT_ID}/pushdevices/1"),
        ("POST", "/api/v2/knowledge/guest/sessions"),
        ("POST", f"/api/v2/journey/deployments/{ACME_DEPLOYMENT_ID}/appevents"),
    ],
)
async def test_an_orgs_token_does_not_open_what_is_the_guests(
    caller: Caller, sandbox: Sandbox, method: str, target: str
) -> None:
    answer = await caller.send(method, target, sandbox.issue(ACME_CLIENT_ID).value, json={})
    assert (answer.status, answer.json["code"]) == (401, "bad.credentials")
    assert sandbox.ledger.guest_calls == {("acme", Outcome.ORG_TOKEN): 1}
    assert not sandbox.ledger.calls


async def test_a_guests_jwt_does_not_open_what_is_the_orgs(caller: Caller, sandbox: Sandbox) -> None:
    guest = await exchange(caller)
    assert (await caller.get("/api/v2/tokens/me", guest["jwt"])).status == 401
    assert sandbox.ledger.refused() == {"unknown": 1}


async def test_other_guest_calls_may_come_with_a_jwt_or_without(caller: Caller, clock: Clock) -> None:
    target = "/api/v2/knowledge/guest/sessions/a%2Fb"
    guest = await exchange(caller)
    assert (await caller.get(target, guest["jwt"])).json["target"] == target
    assert (await caller.get(target)).json["guest"] is None
    clock.move(900)
    assert (await caller.get(target, guest["jwt"])).status == 401


async def test_messages_need_a_jwt(caller: Caller) -> None:
    assert (await caller.get(MESSAGES)).json["code"] == "authentication.required"
    assert (await caller.get(MESSAGES, "no-jwt")).json["code"] == "bad.credentials"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"oauth": 1}'])
async def test_an_exchange_that_makes_no_sense_is_a_bad_request(caller: Caller, body: bytes) -> None:
    answer = await caller.send("POST", f"{TOKEN_PATH}/oauthcodegrantjwtexchange", data=body)
    assert (answer.status, answer.json["code"]) == (400, "bad.request")


async def test_guest_calls_meet_the_apis_faults(caller: Caller, sandbox: Sandbox) -> None:
    guest = await exchange(caller)
    sandbox.faults.set("api_revoked", count=1, org="acme")
    assert (await caller.get(MESSAGES, guest["jwt"])).status == 401
    sandbox.faults.set("api_status", count=1)
    assert (await caller.get(MESSAGES)).status == 503


# --- the socket ---


async def test_a_guest_chats_and_reads_the_messages_over_rest(caller: Caller, sandbox: Sandbox) -> None:
    guest = await exchange(caller)
    async with caller.session.ws_connect(caller.base_url + SOCKET) as socket:
        configure = {"deploymentId": ACME_DEPLOYMENT_ID, "startNew": False, "data": {"code": guest["jwt"]}}
        await socket.send_json({"action": "configureAuthenticatedSession", "token": SESSION, **configure})
        assert (await socket.receive_json())["class"] == "SessionResponse"
        message = {"type": "Text", "text": "Hi!"}
        await socket.send_json({"action": "onMessage", "token": SESSION, "message": message})
        assert (await socket.receive_json())["body"]["text"] == "Hi!"
        assert (sandbox.ledger.sockets_open, sandbox.ledger.frames) == (1, 2)
        await socket.send_json({"action": "closeSession", "token": SESSION})
        assert (await socket.receive_json())["class"] == "ConnectionClosedEvent"
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    listed = (await caller.get(MESSAGES, guest["jwt"])).json
    assert [entity["text"] for entity in listed["entities"]] == ["Hi!"]
    assert (sandbox.ledger.sockets_open, sandbox.ledger.sockets_opened) == (0, 1)


async def test_binary_frames_are_passed_over(caller: Caller) -> None:
    async with caller.session.ws_connect(caller.base_url + SOCKET) as socket:
        await socket.send_bytes(b"\x00")
        await socket.send_str("no json")
        assert json.loads(await socket.receive_str())["code"] == 400


async def test_the_socket_is_refused_for_a_deployment_that_nobody_has(caller: Caller) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await caller.session.ws_connect(f"{caller.base_url}/v1?deploymentId=none")
    assert caught.value.status == 400


@pytest.mark.parametrize("options", [SandboxOptions(allowed_origins=("https://shop.invalid",))])
@pytest.mark.parametrize(
    "origin,allowed", [("https://shop.invalid", True), ("https://evil.invalid", False), ("", False)]
)
async def test_the_server_checks_the_origin(caller: Caller, origin: str, *, allowed: bool) -> None:
    headers = {"Origin": origin} if origin else {}
    if allowed:
        async with caller.session.ws_connect(caller.base_url + SOCKET, headers=headers) as socket:
            assert not socket.closed
        return
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await caller.session.ws_connect(caller.base_url + SOCKET, headers=headers)
    assert caught.value.status == 403


async def test_a_plain_get_on_the_socket_is_a_bad_request(caller: Caller) -> None:
    assert (await caller.get(SOCKET)).status == 400


# --- the CDN ---


async def test_a_deployments_configuration_points_at_the_sandbox(caller: Caller) -> None:
    answer = await caller.get(f"/webdeployments/v1/deployments/{ACME_DEPLOYMENT_ID}/config.json")
    endpoint = answer.json["messenger"]["apps"]["conversations"]["messagingEndpoint"]
    assert answer.json["id"] == ACME_DEPLOYMENT_ID
    assert answer.json["apiEndpoint"] == caller.base_url
    assert endpoint == caller.base_url.replace("http://", "ws://")
    assert answer.fields["Access-Control-Allow-Origin"] == "*"


async def test_a_deployment_that_nobody_has_has_no_configuration(caller: Caller) -> None:
    assert (await caller.get("/webdeployments/v1/deployments/none/config.json")).status == 404

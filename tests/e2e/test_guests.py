"""Web messaging guests: their calls keep their own token, their socket is relayed, and the org's token stays out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from proxy.sandbox import Outcome
from tests.support.stages import PATIENCE, Answer, Stage, Tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "/api/v2/webdeployments/token"
MESSAGES = "/api/v2/webmessaging/messages"
ORIGIN = "https://shop.example"


@pytest.fixture(scope="module")
def configuration() -> str:
    return f'keep_warm = false\n[access]\nallowed_origins = ["{ORIGIN}"]\n[routing]\ndefault_tenant = "org-0"\n'


async def guest_of(tenant: Tenant) -> Any:
    sent = {"deploymentId": tenant.org.deployments[0], "oauth": {"code": f"code-of-{tenant.name}"}}
    answer = await tenant.call("POST", f"{TOKEN}/oauthcodegrantjwtexchange", json=sent)
    assert answer.status == 200
    return answer.json


async def as_guest(tenant: Tenant, jwt: str, method: str = "GET", target: str = MESSAGES) -> Answer:
    return await tenant.call(method, target, fields={"Authorization": f"Bearer {jwt}"})


async def test_a_guest_exchanges_reads_refreshes_and_revokes_with_their_own_token(tenant: Tenant) -> None:
    guest = await guest_of(tenant)
    assert (await as_guest(tenant, guest["jwt"])).status == 200
    refreshed = await tenant.call("POST", f"{TOKEN}/refresh", json={"refreshToken": guest["refreshToken"]})
    assert (await as_guest(tenant, refreshed.json["jwt"])).status == 200
    assert (await as_guest(tenant, refreshed.json["jwt"], "DELETE", f"{TOKEN}/revoke")).status == 204
    revoked = await as_guest(tenant, refreshed.json["jwt"])
    assert (revoked.status, revoked.proxy_status) == (401, "")
    assert tenant.token_requests == {}, "the org's token is no affair of a guest's"


@pytest.mark.parametrize(
    "target",
    [
        MESSAGES,
        "/api/v2/webdeployments/deployments/1/cobrowse/session",
        "/api/v2/webmessaging/deployments/1/pushdevices/1",
        "/api/v2/knowledge/guest/sessions/1",
        "/api/v2/journey/deployments/1/appevents",
        "/api/v2/webmessaging/%6Dessages",
        "/api/v2/users/../webmessaging/messages",
        "/api/v2//webmessaging/messages",
        "/API/v2/webmessaging/messages",
    ],
)
async def test_a_guest_call_never_gets_the_orgs_token(tenant: Tenant, target: str) -> None:
    assert (await tenant.get()).status == 200
    await tenant.get(target)
    await tenant.call("GET", target, fields={"Authorization": "Bearer "})
    ledger = tenant.stage.sandbox.ledger
    assert ledger.guest_calls[tenant.name, Outcome.ORG_TOKEN] == 0
    assert ledger.calls[tenant.name, Outcome.ACCEPTED] == 1


async def test_a_guests_token_is_not_mended_where_the_org_reads(tenant: Tenant) -> None:
    """With ``authorization = "replace"`` it is replaced, and the org's own call succeeds."""
    guest = await guest_of(tenant)
    answer = await as_guest(tenant, guest["jwt"], target="/api/v2/tokens/me")
    assert (answer.status, answer.json["organization"]["name"]) == (200, tenant.name)


async def test_the_deployments_configuration_comes_from_the_cdn(tenant: Tenant) -> None:
    target = f"/webdeployments/v1/deployments/{tenant.org.deployments[0]}/config.json"
    answer = await tenant.get(target)
    assert (answer.status, answer.json["id"]) == (200, tenant.org.deployments[0])
    assert tenant.token_requests == {}


# --- the socket ---


def socket_url(stage: Stage, prefix: str, deployment: str) -> str:
    return f"ws://{stage.proxy.host}:{stage.proxy.port}{prefix}/v1?deploymentId={deployment}"


async def exchange(socket: ClientConnection, **frame: object) -> Any:
    async with asyncio.timeout(PATIENCE):
        await socket.send(json.dumps(frame))
        return json.loads(await socket.recv())


@pytest.mark.parametrize("named", [True, False], ids=["named tenant", "default tenant"])
async def test_a_guest_converses_over_the_socket(stage: Stage, named: bool) -> None:
    """Messenger Transport's custom endpoint is a host and a port alone, so its tenant is the default one."""
    tenant = Tenant(stage, stage.sandbox.options.orgs[0])
    deployment = tenant.org.deployments[0]
    url, token = socket_url(stage, tenant.path if named else "", deployment), f"guest-{named}"
    async with connect(url, origin=ORIGIN, proxy=None) as socket:  # type: ignore[arg-type]
        session = await exchange(socket, token=token, action="configureSession", deploymentId=deployment)
        assert (session["code"], session["body"]["connected"]) == (200, True)
        long = "ä" * 20_000
        echoed = await exchange(socket, token=token, action="echo", message={"type": "Text", "text": long})
        assert echoed["body"]["text"] == long
        told = await exchange(socket, token=token, action="onMessage", message={"type": "Text", "text": "hello"})
        assert told["body"]["direction"] == "Inbound"
        jwt = (await exchange(socket, token=token, action="getJwt"))["body"]["jwt"]
        history = await as_guest(tenant, jwt)
        assert [entity["text"] for entity in history.json["entities"]] == ["hello"]
        await socket.ping()
        closed = await exchange(socket, token=token, action="closeSession")
        assert closed["class"] == "ConnectionClosedEvent"
        await asyncio.wait_for(socket.wait_closed(), PATIENCE)
    assert socket.close_code == 1000
    assert stage.sandbox.ledger.sockets_open == 0


async def test_the_servers_refusal_of_a_socket_reaches_the_guest(tenant: Tenant) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(socket_url(tenant.stage, tenant.path, "unknown"), proxy=None):
            pass
    assert refused.value.response.status_code == 400
    assert b"Deployment not found" in (refused.value.response.body or b"")


async def test_a_foreign_page_opens_no_socket(tenant: Tenant) -> None:
    url = socket_url(tenant.stage, tenant.path, tenant.org.deployments[0])
    opened = tenant.stage.sandbox.ledger.sockets_opened
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, origin="https://evil.example", proxy=None):  # type: ignore[arg-type]
            pass
    assert refused.value.response.status_code == 403
    assert tenant.stage.sandbox.ledger.sockets_opened == opened


async def test_twenty_sockets_at_once_are_kept_apart(tenant: Tenant) -> None:
    deployment = tenant.org.deployments[0]
    url = socket_url(tenant.stage, tenant.path, deployment)

    async def one(number: int) -> str:
        async with connect(url, proxy=None) as socket:
            await exchange(socket, action="configureSession", deploymentId=deployment, token=str(number))
            frame = await exchange(socket, action="echo", token=str(number), message={"text": str(number)})
            return str(frame["body"]["text"])

    assert await asyncio.gather(*map(one, range(20))) == [str(number) for number in range(20)]

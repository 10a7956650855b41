"""The official SDKs, unmodified, through their gateway settings: a token's end is nothing that they ever see.

What they do when they do see it stands in the last tests, which leave the proxy out.
"""

from __future__ import annotations

import asyncio
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.sdk.drivers import Sdk, SdkError
from tests.support.proxies import RunningProxy
from tests.support.stages import Stage, Tenant, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY = {"client_id": "any-client", "secret": "any-secret"}
"""The proxy asks for no client of its own."""

LOGINS: dict[str, dict[str, str]] = {
    "none": {},
    "client_credentials": ANY,
    "code": {**ANY, "code": "any", "redirect_uri": "http://localhost/"},
    "pkce": {"client_id": "any-client", "verifier": "v" * 43, "code": "any", "redirect_uri": "http://localhost/"},
    "refresh": {**ANY, "refresh_token": "any"},
}


def gateway(proxy: RunningProxy, *, login: str = "", api: str = "") -> dict[str, object]:
    return {
        "protocol": "http",
        "host": proxy.host,
        "port": proxy.port,
        "path_params_login": login,
        "path_params_api": api,
    }


async def point(sdk: Sdk, tenant: Tenant) -> None:
    """Sets the gateway as the ``snippet`` command says."""
    path = tenant.path.removeprefix("/")
    await sdk.do("gateway", **gateway(tenant.stage.proxy, login=path, api=path))


async def log_in(sdk: Sdk, tenant: Tenant, how: str) -> None:
    await point(sdk, tenant)
    if how != "none":
        await sdk.do(how, **LOGINS[how])


async def seen(tenant: Tenant) -> dict[str, int]:
    """What the SDK was answered with, by status."""
    found: dict[str, int] = (await tenant.status())["requests"]
    return found


@pytest.mark.parametrize("how", LOGINS)
async def test_it_logs_in_reads_and_writes_and_never_holds_a_token(sdk: Sdk, tenant: Tenant, how: str) -> None:
    await point(sdk, tenant)
    if how != "none":
        held = await sdk.do(how, **LOGINS[how])
        assert tenant.stage.sandbox.tokens.find(held) is None
    assert await sdk.do("organization") == tenant.name
    assert await sdk.do("token") == tenant.name
    assert await sdk.do("write", external_id=how)
    assert tenant.stage.sandbox.ledger.contacts_created[tenant.name] == 1
    assert (await seen(tenant)).keys() == {"200"}


@pytest.mark.parametrize("how", ["none", "code"])
async def test_it_goes_through_an_expiry_and_a_revocation_without_a_401(sdk: Sdk, tenant: Tenant, how: str) -> None:
    await log_in(sdk, tenant, how)
    first = (await sdk.do("echo"))["tokenSerial"]
    (token,) = tenant.stage.sandbox.tokens.issued(tenant.name)
    await until(lambda: token.refusal(time.time()) is not None)
    assert await sdk.do("organization") == tenant.name
    second = (await sdk.do("echo"))["tokenSerial"]
    assert tenant.refused == {}, "an expired token was sent"
    tenant.revoke()
    assert await sdk.do("organization") == tenant.name
    assert len({first, second, (await sdk.do("echo"))["tokenSerial"]}) == 3
    assert tenant.refused == {"revoked": 1}
    assert (await seen(tenant)).keys() == {"200"}


@pytest.mark.parametrize("how", ["none", "client_credentials", "code"])
async def test_a_write_whose_token_is_refused_is_executed_once(sdk: Sdk, tenant: Tenant, how: str) -> None:
    await log_in(sdk, tenant, how)
    await sdk.do("organization")
    tenant.revoke()
    assert await sdk.do("write", external_id=how)
    # Whatever the SDK does behind its caller's back comes before its next call.
    assert await sdk.do("organization") == tenant.name
    ledger = tenant.stage.sandbox.ledger
    assert (ledger.contacts_created[tenant.name], ledger.double_executions) == (1, 0)
    assert tenant.refused == {"revoked": 1}
    assert (await seen(tenant)).keys() == {"200"}


async def test_calls_at_once_after_a_revocation_cost_one_refresh(sdk: Sdk, tenant: Tenant) -> None:
    await log_in(sdk, tenant, "code")
    await sdk.do("organization")
    tenant.revoke()
    tenant.fault("token_latency", 0.2, count=1)
    assert await sdk.do("many", calls=4) == [tenant.name] * 4
    assert tenant.token_requests == {"ok": 2}
    assert (await seen(tenant)).keys() == {"200"}


async def test_a_slash_in_a_path_parameter_reaches_the_upstream_as_the_sdk_wrote_it(sdk: Sdk, tenant: Tenant) -> None:
    await point(sdk, tenant)
    row = await sdk.do("row", table="t", row="a/b c")
    written = {"python": "a/b%20c", "javascript": "a%2Fb%20c"}[sdk.name]
    assert row["target"] == f"/api/v2/flows/datatables/t/rows/{written}"
    assert row["key"] == "a/b c"


# --- a permanent refusal ---


async def test_a_permanent_401_without_a_login_is_told_and_costs_three_token_requests(sdk: Sdk, tenant: Tenant) -> None:
    await point(sdk, tenant)
    tenant.fault("api_unauthorized")
    for _ in range(5):
        with pytest.raises(SdkError, match=r"bad\.credentials"):
            await sdk.do("organization")
    assert tenant.token_requests.total() <= 3
    assert tenant.refused["fault_unauthorized"] <= 10


async def test_a_permanent_401_does_not_send_an_sdk_that_logged_in_round_in_circles(sdk: Sdk, tenant: Tenant) -> None:
    """It refreshes on 401 and asks again; left to it, the Python SDK does so a thousand times, JavaScript's forever."""
    await log_in(sdk, tenant, "code")
    tenant.fault("api_unauthorized")
    try:
        with pytest.raises(SdkError) as told:
            await sdk.do("organization")
        await asyncio.sleep(0.5)
        refused = tenant.refused["fault_unauthorized"]
    finally:
        tenant.mend()  # ends a loop that goes on
    assert told.value.status is not None
    assert refused <= 10
    assert tenant.token_requests.total() <= 3
    assert await sdk.do("organization") == tenant.name


async def test_a_tenant_without_a_token_is_an_error_that_the_sdk_hands_on_at_once(sdk: Sdk, tenant: Tenant) -> None:
    await log_in(sdk, tenant, "none")
    tenant.fault("token_invalid_client", "client not found")
    with pytest.raises(SdkError) as told:
        await sdk.do("write", external_id="never")
    assert told.value.status == 502
    assert "region" in str(told.value.body)
    assert tenant.token_requests == {"invalid_client": 1}


# --- where the gateway is ---


async def test_with_the_path_for_login_forgotten_the_api_is_still_the_tenants(sdk: Sdk, tenant: Tenant) -> None:
    await sdk.do("gateway", **gateway(tenant.stage.proxy, api=f"/t/{tenant.name}/"))
    await sdk.do("client_credentials", **ANY)
    assert await sdk.do("organization") == tenant.name


async def test_with_the_path_for_the_api_forgotten_it_is_the_default_tenant(
    sdk: Sdk, tenant: Tenant, default: Tenant
) -> None:
    await sdk.do("gateway", **gateway(tenant.stage.proxy, login=f"t/{tenant.name}"))
    await sdk.do("client_credentials", **ANY)
    assert await sdk.do("organization") == default.name


async def test_without_any_path_it_is_the_default_tenant(sdk: Sdk, stage: Stage, default: Tenant) -> None:
    await sdk.do("gateway", **gateway(stage.proxy))
    await sdk.do("code", **LOGINS["code"])
    assert await sdk.do("organization") == default.name


async def test_the_host_setting_will_do_too(sdk: Sdk, tenant: Tenant) -> None:
    """``configuration.host`` in Python, where login follows it; ``config.basePath`` in JavaScript, for the API."""
    await sdk.do("host", url=tenant.stage.proxy.url + tenant.path)
    if sdk.name == "python":
        await sdk.do("client_credentials", **ANY)
    assert await sdk.do("organization") == tenant.name
    assert await sdk.do("write", external_id="host")


# --- guests ---


async def test_a_guest_is_served_with_their_own_token(sdk: Sdk, tenant: Tenant) -> None:
    await point(sdk, tenant)
    jwt, refresh_token = await sdk.do("guest_exchange", deployment=tenant.org.deployments[0], code=f"{sdk.name}-code")
    assert await sdk.do("guest_messages", jwt=jwt) == 0
    await point(sdk, tenant)
    again = await sdk.do("guest_refresh", refresh_token=refresh_token)
    assert await sdk.do("guest_messages", jwt=again) == 0
    await sdk.do("guest_revoke", jwt=again)
    with pytest.raises(SdkError, match=r"bad\.credentials"):
        await sdk.do("guest_messages", jwt=again)
    assert tenant.token_requests == {}
    assert tenant.refused == {"revoked": 1}


async def test_a_program_that_logged_in_for_the_org_may_serve_guests_too(sdk: Sdk, tenant: Tenant) -> None:
    await log_in(sdk, tenant, "client_credentials")
    deployment = tenant.org.deployments[0]
    jwt, _ = await sdk.do("guest_exchange", deployment=deployment, code=f"{sdk.name}-other-code")
    assert await sdk.do("organization") == tenant.name
    assert await sdk.do("guest_messages", jwt=jwt) == 0
    assert (await seen(tenant)).keys() == {"200"}


# --- without the proxy ---


async def log_in_directly(sdk: Sdk, tenant: Tenant) -> None:
    """At the sandbox itself, as a person, with a refresh token that works."""
    sandbox, client = tenant.stage.sandbox, tenant.org.clients[0]
    where = urlsplit(sandbox.base_url)
    await sdk.do("gateway", protocol="http", host=where.hostname, port=where.port)
    redirect_uri = "http://127.0.0.1:1/"
    query = urlencode({"response_type": "code", "client_id": client.id, "redirect_uri": redirect_uri})
    page = f"{sandbox.base_url}/oauth/authorize?{query}"
    async with tenant.stage.session.get(page, allow_redirects=False) as consented:
        (code,) = parse_qs(urlsplit(consented.headers["Location"]).query)["code"]
    await sdk.do("code", client_id=client.id, secret=client.secret, code=code, redirect_uri=redirect_uri)


async def test_without_the_proxy_each_client_refreshes_for_itself(sdk: Sdk, tenant: Tenant) -> None:
    """The fact that the tests above rest on: their tokens do end."""
    await log_in_directly(sdk, tenant)
    tenant.revoke()
    if sdk.name == "python":
        assert await sdk.do("write", external_id="direct")
    else:
        # Its caller is told that the write failed, and it is executed all the same.
        with pytest.raises(SdkError, match=r"bad\.credentials"):
            await sdk.do("write", external_id="direct")
    ledger = tenant.stage.sandbox.ledger
    await until(lambda: ledger.contacts_created[tenant.name] == 1)
    assert tenant.refused == {"revoked": 1}

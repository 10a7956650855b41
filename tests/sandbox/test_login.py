"""The login service over loopback."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import jwt
import pytest

from proxy.sandbox import Sandbox, SandboxOptions
from proxy.sandbox.grants import s256
from proxy.sandbox.orgs import (
    ACME_CLIENT_ID,
    ACME_CLIENT_SECRET,
    ACME_PUBLIC_CLIENT_ID,
    ACME_REFRESH_TOKEN,
    GLOBEX_CLIENT_ID,
    GLOBEX_CLIENT_SECRET,
)
from tests.sandbox.caller import ACME_BASIC, START, Caller, basic

GLOBEX_BASIC = basic(GLOBEX_CLIENT_ID, GLOBEX_CLIENT_SECRET)


async def test_a_token_is_answered_as_genesys_cloud_does(caller: Caller) -> None:
    answer = await caller.ask()
    assert answer.status == 200
    assert answer.json.keys() == {"access_token", "token_type", "expires_in"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("bearer", 86_400)
    assert b'"expires_in":86400}' in answer.body
    assert answer.fields["Cache-Control"] == "no-store"
    assert answer.fields["ININ-Correlation-Id"]
    assert parsedate_to_datetime(answer.fields["Date"]).timestamp() == START


@pytest.mark.parametrize("lifetime,on_the_wire", [(2, b"2}"), (2.0, b"2}"), (0.5, b"0.5}")])
async def test_a_whole_lifetime_is_an_integer_on_the_wire(lifetime: float, on_the_wire: bytes) -> None:
    async with Sandbox(SandboxOptions(token_lifetime=lifetime)) as sandbox, aiohttp.ClientSession() as session:
        answer = await Caller(session, sandbox.base_url).ask()
    assert answer.body.endswith(b'"expires_in":' + on_the_wire)


async def test_the_body_may_authenticate_the_client(caller: Caller) -> None:
    answer = await caller.ask(None, client_id=ACME_CLIENT_ID, client_secret=ACME_CLIENT_SECRET)
    assert answer.status == 200


async def test_an_unknown_client_gets_the_error_of_the_wrong_region(caller: Caller) -> None:
    answer = await caller.ask(basic("nobody", "secret"))
    assert answer.status == 400
    assert answer.json == {
        "error": "invalid_client",
        "description": "client not found",
        "error_description": "client not found",
    }


async def test_a_wrong_secret_is_answered_with_401_and_a_challenge(caller: Caller) -> None:
    answer = await caller.ask(basic(ACME_CLIENT_ID, "wrong"))
    assert answer.status == 401
    assert answer.json["description"] == answer.json["error_description"] == "authentication failed"
    assert answer.fields["WWW-Authenticate"].startswith("Basic")


async def test_the_ledger_tells_what_was_asked_and_no_secret(caller: Caller, sandbox: Sandbox) -> None:
    form = {"grant_type": "client_credentials", "scope": "a b", "resourceServer": "partner", "audience": "x"}
    fields = {"Authorization": ACME_BASIC, "resource_server": "partner"}
    await caller.send("POST", "/oauth/token", fields=fields, data=form)
    await caller.ask(basic(ACME_CLIENT_ID, "a-wrong-secret"))
    await caller.ask(grant_type="refresh_token", refresh_token="a-wrong-token")
    seen = sandbox.ledger.latest_token_requests[0]
    assert (seen.org, seen.grant, seen.client_auth) == ("acme", "client_credentials", "client_secret_basic")
    assert (seen.scope, seen.resource_server, seen.parameters) == (("a", "b"), "partner", {"audience": "x"})
    assert ("resource_server", "partner") in seen.fields
    assert (seen.outcome, seen.serial) == ("ok", 1)
    assert sandbox.ledger.token_requests == {
        ("acme", "client_credentials", "ok"): 1,
        ("acme", "client_credentials", "invalid_client"): 1,
        ("acme", "refresh_token", "invalid_grant"): 1,
    }
    told = repr(sandbox.ledger)
    for secret in (ACME_CLIENT_SECRET, "a-wrong-secret", "a-wrong-token", ACME_BASIC):
        assert secret not in told


async def test_a_request_that_can_not_be_read_is_recorded_too(caller: Caller, sandbox: Sandbox) -> None:
    answer = await caller.send("POST", "/oauth/token", json={"grant_type": "client_credentials"})
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert sandbox.ledger.token_requests == {("-", "", "invalid_request"): 1}


async def test_a_request_of_half_a_megabyte_and_more_is_too_large(caller: Caller) -> None:
    assert (await caller.ask(audience="x" * 512_000)).status == 413


async def test_refresh_tokens_rotate_and_reuse_is_counted(caller: Caller, sandbox: Sandbox) -> None:
    answer = await caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN)
    assert answer.json["refresh_token"] != ACME_REFRESH_TOKEN
    again = await caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN)
    assert (again.status, again.json["error"]) == (400, "invalid_grant")
    assert sandbox.ledger.refresh_token_reuses == 1
    refused = await caller.get("/api/v2/tokens/me", answer.json["access_token"])
    assert refused.json["code"] == "bad.credentials"


async def test_a_refresh_token_can_be_had_without_a_browser(caller: Caller, sandbox: Sandbox) -> None:
    value = sandbox.new_refresh_token(GLOBEX_CLIENT_ID)
    answer = await caller.ask(GLOBEX_BASIC, grant_type="refresh_token", refresh_token=value)
    assert (await caller.get("/api/v2/users/me", answer.json["access_token"])).json["name"] == "globex user"


# --- browsers ---


async def test_a_browser_login_with_pkce_ends_in_tokens(caller: Caller) -> None:
    verifier = "v" * 43
    answer = await caller.get(
        f"/oauth/authorize?response_type=code&client_id={ACME_PUBLIC_CLIENT_ID}&state=st%26te"
        f"&redirect_uri=http%3A%2F%2F127.0.0.1%3A7777%2Fcb%3Fx%3D1"
        f"&code_challenge={s256(verifier)}&code_challenge_method=S256&scope=messaging%3Awrite"
    )
    assert answer.status == 302
    location = urlsplit(answer.fields["Location"])
    query = parse_qs(location.query)
    assert (location.netloc, location.path) == ("127.0.0.1:7777", "/cb")
    assert (query["state"], query["x"]) == (["st&te"], ["1"])
    tokens = await caller.ask(
        None,
        grant_type="authorization_code",
        client_id=ACME_PUBLIC_CLIENT_ID,
        code=query["code"][0],
        redirect_uri="http://127.0.0.1:7777/cb?x=1",
        code_verifier=verifier,
    )
    me = await caller.get("/api/v2/tokens/me", tokens.json["access_token"])
    assert me.json["authorizedScope"] == ["messaging:write"]
    assert tokens.json["refresh_token"]


async def test_an_authorization_error_is_redirected_with_the_state(caller: Caller) -> None:
    answer = await caller.get(
        f"/oauth/authorize?response_type=token&client_id={ACME_CLIENT_ID}&state=s"
        "&redirect_uri=http%3A%2F%2Flocalhost%2Fcb"
    )
    query = parse_qs(urlsplit(answer.fields["Location"]).query)
    assert (query["error"], query["state"]) == (["unsupported_response_type"], ["s"])


@pytest.mark.parametrize(
    "query",
    [
        "client_id=nobody&redirect_uri=http%3A%2F%2Flocalhost%2F",
        f"client_id={ACME_CLIENT_ID}&redirect_uri=https%3A%2F%2Fevil.invalid%2F",
    ],
)
async def test_nobody_is_redirected_to_where_the_client_does_not_live(caller: Caller, query: str) -> None:
    answer = await caller.get(f"/oauth/authorize?response_type=code&{query}")
    assert answer.status == 400
    assert "Location" not in answer.fields


async def test_log_out_goes_back_to_the_client(caller: Caller) -> None:
    answer = await caller.get(f"/logout?client_id={ACME_CLIENT_ID}&redirect_uri=http%3A%2F%2Flocalhost%2Fbye")
    assert (answer.status, answer.fields["Location"]) == (302, "http://localhost/bye")
    assert (await caller.get("/logout?client_id=nobody&redirect_uri=https%3A%2F%2Fevil.invalid")).status == 200


# --- faults ---


@pytest.mark.parametrize(
    "name,value,status,error,description",
    [
        ("token_throttled", None, 400, "invalid_request", "rate limit exceeded; retry after 60 seconds"),
        ("token_invalid_client", None, 400, "invalid_client", "client not found"),
        ("token_invalid_client", "authentication failed", 401, "invalid_client", "authentication failed"),
        ("token_invalid_grant", None, 400, "invalid_grant", "the grant is not valid"),
    ],
)
async def test_oauth_errors_come_on_demand(
    caller: Caller, sandbox: Sandbox, name: str, value: Any, status: int, error: str, description: str
) -> None:
    sandbox.faults.set(name, value, count=1)
    answer = await caller.ask()
    assert answer.status == status
    assert answer.json == {"error": error, "description": description, "error_description": description}
    assert (await caller.ask()).status == 200


async def test_an_error_status_comes_so_many_times(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_status", 503, count=2)
    assert [(await caller.ask()).status for _ in range(3)] == [503, 503, 200]
    assert sandbox.ledger.token_requests["acme", "client_credentials", "token_status"] == 2


async def test_a_fault_of_one_org_or_grant_spares_the_rest(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_status", org="globex")
    sandbox.faults.set("token_invalid_grant", grant="refresh_token")
    assert (await caller.ask()).status == 200
    assert (await caller.ask(GLOBEX_BASIC)).status == 500
    refused = await caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN)
    assert refused.json["error"] == "invalid_grant"


async def test_two_hundred_may_come_empty_or_as_a_page(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_empty", count=1)
    sandbox.faults.set("token_html", count=1)
    empty, page = await caller.ask(), await caller.ask()
    assert (empty.status, empty.body) == (200, b"")
    assert (page.status, page.fields["Content-Type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize("value", ["3600", 0, -5, 10**30, 1.5, True, [], None])
async def test_expires_in_may_be_odd_and_the_token_lives_on(caller: Caller, sandbox: Sandbox, value: Any) -> None:
    sandbox.faults.set("token_expires_in", value)
    answer = await caller.ask()
    assert ("expires_in" in answer.json) is (value is not None)
    assert answer.json.get("expires_in") == value
    assert (await caller.get("/api/v2/tokens/me", answer.json["access_token"])).status == 200


async def test_a_dropped_connection_leaves_no_answer(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_drop", count=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await caller.ask()
    assert sandbox.tokens.issued() == []


async def test_an_answer_may_be_lost_after_the_refresh_token_was_used(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_drop", "after", count=1)
    with pytest.raises(aiohttp.ClientConnectionError):
        await caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN)
    assert len(sandbox.tokens.issued("acme")) == 1
    await caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN)
    assert sandbox.ledger.refresh_token_reuses == 1


async def test_latency_delays_the_answer(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_latency", 0.05)
    began = asyncio.get_running_loop().time()
    assert (await caller.ask()).status == 200
    assert asyncio.get_running_loop().time() - began >= 0.05


async def test_an_answer_may_be_late_after_the_refresh_token_was_used(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_late", 60.0, count=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN), 0.2)
    assert len(sandbox.tokens.issued("acme")) == 1
    await caller.ask(grant_type="refresh_token", refresh_token=ACME_REFRESH_TOKEN)
    assert sandbox.ledger.refresh_token_reuses == 1


async def test_a_client_that_gives_up_on_a_hanging_endpoint_leaves_no_trouble(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_hang", count=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(caller.ask(), 0.1)
    assert (await caller.ask()).status == 200
    assert sandbox.ledger.token_requests["acme", "client_credentials", "client_gone"] == 1


@pytest.mark.parametrize("options", [SandboxOptions(jwt_tokens=True, token_lifetime=300)])
async def test_jwt_tokens_open_the_api_like_opaque_ones(caller: Caller) -> None:
    token = await caller.token()
    assert jwt.decode(token, options={"verify_signature": False})["exp"] == START + 300
    assert (await caller.get("/api/v2/organizations/me", token)).json["name"] == "acme"

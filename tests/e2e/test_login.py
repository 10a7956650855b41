"""The login door: SDKs log in at the proxy and go on without ever holding a token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio

from proxy.sandbox import Org
from tests.support.stages import ECHO, Stage, Tenant, make_orgs, open_stage, tenant_toml

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRANTS: dict[str, dict[str, str]] = {
    "client_credentials": {"grant_type": "client_credentials"},
    "authorization_code": {"grant_type": "authorization_code", "code": "any", "redirect_uri": "http://localhost/"},
    "pkce": {"grant_type": "authorization_code", "code": "any", "code_verifier": "v" * 43, "client_id": "any"},
    "refresh_token": {"grant_type": "refresh_token", "refresh_token": "any"},
    "saml2": {
        "grant_type": "urn:ietf:params:oauth:grant-type:saml2-bearer",
        "orgName": "any",
        "assertion": "any",
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    def section(org: Org) -> str:
        return tenant_toml(org, authorization="fill" if org.name.startswith("fill") else "replace")

    orgs = make_orgs([*(f"org-{number}" for number in range(12)), "fill"])
    async with open_stage(orgs, "keep_warm = false\n", tenants=section) as stage:
        yield stage


@pytest.fixture
def people(stage: Stage) -> Tenant:
    """A tenant whose callers may show tokens of their own."""
    return Tenant(stage, next(org for org in stage.sandbox.options.orgs if org.name == "fill"))


async def log_in(tenant: Tenant, form: dict[str, str], **fields: str) -> dict[str, Any]:
    answer = await tenant.call("POST", "/oauth/token", data=form, fields=fields)
    assert answer.status == 200, answer.body
    assert answer.fields["Cache-Control"] == "no-store"
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.parametrize("grant", GRANTS)
async def test_whoever_logs_in_is_given_a_placeholder_and_the_tokens_remaining_life(tenant: Tenant, grant: str) -> None:
    wrong = aiohttp.encode_basic_auth("any-client", "any-secret")
    told = await log_in(tenant, GRANTS[grant], **({"Authorization": wrong} if grant != "pkce" else {}))
    (real,) = tenant.stage.sandbox.tokens.issued(tenant.name)
    assert told["access_token"] != real.value
    assert told["token_type"].lower() == "bearer"
    assert 86_300 < told["expires_in"] <= 86_400
    has_refresh_token = GRANTS[grant]["grant_type"] in ("authorization_code", "refresh_token")
    assert ("refresh_token" in told) == has_refresh_token, "the SDKs fail where theirs is missing"
    assert not any(real.value[at : at + 12] in json.dumps(told) for at in range(len(real.value) - 12))
    assert tenant.token_requests == {"ok": 1}


async def test_the_placeholder_opens_the_api_through_the_proxy_and_nothing_without_it(tenant: Tenant) -> None:
    told = await log_in(tenant, GRANTS["client_credentials"])
    fields = {"Authorization": f"Bearer {told['access_token']}"}
    through = await tenant.call("GET", ECHO, fields=fields)
    assert (through.status, through.json["org"]) == (200, tenant.name)
    async with tenant.stage.session.get(tenant.stage.sandbox.base_url + ECHO, headers=fields) as around:
        assert around.status == 401


async def test_refreshing_the_placeholder_costs_the_token_endpoint_nothing(tenant: Tenant) -> None:
    told = await log_in(tenant, GRANTS["authorization_code"])
    for _ in range(20):
        told = await log_in(tenant, {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]})
    assert tenant.token_requests == {"ok": 1}


@pytest.mark.parametrize(
    "target",
    ["/oauth/authorize?response_type=code&client_id=a%20b&redirect_uri=http%3A%2F%2Fx%2F&state=%2F+", "/logout?a=b"],
)
async def test_pages_for_people_are_redirected_to_the_login_host(tenant: Tenant, target: str) -> None:
    answer = await tenant.get(target)
    assert answer.status == 302
    assert answer.fields["Location"] == tenant.stage.sandbox.base_url + target
    assert tenant.token_requests == {}, "a login page needs no token"


async def test_a_person_logs_in_with_their_own_code_where_callers_tokens_are_kept(people: Tenant) -> None:
    """``authorization = "fill"``: through the proxy to the login host, and the API sees the person's own token."""
    client = people.org.clients[0]
    redirect_uri = "http://127.0.0.1:1/callback"
    query = f"response_type=code&client_id={client.id}&redirect_uri={redirect_uri}"
    page = await people.get(f"/oauth/authorize?{query}")
    async with people.stage.session.get(page.fields["Location"], allow_redirects=False) as consented:
        code = parse_qs(urlsplit(consented.headers["Location"]).query)["code"][0]
    basic = aiohttp.encode_basic_auth(client.id, client.secret or "")
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    told = await log_in(people, form, Authorization=basic)
    token = people.stage.sandbox.tokens.find(told["access_token"])
    assert token is not None
    own = await people.call("GET", ECHO, fields={"Authorization": f"Bearer {told['access_token']}"})
    assert own.json["tokenSerial"] == token.serial
    nobodys = await people.call("GET", ECHO, fields={"Authorization": "Bearer "})
    assert nobodys.json["tokenSerial"] != token.serial
    assert nobodys.json["org"] == people.name


async def test_a_persons_own_refused_token_is_their_affair(people: Tenant) -> None:
    answer = await people.call("GET", ECHO, fields={"Authorization": "Bearer a-token-that-nobody-issued"})
    assert answer.status == 401
    assert answer.proxy_status == ""

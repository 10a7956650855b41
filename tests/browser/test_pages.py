"""Real pages in a real browser: an allowed one works with the official SDK, and no other reaches anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.pages import Site, open_site
from tests.support.rig import Rig, rig
from tests.support.stages import PATIENCE, Stage, Tenant, make_orgs, open_stage

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.needs("chromium", "javascript-sdk"),
]

ALLOWED, FOREIGN = "app.example", "evil.example"

CALL_WITH_SDK = """
async ([port, path]) => {
  const platformClient = require('platformClient');
  const gateway = {protocol: 'http', host: '127.0.0.1', port, path_params_login: path, path_params_api: path};
  platformClient.ApiClient.instance.setGateway(gateway);
  try {
    const organization = await new platformClient.OrganizationApi().getOrganizationsMe();
    return {name: organization.name};
  } catch (error) {
    return {error: String(error.message || error)};
  }
}
"""
"""What the SDK needs, and what README tells: a gateway, no login and no token."""

FETCH = """
async ([url, options, names]) => {
  try {
    const answer = await fetch(url, options);
    const fields = Object.fromEntries(names.map(name => [name, answer.headers.get(name)]));
    return {status: answer.status, body: await answer.text(), fields};
  } catch (error) {
    return {error: String(error)};
  }
}
"""


@contextlib.asynccontextmanager
async def shown(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page in a profile of its own, so that no test sees what another one cached."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(url)
        yield page
    finally:
        await context.close()


# --- a page that is allowed ---


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(site: Site) -> AsyncIterator[Stage]:
    configuration = f'keep_warm = false\n[access]\nallowed_origins = ["{site.origin(ALLOWED)}"]\n'
    async with open_stage(make_orgs(["one", "two", "three"]), configuration, rate_limit=300) as stage:
        yield stage


@pytest.fixture
def tenant(stage: Stage) -> Tenant:
    return stage.tenant()


async def fetched(page: Page, url: str, options: dict[str, Any], *names: str) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate(FETCH, [url, options, names])
    return found


async def test_a_page_of_an_allowed_origin_works_with_the_official_sdk(
    browser: Browser, site: Site, tenant: Tenant
) -> None:
    async with shown(browser, f"{site.origin(ALLOWED)}/sdk") as page:
        told = await page.evaluate(CALL_WITH_SDK, [tenant.stage.proxy.port, tenant.path.strip("/")])
        assert told == {"name": tenant.name}
        # What a preflight is asked for: a body in JSON, the SDK's own field, and a method of no form.
        sent = {
            "method": "PUT",
            "headers": {"Content-Type": "application/json", "Genesys-App": "a", "Authorization": "Bearer x"},
            "body": '{"a": 1}',
        }
        url = f"{tenant.stage.proxy.url}{tenant.path}/api/v2/echo"
        names = ("ININ-Correlation-Id", "inin-ratelimit-count", "inin-ratelimit-allowed", "inin-ratelimit-reset")
        answer = await fetched(page, url, sent, *names)
        assert answer["status"] == 200
        assert '"PUT"' in answer["body"]
        assert "Bearer x" not in answer["body"]
        assert all(answer["fields"].values()), answer["fields"]
        refused = await fetched(page, f"{tenant.stage.proxy.url}/t/nobody/api", {}, "Proxy-Status")
        assert refused["status"] == 404
        assert refused["fields"]["Proxy-Status"].startswith("genesys-auth-proxy; error=")


async def test_a_page_of_a_foreign_origin_gets_nothing_with_the_official_sdk(
    browser: Browser, site: Site, tenant: Tenant
) -> None:
    async with shown(browser, f"{site.origin(FOREIGN)}/sdk") as page:
        told = await page.evaluate(CALL_WITH_SDK, [tenant.stage.proxy.port, tenant.path.strip("/")])
    assert "error" in told
    assert tenant.token_requests == {}, "nobody even asked for a token"


async def test_no_page_is_given_what_the_browser_keeps_for_the_proxys_name(
    browser: Browser, site: Site, tenant: Tenant
) -> None:
    """``credentials: include`` asks for cookies to be sent, and for an answer that allows it, which never comes."""
    async with shown(browser, site.origin(ALLOWED)) as page:
        url = f"{tenant.stage.proxy.url}{tenant.path}/api/v2/echo"
        assert (await fetched(page, url, {}))["status"] == 200
        assert "error" in await fetched(page, url, {"credentials": "include"})


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (b"", 502),
        (b"220 smtp.example\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf an answer", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf an answer", None),
    ],
    ids=["nothing", "garbage", "half a length", "half a chunk"],
)
async def test_a_page_sees_an_api_that_fails_as_an_answer_or_an_error(
    browser: Browser, site: Site, said: bytes, seen: int | None
) -> None:
    async with (
        rig(access={"allowed_origins": [site.origin(ALLOWED)]}) as proxy,
        shown(browser, site.origin(ALLOWED)) as page,
    ):
        asking = asyncio.gather(fetched(page, f"http://127.0.0.1:{proxy.port}/api/v2/x", {"method": "POST"}))
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(said)
        upstream.close()
        (got,) = await asking
        assert got.get("status") == seen
        assert ("error" in got) == (seen is None)
        assert proxy.api.connections == 1


# --- an attacker's page ---


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def target() -> AsyncIterator[Rig]:
    """A proxy whose API, login and sockets are listened to: a single connection would be seen."""
    async with rig() as proxy:
        yield proxy


async def untouched(proxy: Rig, before: int) -> None:
    """Requests were refused here since, and no byte went further."""
    async with asyncio.timeout(PATIENCE):
        while proxy.proxy.report().refused.get(403, 0) <= before:  # noqa: ASYNC110 - the proxy tells nobody
            await asyncio.sleep(0.05)
    assert proxy.api.connections == 0
    assert proxy.tokens.asked == 0
    assert proxy.proxy.report().tenants[0].tally.requests == {}


ATTACKS = {
    "a simple GET": "url => fetch(url, {mode: 'no-cors'}).catch(() => 0)",
    "a simple POST": "url => fetch(url, {mode: 'no-cors', method: 'POST', body: 'a=b'}).catch(() => 0)",
    "a HEAD": "url => fetch(url, {mode: 'no-cors', method: 'HEAD'}).catch(() => 0)",
    "a GET that wants the answer": "url => fetch(url).catch(() => 0)",
    "a request with a preflight": "url => fetch(url, {method: 'DELETE'}).catch(() => 0)",
    "a request with cookies": "url => fetch(url, {mode: 'no-cors', credentials: 'include'}).catch(() => 0)",
    "a picture": "url => { new Image().src = url }",
    "a script": "url => { const s = document.createElement('script'); s.src = url; document.body.append(s) }",
    "a style": "url => { const l = document.createElement('link'); l.rel = 'stylesheet'; l.href = url; "
    "document.head.append(l) }",
    "a frame": "url => { const f = document.createElement('iframe'); f.src = url; document.body.append(f) }",
    "a beacon": "url => { navigator.sendBeacon(url, 'grant_type=client_credentials') }",
    "events": "url => { new EventSource(url) }",
    "a socket": "url => { new WebSocket(url.replace('http', 'ws')) }",
    "a form": "url => { const f = document.createElement('form'); f.method = 'POST'; f.action = url; "
    "f.innerHTML = '<input name=grant_type value=client_credentials>'; document.body.append(f); f.submit() }",
    "a form of plain text": "url => { const f = document.createElement('form'); f.method = 'POST'; f.action = url; "
    "f.enctype = 'text/plain'; f.innerHTML = '<input name=a value=b>'; document.body.append(f); f.submit() }",
    "a link": "url => { location.href = url }",
    "a link in a window of its own": "url => { window.open(url, '_blank', 'noopener') }",
    "a frame without an origin": "url => { const f = document.createElement('iframe'); f.sandbox = 'allow-scripts'; "
    "f.srcdoc = `<script>fetch('${url}', {mode: 'no-cors', method: 'POST', body: 'a=b'})</script>`; "
    "document.body.append(f) }",
}
TARGETS = {"a simple POST": "/oauth/token", "a form": "/t/acme/oauth/token", "a socket": "/v1?deploymentId=d"}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attackers_page_reaches_nothing(browser: Browser, site: Site, target: Rig, attack: str) -> None:
    before = target.proxy.report().refused.get(403, 0)
    url = f"http://127.0.0.1:{target.port}{TARGETS.get(attack, '/t/acme/api/v2/messaging/contacts')}"
    async with shown(browser, site.origin(FOREIGN)) as page:
        await page.evaluate(ATTACKS[attack], url)
        await untouched(target, before)


@pytest.mark.parametrize("attack", ["a simple GET", "a form", "a socket", "a picture"])
async def test_a_page_on_a_name_below_localhost_is_foreign_as_well(
    browser: Browser, site: Site, target: Rig, attack: str
) -> None:
    before = target.proxy.report().refused.get(403, 0)
    async with shown(browser, site.origin("other.localhost")) as page:
        await page.evaluate(ATTACKS[attack], f"http://acme.localhost:{target.port}/api/v2/x")
        await untouched(target, before)


async def test_a_name_that_was_rebound_to_this_machine_reaches_nothing(browser: Browser, target: Rig) -> None:
    """The attacker's name leads to the proxy now: to the browser, its pages are the proxy's own."""
    before = target.proxy.report().refused.get(403, 0)
    async with shown(browser, f"http://{FOREIGN}:{target.port}/api/v2/organizations/me") as page:
        assert "allowed_hosts" in await page.content()
        for options in ({}, {"method": "POST", "body": "a"}, {"method": "DELETE"}):
            assert (await fetched(page, "/t/acme/api/v2/x", options))["status"] == 403
        await page.evaluate(ATTACKS["a socket"], f"http://{FOREIGN}:{target.port}/v1?deploymentId=d")
        await untouched(target, before + 4)


async def test_the_browser_does_what_the_attacks_are_made_of(browser: Browser, site: Site, target: Rig) -> None:
    """Or the tests above would tell nothing: the same page, at a proxy that allows it, gets through."""
    allowed = {"allowed_origins": [site.origin(FOREIGN)]}
    async with rig(access=allowed) as proxy, shown(browser, site.origin(FOREIGN)) as page:
        for number, attack in enumerate(("a simple POST", "a request with a preflight", "a socket"), 1):
            url = f"http://127.0.0.1:{proxy.port}/t/acme/api/v2/x"
            sending = asyncio.ensure_future(page.evaluate(ATTACKS[attack], url))  # noqa: TID251 - awaited below
            upstream = await proxy.api.accept()
            await upstream.head()
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await sending
            assert proxy.api.connections == number

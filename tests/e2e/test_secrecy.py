"""No token and no secret is in anything that the proxy says: log, error, metric, page, at any log level."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import signal
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from proxy.sandbox import Client, Org
from tests.support.stages import CONTACTS, ECHO, Answer, Stage, Tenant, open_stage, tenant_toml

pytestmark = pytest.mark.asyncio(loop_scope="module")

TELLING = 12
"""Characters of a secret in a row that are too many to be told."""

TOKEN_FAULTS = ["token_status", "token_html", "token_empty", "token_drop", "token_throttled"]
"""Of the sandbox; the tenants that meet them have their names."""

ADMIN_PAGES = ["/", "/healthz", "/startupz", "/readyz", "/metrics", "/status.json"]


def new_secret() -> str:
    return secrets.token_urlsafe(32)


KEY = new_secret()
PARAMETER = new_secret()
FIELD = new_secret()


@dataclass(slots=True)
class Listener:
    """Keeps all that was said and all that must not be.

    :ivar ours: the proxy's own answers, heads included
    """

    stage: Stage
    hidden: set[str] = field(default_factory=set)
    ours: list[str] = field(default_factory=list)

    def hide(self, secret: str) -> str:
        self.hidden.add(secret)
        return secret

    def hear(self, answer: Answer) -> Answer:
        head = "".join(f"{name}: {value}\n" for name, value in answer.fields.items())
        if "genesys-auth-proxy" in answer.proxy_status:
            self.ours.append(f"{head}\n{answer.body.decode()}")
        else:
            self.ours.append(head)
        return answer

    async def call(self, tenant: Tenant, method: str, target: str, **sent: Any) -> Answer:
        fields = {"X-Proxy-Key": KEY, **sent.pop("fields", {})}
        return self.hear(await tenant.call(method, target, fields=fields, **sent))

    async def raw(self, request: str) -> None:
        self.hear(await self.stage.raw(request.encode("latin-1")))

    async def admin(self, method: str, target: str) -> None:
        answer = await self.stage.admin(method, target)
        self.ours.append(answer.body.decode())

    def said(self) -> str:
        return "\n".join([self.stage.proxy.output, *self.ours])


def forms(secret: str) -> Iterable[str]:
    """How a secret may look in a text."""
    yield secret
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    for offset in range(3):  # base64 of a text that has it at any place
        coded = base64.b64encode(b"\0" * offset + secret.encode()).decode()
        yield coded[4 if offset else 0 : len(coded) // 4 * 4 - 4]


def told(text: str, hidden: Iterable[str]) -> list[str]:
    """The secrets of which a telling part is in a text."""
    parts = {text[at : at + TELLING] for at in range(len(text) - TELLING + 1)}

    def is_told(secret: str) -> bool:
        return any(form[at : at + TELLING] in parts for form in forms(secret) for at in range(len(form) - TELLING + 1))

    return [secret for secret in hidden if is_told(secret)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True], ids=["opaque", "jwt"])
async def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    file = tmp_path_factory.mktemp("secret") / "secret"
    orgs = tuple(
        Org(
            f"id-{name}",
            name,
            (Client(f"{name}-client", new_secret(), refresh_token=new_secret()),),
            (f"{name}-deployment",),
        )
        for name in ("plain", "revoked", "refused", "slow", "stranger", "from-file", "people", "alone", *TOKEN_FAULTS)
    )

    def section(org: Org) -> str:
        keys: dict[str, object] = {"authorization": "fill" if org.name == "people" else "replace"}
        if org.name == "from-file":
            file.write_text(f"{org.clients[0].secret}\n", "utf-8")
            text = tenant_toml(org, **keys)
            return text.replace(json.dumps(org.clients[0].secret), f'{{ file = "{file}" }}')
        if org.name == "stranger":
            keys["client_secret"] = STRANGERS
        if org.name == "alone":
            keys["login_url"] = "http://127.0.0.1:1"
        return tenant_toml(org, **keys)

    configuration = (
        f'keep_warm = false\nresource_server = "partner"\ntoken_parameters = {{ orgTicket = "{PARAMETER}" }}\n'
        f'token_headers = {{ X-Api-Key = "{FIELD}" }}\n[limits]\nrequest_timeout = 3\nreplay_buffer = 65536\n'
        '[log]\naccess = "all"\n'
        f'[access]\ncaller_keys = ["{KEY}"]\n'
    )
    options = ("--log-level", "debug")
    async with open_stage(orgs, configuration, *options, tenants=section, jwt_tokens=request.param) as stage:
        yield stage


STRANGERS = new_secret()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listener(stage: Stage) -> Listener:
    """After everything has happened that a proxy could talk about."""
    listener = Listener(stage, {KEY, PARAMETER, FIELD, STRANGERS})
    tenants = {org.name: Tenant(stage, org) for org in stage.sandbox.options.orgs}
    for org in stage.sandbox.options.orgs:
        listener.hidden |= {org.clients[0].secret or "", org.clients[0].refresh_token or ""}
    await _work(listener, tenants)
    await _fail(listener, tenants)
    await _log_in(listener, tenants["people"])
    await _be_a_guest(listener, tenants["plain"])
    await _misspell(listener, tenants["plain"])
    await _misconfigure(listener)
    for page in ADMIN_PAGES:
        await listener.admin("GET", page)
    await listener.admin("POST", "/tenants/plain/refresh")
    await listener.admin("POST", "/tenants/stranger/refresh")
    await listener.admin("POST", f"/tenants/{KEY}/refresh")
    listener.hidden |= {token.value for token in stage.sandbox.tokens.issued()}
    return listener


async def _work(listener: Listener, tenants: dict[str, Tenant]) -> None:
    for name in ("plain", "from-file", "revoked"):
        assert (await listener.call(tenants[name], "GET", ECHO)).status == 200
    in_path = await listener.stage.call("GET", f"/k/{KEY}/t/plain{ECHO}")
    assert listener.hear(in_path).status == 200
    tenants["revoked"].revoke()
    assert (await listener.call(tenants["revoked"], "POST", CONTACTS, json={})).status == 200
    tenants["revoked"].revoke()
    assert (await listener.call(tenants["revoked"], "PUT", ECHO, data=b"x" * 70_000)).status == 401
    tenants["refused"].fault("api_unauthorized")
    for _ in range(3):
        assert (await listener.call(tenants["refused"], "GET", ECHO)).status == 401


async def _fail(listener: Listener, tenants: dict[str, Tenant]) -> None:
    async def get(name: str, status: int) -> None:
        assert (await listener.call(tenants[name], "GET", ECHO)).status == status

    tenants["slow"].fault("token_latency", 4, count=1)
    for fault in TOKEN_FAULTS:
        tenants[fault].fault(fault)
    tenants["plain"].fault("api_drop", "before")
    tenants["from-file"].fault("api_latency", 4, count=1)
    await asyncio.gather(
        *(get(name, 503) for name in ("alone", "slow", *TOKEN_FAULTS)),
        *(get("stranger", 502), get("plain", 502), get("from-file", 504)),
    )
    tenants["plain"].mend()


async def _log_in(listener: Listener, people: Tenant) -> None:
    client = people.org.clients[0]
    basic = aiohttp.encode_basic_auth(client.id, client.secret or "")
    for form in (
        {"grant_type": "refresh_token", "refresh_token": client.refresh_token},
        {"grant_type": "client_credentials"},
        {"grant_type": "password", "username": "u", "password": listener.hide(new_secret())},
        {"grant_type": "authorization_code", "code": listener.hide(new_secret()), "redirect_uri": "http://localhost/"},
    ):
        answer = await listener.call(people, "POST", "/oauth/token", data=form, fields={"Authorization": basic})
        for name in ("access_token", "refresh_token"):
            if answer.status == 200 and name in answer.json and "proxy" not in answer.json[name]:
                own = listener.hide(answer.json[name])
                await listener.call(people, "GET", ECHO, fields={"Authorization": f"Bearer {own}"})
    await listener.call(people, "GET", f"/oauth/authorize?state={listener.hide(new_secret())}")
    # It goes back to the one who sent it.
    listener.ours.pop()


async def _be_a_guest(listener: Listener, tenant: Tenant) -> None:
    token = "/api/v2/webdeployments/token"
    sent = {"deploymentId": tenant.org.deployments[0], "oauth": {"code": listener.hide(new_secret())}}
    guest = (await listener.call(tenant, "POST", f"{token}/oauthcodegrantjwtexchange", json=sent)).json
    listener.hidden |= set(guest.values())
    for jwt in (guest["jwt"], listener.hide(f"e30.{new_secret()}.{new_secret()}")):
        fields = {"Authorization": f"Bearer {jwt}"}
        await listener.call(tenant, "GET", "/api/v2/webmessaging/messages", fields=fields)
    await listener.call(tenant, "POST", f"{token}/refresh", json={"refreshToken": listener.hide(new_secret())})
    proxy = listener.stage.proxy
    url = f"ws://{proxy.host}:{proxy.port}{tenant.path}/v1?deploymentId={tenant.org.deployments[0]}"
    async with connect(url, additional_headers={"X-Proxy-Key": KEY}, proxy=None) as socket:
        await socket.send(json.dumps({"action": "onMessage", "token": listener.hide(new_secret())}))
        await asyncio.wait_for(socket.recv(), 5)
    with pytest.raises(InvalidStatus):
        await connect(url, additional_headers={"X-Proxy-Key": listener.hide(new_secret())}, proxy=None)


async def _misspell(listener: Listener, tenant: Tenant) -> None:
    """Requests that are refused, with a secret wherever one can stand."""
    where, host, own = f"{tenant.path}{ECHO}", "Host: localhost\r\n", listener.hide
    key = f"X-Proxy-Key: {KEY}\r\n"
    for request in (
        f"GET {where} HTTP/1.1\r\n{host}X-Proxy-Key: {own(new_secret())}\r\n\r\n",
        f"GET /k/{own(new_secret())}{where} HTTP/1.1\r\n{host}\r\n",
        f"GET /k/{KEY}/t/{own(new_secret())}/api HTTP/1.1\r\n{host}\r\n",
        f"GET /api HTTP/1.1\r\n{host}{key}X-Genesys-Tenant: {own(new_secret())}\r\n\r\n",
        f"GET {where} HTTP/1.1\r\nHost: {own(new_secret())}.example\r\n{key}\r\n",
        f"GET {where} HTTP/1.1\r\nHost: user:{own(new_secret())}@localhost\r\n{key}\r\n",
        f"GET {where} HTTP/1.1\r\n{host}{key}Origin: https://{own(new_secret())}\r\n\r\n",
        f"GET {where} HTTP/1.1\r\n{host}{key}Authorization: Bearer {own(new_secret())}\x01\r\n\r\n",
        f"GET {where} HTTP/1.1\r\n{host}{key}Authorization {own(new_secret())}\r\n\r\n",
        f"{own(new_secret())} HTTP/1.1\r\n\r\n",
        f"TRACE /{own(new_secret())} HTTP/1.1\r\n{host}{key}\r\n",
        f"DELETE {tenant.path}/api/v2/tokens/me?{own(new_secret())} HTTP/1.1\r\n{host}{key}\r\n",
        f"GET http://user:{own(new_secret())}@localhost{where} HTTP/1.1\r\n{host}{key}\r\n",
        f"POST {where} HTTP/1.1\r\n{host}{key}Transfer-Encoding: chunked\r\n\r\n{own(new_secret())}\r\n",
        f"GET {where} HTTP/1.1\r\n{host}{key}X: {own(new_secret())}{'x' * 70_000}\r\n\r\n",
        f"GET {where}?{own(new_secret())} HTTP/1.1\r\n{host}{key}Content-Length: {own(new_secret())}\r\n\r\n",
    ):
        await listener.raw(request)


async def _misconfigure(listener: Listener) -> None:
    """Reloads of a file that is wrong where the secrets stand; each is told, and none with its secret."""
    proxy, own = listener.stage.proxy, listener.hide
    right = proxy.configuration.read_text("utf-8")
    for keys in (
        f'client_secret = ["{own(new_secret())}"]',
        # A name would be told; this can't be one.
        f'client_secret = {{ env = "-{own(new_secret())}" }}',
        f'client_secret = {{ value = "{own(new_secret())}" }}',
        f'client_sceret = "{own(new_secret())}"',
        f'client_secret = "{own(new_secret())}" oh',
        f'client_secret = "b"\napi_url = "https://user:{own(new_secret())}@x.example"',
        f'client_secret = "b"\ntoken_headers = {{ Authorization = "{own(new_secret())}" }}',
        f'client_secret = "b"\ntoken_parameters = {{ client_secret = "{own(new_secret())}" }}',
    ):
        proxy.configuration.write_text(f'{right}\n[tenants.a]\nclient_id = "a"\n{keys}\n', "utf-8")
        answer = await listener.stage.admin("POST", "/reload")
        assert 400 <= answer.status < 500, keys
        listener.ours.append(answer.body.decode())
    short = own(new_secret())[:13]
    proxy.configuration.write_text(right.replace(f'["{KEY}"]', f'["{KEY}", "{short}"]'), "utf-8")
    proxy.signal(signal.SIGHUP)
    await proxy.said("caller_keys")
    proxy.configuration.write_text(right, "utf-8")


async def test_a_part_of_a_secret_is_found_in_any_form() -> None:
    """Or the tests below would tell nothing."""
    secret = new_secret()
    basic = base64.b64encode(f"client:{secret}".encode()).decode()
    for text in (secret, f"x{secret[5:20]}x", quote_plus(secret), f"Basic {basic}"):
        assert told(f"so it said: {text}, and more", [secret]) == [secret]
    assert told("nothing of it", [secret]) == []


async def test_the_log_tells_no_secret(listener: Listener) -> None:
    log = listener.stage.proxy.output
    assert "new token" in log
    assert "invalid_client" in log
    assert len(listener.hidden) > 50
    assert told(log, listener.hidden) == []


async def test_no_answer_and_no_admin_page_tells_a_secret(listener: Listener) -> None:
    assert len(listener.ours) > 50
    assert told("\n".join(listener.ours), listener.hidden) == []


async def test_the_configuration_is_not_readable_over_the_admin_port(listener: Listener) -> None:
    for target in ("/config", "/genesys-auth-proxy.toml", "/../genesys-auth-proxy.toml", "/tenants/plain", "/debug"):
        answer = await listener.stage.admin("GET", target)
        assert answer.status == 404
        assert told(answer.body.decode(), listener.hidden) == []

"""The whole arrangement of an acceptance test: a sandbox, the proxy in front of it, and a client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.sandbox import Client, Org, Sandbox, SandboxOptions
from tests.support.proxies import RunningProxy, run_proxy

ECHO = "/api/v2/echo"
"""Of the sandbox: tells what arrived there."""
WHO = "/api/v2/organizations/me"
CONTACTS = "/api/v2/messaging/contacts"

PATIENCE = 30.0
"""Seconds for anything that a test waits for; a machine under load needs some of them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got, and after how many seconds."""

    status: int
    fields: CIMultiDictProxy[str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def proxy_status(self) -> str:
        """What the proxy says of it (RFC 9209); empty where it says nothing."""
        return self.fields.get("Proxy-Status", "")


def make_orgs(names: Iterable[str]) -> tuple[Org, ...]:
    """Orgs that nobody else knows, each with one OAuth client and one deployment."""
    return tuple(
        Org(
            f"id-of-{name}",
            name,
            (Client(f"{name}-client", f"{name}-client-secret", refresh_token=f"{name}-first-refresh-token"),),
            (f"{name}-deployment",),
        )
        for name in names
    )


def tenant_toml(org: Org, **keys: object) -> str:
    """A section for an org, with its client and what else is given."""
    client = org.clients[0]
    values = {"client_id": client.id, "client_secret": client.secret, **keys}
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    return f"[tenants.{org.name}]\n{lines}"


def ports_toml(base_url: str) -> str:
    """Free ports, and all upstreams at one base URL."""
    return (
        '[listen]\nhost = "127.0.0.1"\nport = 0\n[admin]\nhost = "127.0.0.1"\nport = 0\n'
        f'[defaults]\napi_url = "{base_url}"\nlogin_url = "{base_url}"\n'
    )


class Tenant:
    """One org, met through the proxy.

    :ivar org: as the sandbox plays it
    :ivar path: what its targets begin with
    """

    def __init__(self, stage: Stage, org: Org) -> None:
        self.org = org
        self.name = org.name
        self.path = f"/t/{org.name}"
        self.stage = stage

    async def call(
        self,
        method: str,
        target: str,
        *,
        fields: Mapping[str, str] | None = None,
        data: Any = None,
        json: Any = None,
    ) -> Answer:
        return await self.stage.call(method, self.path + target, fields=fields, data=data, json=json)

    async def get(self, target: str = ECHO) -> Answer:
        return await self.call("GET", target)

    @property
    def token_requests(self) -> Counter[str]:
        """Those that the sandbox has answered, by outcome."""
        found: Counter[str] = Counter()
        for (org, _, outcome), count in self.stage.sandbox.ledger.token_requests.items():
            if org == self.name:
                found[outcome] += count
        return found

    @property
    def refused(self) -> dict[str, int]:
        """Calls that the sandbox has answered with 401, by reason."""
        return self.stage.sandbox.ledger.refused(self.name)

    def fault(self, name: str, value: object = None, *, count: int | None = None) -> None:
        """Makes something go wrong for this org alone."""
        self.stage.sandbox.faults.set(name, value, count=count, org=self.name)

    def mend(self) -> None:
        """Ends the faults of this org."""
        faults = self.stage.sandbox.faults
        others = [fault for fault in faults.as_json() if fault["org"] != self.name]
        faults.clear()
        for fault in others:
            faults.set(**fault)

    async def met(self, name: str) -> None:
        """Waits until a fault with a count has been met for the last time."""
        await until(lambda: all((f["name"], f["org"]) != (name, self.name) for f in self._faults()))

    def _faults(self) -> list[dict[str, Any]]:
        return self.stage.sandbox.faults.as_json()

    def revoke(self) -> None:
        """Revokes its access tokens upstream."""
        self.stage.sandbox.revoke(self.name)

    async def status(self) -> Any:
        """Its entry in the proxy's ``/status.json``."""
        tenants = (await self.stage.admin("GET", "/status.json")).json["tenants"]
        return next(tenant for tenant in tenants if tenant["name"] == self.name)


class Stage:
    """A sandbox of many orgs, a proxy with a tenant for each, and a client without limits of its own."""

    def __init__(self, sandbox: Sandbox, proxy: RunningProxy, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.proxy = proxy
        self.session = session
        self._orgs = iter(sandbox.options.orgs)

    def tenant(self) -> Tenant:
        """One that no test has used yet, so that no test's tokens, faults and counts are another's."""
        return Tenant(self, next(self._orgs))

    async def call(
        self,
        method: str,
        target: str,
        *,
        fields: Mapping[str, str] | None = None,
        data: Any = None,
        json: Any = None,
    ) -> Answer:
        """Sends a request to the proxy; the target goes out as it is written."""
        return await self._send(method, self.proxy.url + target, fields, data, json)

    async def raw(self, request: bytes, *, half_close: bool = False) -> Answer:
        """Sends bytes on a connection of their own; the answer needs a Content-Length."""
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection(self.proxy.host, self.proxy.port)
        try:
            writer.write(request)
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
                fields = CIMultiDict((name, value.strip()) for name, _, value in (li.partition(":") for li in lines))
                body = await reader.readexactly(int(fields["Content-Length"]))
        finally:
            writer.transport.abort()
        return Answer(int(line.split()[1]), CIMultiDictProxy(fields), body, time.perf_counter() - started)

    async def connections(self) -> int:
        """Clients' connections to the proxy."""
        found: int = (await self.admin("GET", "/status.json")).json["connections"]["client"]
        return found

    async def admin(self, method: str, target: str, fields: Mapping[str, str] | None = None) -> Answer:
        """Sends a request to the admin port."""
        return await self._send(method, self.proxy.admin_url + target, fields, None, None)

    async def _send(self, method: str, url: str, fields: Mapping[str, str] | None, data: Any, json: Any) -> Answer:
        started = time.perf_counter()
        async with self.session.request(
            method, URL(url, encoded=True), headers=fields, data=data, json=json, allow_redirects=False
        ) as response:
            body = await response.read()
        return Answer(response.status, response.headers, body, time.perf_counter() - started)


@contextlib.asynccontextmanager
async def open_stage(
    orgs: tuple[Org, ...],
    configuration: str = "",
    *proxy_options: str,
    tenants: Callable[[Org], str] = tenant_toml,
    **sandbox_options: Any,
) -> AsyncIterator[Stage]:
    """Opens a stage for as long as the context lasts.

    :param configuration: sections that stand behind ``[listen]``, ``[admin]`` and ``[defaults]``; keys before the
        first of them belong to ``[defaults]``
    :param proxy_options: of the proxy's command line
    :param tenants: writes an org's section
    :param sandbox_options: as in ``SandboxOptions``; there are no rate limits unless they name some
    """
    options = SandboxOptions(**{"orgs": orgs, "rate_limit": None, "org_rate_limit": None, **sandbox_options})
    async with Sandbox(options) as sandbox:
        text = "\n".join([ports_toml(sandbox.base_url) + configuration, *map(tenants, orgs)])
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            run_proxy(text, "--log-level", "debug", *proxy_options) as proxy,
            aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
        ):
            yield Stage(sandbox, proxy, session)
            _told_none(proxy.output, sandbox)


def _told_none(log: str, sandbox: Sandbox) -> None:
    """Nothing that was issued, and no secret of a client, is in what the proxy wrote, at its most talkative."""
    secrets = {token.value for token in sandbox.tokens.issued()}
    for org in sandbox.options.orgs:
        secrets |= {secret for client in org.clients for secret in (client.secret, client.refresh_token) if secret}
    assert not [secret for secret in secrets if secret in log]


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE) -> None:
    """Waits until something has come about that no event of ours tells of.

    :raises TimeoutError: it has not
    """
    async with asyncio.timeout(seconds):
        while not (await found if isawaitable(found := condition()) else found):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)

"""What ``check`` asks about one tenant: its token, and what the API says of that token."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from proxy import app
from proxy.core import tokens
from proxy.errors import TokenError

if TYPE_CHECKING:
    from proxy.settings import Settings, TenantSettings

AT_ONCE = 8
"""Tenants asked at the same time; a thousand at once would be throttled."""

TIMEOUT = 15.0
"""Seconds for one call to the API; the token endpoint has its own."""

LONGEST_ANSWER = 1_048_576
"""Bytes; both resources are small."""

_WHO = ("/api/v2/tokens/me", "/api/v2/organizations/me")
"""Resources that tell the token's organization; an org may have closed the first to its clients."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a tenant; what stayed unknown is None."""

    tenant: str
    upstream: str
    problem: str | None
    """A sentence that says what is wrong and what to do; None if nothing is."""
    lifetime: float | None = None
    """Seconds that the token lives."""
    organization: str | None = None
    """Its name, or its id where it has none."""
    scope: tuple[str, ...] | None = None


async def look_at(settings: Settings, wanted: list[TenantSettings]) -> list[Finding]:
    """What there is to know of each tenant, in their order."""
    probe = _Probe(settings)
    room = asyncio.Semaphore(AT_ONCE)

    async def look(tenant: TenantSettings) -> Finding:
        async with room:
            return await probe.look(tenant)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look(tenant), name=f"check of {tenant.name}") for tenant in wanted]
    finally:
        await probe.close()
    return [task.result() for task in tasks]


class _Probe:
    """Asks about tenants of some settings; to be closed."""

    def __init__(self, settings: Settings) -> None:
        self._endpoint = app.token_endpoint(settings)
        self._tls = self._endpoint.tls
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT, connect=settings.limits.connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()
        await self._endpoint.close()

    async def look(self, tenant: TenantSettings) -> Finding:
        """Gets a token as the proxy would, and compares what the API says of it with the configuration."""
        upstream = tenant.region or tenant.api_url.authority
        try:
            answer = await self._endpoint.ask(app.client_of(tenant))
        except TokenError as error:
            return Finding(tenant.name, upstream, str(error).removeprefix(f"Tenant {tenant.name}: "))
        lifetime = tokens.lifetime(answer.expires_in, server_time=answer.server_time or time.time())
        try:
            told = await self._who(tenant, answer.access_token)
        except _NoAnswer as error:
            return Finding(tenant.name, upstream, str(error), lifetime)
        organization = _entity(told.get("organization")) if "organization" in told else _entity(told)
        scope = _texts(told.get("authorizedScope"))
        return Finding(
            tenant.name,
            upstream,
            _wrong_organization(tenant, organization) or _wrong_scope(tenant, scope),
            lifetime,
            organization.get("name") or organization.get("id"),
            scope,
        )

    async def _who(self, tenant: TenantSettings, token: str) -> dict[str, Any]:
        """What the first resource that answers says; empty if this client may ask neither.

        :raises _NoAnswer: the token doesn't open the API
        """
        statuses = []
        for path in _WHO:
            status, code, answer = await self._get(tenant, path, token)
            if status == 200:
                if answer is None:
                    raise _NoAnswer(f"{tenant.api_url} answers with no JSON object; look for a gateway or a portal.")
                return answer
            if status not in (403, 404):
                raise _NoAnswer(_refusal(status, code))
            statuses.append(status)
        if statuses == [404, 404]:
            raise _NoAnswer(f"{tenant.api_url} knows neither {_WHO[0]} nor {_WHO[1]} (404); check api_url.")
        return {}

    async def _get(self, tenant: TenantSettings, path: str, token: str) -> tuple[int, str, dict[str, Any] | None]:
        """Status, error code, and the JSON object if the answer is one."""
        url = f"{tenant.api_url}{path}"
        try:
            async with self._session.get(
                url,
                headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
                ssl=self._tls,
                allow_redirects=False,
                **self._endpoint.detour(url),
            ) as response:
                body = await _read(response)
        except TimeoutError:
            raise _NoAnswer("the API gave no answer in time; check region, api_url and network.") from None
        except aiohttp.ClientConnectorCertificateError:
            raise _NoAnswer("the API's certificate is not trusted; name your CA in upstream.ca_file.") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = type(error).__name__
            raise _NoAnswer(f"the API gave no answer ({reason}); check region, api_url and network.") from None
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            return response.status, "", None
        return response.status, _word(answer.get("code")), answer


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LONGEST_ANSWER:
            raise aiohttp.ClientPayloadError("too long")
    return bytes(body)


class _NoAnswer(Exception):
    """The API can't be asked with this token; the message is the diagnosis."""


def _refusal(status: int, code: str) -> str:
    what = f"{status} {code}".strip()
    if status == 401:
        return (
            f"the API refuses the token that login has just issued ({what}); api_url and login_url must be of "
            "the same region."
        )
    if status == 429:
        return f"the API is throttling this client ({what}); ask again later."
    if 300 <= status < 400:
        return f"the API redirects ({what}), and a token never follows; check region and api_url."
    return f"the API answers {what} where it should tell the token's organization."


def _wrong_organization(tenant: TenantSettings, organization: dict[str, str]) -> str | None:
    if tenant.org_id is None or organization.get("id") == tenant.org_id:
        return None
    if "id" not in organization:
        return "the API does not tell this client its organization (403), so that org_id can't be compared."
    name = organization.get("name")
    found = f"{organization['id']} ({name})" if name else organization["id"]
    return f"the token belongs to organization {found}, and org_id says {tenant.org_id}; is it another org's client?"


def _wrong_scope(tenant: TenantSettings, scope: tuple[str, ...] | None) -> str | None:
    if not scope:
        return None  # not told, or a client whose roles alone decide
    lacking = [wanted for wanted in tenant.scope if wanted not in scope]
    if not lacking:
        return None
    return f"the token lacks the scope {' '.join(lacking)}; add it to the OAuth client in the org's admin pages."


def _entity(value: object) -> dict[str, str]:
    """``id`` and ``name`` of an entity, as far as they are texts that may stand on a terminal."""
    if not isinstance(value, dict):
        return {}
    return {key: value[key] for key in ("id", "name") if isinstance(value.get(key), str) and value[key].isprintable()}


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(str(item) for item in value) if isinstance(value, list) else None


def _word(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,80}", value) else ""

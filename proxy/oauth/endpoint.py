"""The token endpoint's client: one POST, bounded in time and size, that follows no redirect."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypedDict

import aiohttp
from yarl import URL

from proxy.core import guests
from proxy.core.answers import LONGEST_ANSWER, TokenAnswer, read_answer, unreachable
from proxy.core.detour import DIRECT, Detours
from proxy.core.grants import Client, Code, token_request
from proxy.core.secret import Secret
from proxy.errors import TokenUnavailable
from proxy.oauth.assertions import evidence

REQUEST_TIMEOUT = 10.0
"""Seconds for a whole token request, well inside the SDKs' patience of 16 s."""


AT_ONCE = 16
"""Requests under way at the same time at one login host, those of callers who wait included."""


class Detour(TypedDict, total=False):
    """What aiohttp is told of a forward proxy."""

    proxy: str
    proxy_headers: Mapping[str, str]


class TokenEndpoint:
    """Asks any tenant's token endpoint; one per program, for its connections.

    :ivar tls: verifies every https endpoint; may be replaced
    :ivar connect_timeout: seconds for name, connection and TLS together; may be replaced
    :ivar detours: the way to each endpoint; may be replaced
    """

    def __init__(self, tls: ssl.SSLContext, connect_timeout: float, detours: Detours = DIRECT) -> None:
        self.tls = tls
        self.detours = detours
        self.connect_timeout = connect_timeout
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, AT_ONCE))
        # Where a server closes a kept connection just as a refresh token is sent, nobody can tell whether it took it.
        self._once = _session(force_close=True)
        self._kept = _session(force_close=False)

    def detour(self, url: str) -> Detour:
        """How aiohttp asks a URL: through the forward proxy, or without one."""
        parts = URL(url)
        proxy = self.detours.to(parts.host or "", parts.port or 443)
        if proxy is None:
            return {}
        credential = {} if proxy.credential is None else {"Proxy-Authorization": proxy.credential.reveal()}
        return {"proxy": str(proxy), "proxy_headers": credential}

    def turn(self, client: Client) -> asyncio.Semaphore:
        """Waits until the client's login host has room for one more request."""
        return self._turns[client.login]

    async def ask(
        self, client: Client, refresh_token: Secret | None = None, *, code: Code | None = None
    ) -> TokenAnswer:
        """Asks for a token.

        :param refresh_token: the one to show, for the grant ``refresh_token``
        :param code: the one to redeem, for the grant ``authorization_code``
        :raises TokenUnavailable: no answer, or one that says "later"
        :raises TokenRefused: the endpoint refuses this client or request
        """
        request = token_request(client, await evidence(client, refresh_token, code))
        try:
            reply = await self.send("POST", request.url, request.headers, request.body, once=not client.repeatable)
        except NoReply as none:
            raise unreachable(client, str(none)) from None
        return read_answer(client, reply.status, reply.headers, reply.body, time.time())

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None, *, once: bool = False
    ) -> Reply:
        """One request to a login or API host, bounded in time and size; no redirect is followed.

        :param once: it holds what can be used once, so it goes out on a connection of its own
        :raises NoReply: no answer, or none that can be read
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, connect=self.connect_timeout)
        try:
            async with (self._once if once else self._kept).request(
                method,
                url,
                data=body,
                headers=headers,
                ssl=self.tls,
                allow_redirects=False,
                timeout=timeout,
                **self.detour(url),
            ) as response:
                return Reply(response.status, response.headers, await _read(response))
        except (aiohttp.ClientError, OSError, ValueError, _TooLong) as error:
            raise NoReply(_reason(error, URL(url))) from None

    async def close(self) -> None:
        """Closes the connections; what is being asked fails."""
        await self._once.close()
        await self._kept.close()


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Turns bound the connections; in the connector's own queue the time for connecting would run.
        connector=aiohttp.TCPConnector(limit=0, force_close=force_close),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Case-insensitive."""
    body: bytes = field(repr=False)


class NoReply(Exception):
    """There is no answer; the message says why, in a few words."""


@dataclass(frozen=True, slots=True)
class GuestApi:
    """Refreshes guests' JWTs at one tenant's API."""

    endpoint: TokenEndpoint
    tenant: str
    api_url: str

    async def refresh(self, refresh_token: Secret) -> guests.RefreshedJwt:
        """A new JWT.

        :raises TokenUnavailable: none for now
        :raises TokenRefused: this refresh token brings none any more
        """
        url = f"{self.api_url}/api/v2/webdeployments/token/refresh"
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            reply = await self.endpoint.send("POST", url, headers, guests.refresh_request(refresh_token), once=True)
        except NoReply as none:
            message = f"Tenant {self.tenant}: a guest's refresh got no answer ({none})."
            raise TokenUnavailable(message, error="unreachable") from None
        return guests.read_refreshed(self.tenant, reply.status, reply.headers, reply.body, time.time())


def _reason(error: Exception, url: URL) -> str:
    """Why there is no answer, in words of ours: the library's may repeat what was sent."""
    where = f"{url.host_subcomponent}:{url.port}"
    match error:
        case aiohttp.ConnectionTimeoutError():
            return f"no connection to {where} in time"
        case TimeoutError():
            return f"no answer in time from {where}"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {where} is not trusted; name your CA in upstream.ca_file"
        case aiohttp.ClientProxyConnectionError():
            return "the forward proxy can't be reached; see upstream.proxy"
        case aiohttp.ClientHttpProxyError():
            return f"the forward proxy answered {error.status}; see upstream.proxy"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} is not found"
        case aiohttp.ClientSSLError():
            return f"TLS with {where} failed"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return f"{where} refuses connections"
        case aiohttp.ClientConnectorError():
            return f"{where} can't be reached"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | OSError():
            return f"{where} broke off"
        case _TooLong():
            return f"its answer is longer than {LONGEST_ANSWER} bytes"
    return f"what {where} answers is no HTTP"


class _TooLong(Exception):
    """Nothing that a token endpoint answers."""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LONGEST_ANSWER:
            raise _TooLong
    return bytes(body)

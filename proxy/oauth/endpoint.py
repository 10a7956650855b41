"""The token endpoint's client: one POST, bounded in time and size, that follows no redirect."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import TypedDict

import aiohttp
from yarl import URL

from proxy.core.answers import LONGEST_ANSWER, TokenAnswer, read_answer, unreachable
from proxy.core.detour import DIRECT, Detours
from proxy.core.grants import Client, token_request
from proxy.core.secret import Secret
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
        self._session = aiohttp.ClientSession(
            # Turns bound the connections; in the connector's own queue the time for connecting would run.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )

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

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        """Asks for a token.

        :param refresh_token: the one to show, for the grant ``refresh_token``
        :raises TokenUnavailable: no answer, or one that says "later"
        :raises TokenRefused: the endpoint refuses this client or request
        """
        request = token_request(client, await evidence(client, refresh_token))
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, connect=self.connect_timeout)
        try:
            async with self._session.post(
                request.url,
                data=request.body,
                headers=request.headers,
                ssl=self.tls,
                allow_redirects=False,
                timeout=timeout,
                **self.detour(request.url),
            ) as response:
                body = await _read(response)
        except TimeoutError:
            raise unreachable(client, "no answer in time") from None
        except aiohttp.ClientConnectorCertificateError:
            raise unreachable(client, "its certificate is not trusted; name your CA in upstream.ca_file") from None
        except aiohttp.ClientProxyConnectionError:
            raise unreachable(client, "the forward proxy can't be reached; see upstream.proxy") from None
        except aiohttp.ClientHttpProxyError as error:
            raise unreachable(client, f"the forward proxy answered {error.status}; see upstream.proxy") from None
        except _TooLong:
            raise unreachable(client, f"its answer is longer than {LONGEST_ANSWER} bytes") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The library's own text may repeat what was sent.
            raise unreachable(client, type(error).__name__) from None
        return read_answer(client, response.status, response.headers, body, time.time())

    async def close(self) -> None:
        """Closes the connections; what is being asked fails."""
        await self._session.close()


class _TooLong(Exception):
    """Nothing that a token endpoint answers."""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LONGEST_ANSWER:
            raise _TooLong
    return bytes(body)

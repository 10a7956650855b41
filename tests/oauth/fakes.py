"""A token endpoint that does as a test says, and what else a source is made of."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client
from proxy.core.lineage import Record
from proxy.core.report import Tally
from proxy.core.secret import Secret
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.line import Line
from proxy.oauth.source import TokenSource
from proxy.oauth.store.memory import MemoryStore
from tests.oauth.virtual_time import VirtualClock

SECRET = "hunter2"

LIFETIME = 3600


def client(tenant: str = "acme", *, login: str = "login.example.com", grant: str = "client_credentials") -> Client:
    return Client(
        tenant=tenant,
        token_url=f"https://{login}/oauth/token",
        grant=grant,
        client_id=f"{tenant}-id",
        client_secret=Secret(SECRET),
        refresh_token=Secret("refresh-0") if grant == "refresh_token" else None,
    )


def issued(access_token: str, expires_in: object = LIFETIME, *, server_time: float | None = None) -> TokenAnswer:
    return TokenAnswer(access_token, expires_in, server_time)


def unavailable(retry_after: float | None = None) -> TokenUnavailable:
    return TokenUnavailable("Tenant acme: it is down.", error="http_503", retry_after=retry_after)


def refused() -> TokenRefused:
    return TokenRefused("Tenant acme: unknown client.", error="invalid_client")


class ScriptedEndpoint:
    """Answers with what the script holds, in order, and with a new token of an hour once that is used up.

    :ivar script: the answers to come, whoever asks
    :ivar always: what a tenant is answered once the script is used up
    :ivar otherwise: makes what any other tenant is answered then
    :ivar latency: seconds that each takes
    :ivar open: while it is not set, no answer is given
    :ivar asked: the loop's time of each request
    :ivar tenants: whose each request was
    :ivar most_at_once: requests under way at the same time
    """

    def __init__(self, *script: TokenAnswer | TokenError, latency: float = 0.0) -> None:
        self.script: deque[TokenAnswer | TokenError] = deque(script)
        self.always: dict[str, TokenAnswer | TokenError] = {}
        self.otherwise: Callable[[], TokenAnswer | TokenError] = self._new
        self.latency = latency
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[float] = []
        self.tenants: list[str] = []
        self.under_way = 0
        self.most_at_once = 0
        self._numbers = itertools.count(1)

    def _new(self) -> TokenAnswer:
        return issued(f"token-{next(self._numbers)}")

    def turn(self, client: Client) -> asyncio.Semaphore:
        return asyncio.Semaphore()

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        self.asked.append(asyncio.get_running_loop().time())
        self.tenants.append(client.tenant)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await asyncio.sleep(self.latency)
            await self.open.wait()
        finally:
            self.under_way -= 1
        answer = self.script.popleft() if self.script else self.always.get(client.tenant) or self.otherwise()
        if isinstance(answer, TokenError):
            raise answer
        return answer


class World:
    """A clock, an endpoint and the sources that a test makes of them.

    :ivar tallies: by tenant
    """

    def __init__(self, *script: TokenAnswer | TokenError, latency: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.endpoint = ScriptedEndpoint(*script, latency=latency)
        self.store = MemoryStore(lambda: self.clock.look().wall)
        self.tallies: dict[str, Tally] = {}

    async def kept(self, source: TokenSource) -> Record:
        """What is stored of a source's tokens."""
        return (await self.store.load(source.client.line)).record or Record()

    def source(
        self,
        tenant: str = "acme",
        *,
        login: str = "login.example.com",
        grant: str = "client_credentials",
        refresh_ahead: float = 60.0,
        jitter: Callable[[], float] = lambda: 0.0,
    ) -> TokenSource:
        known = client(tenant, login=login, grant=grant)
        source = TokenSource(
            lambda asked: Line(known, self.endpoint, self.store, asked=asked, clock=self.clock, jitter=jitter),
            clock=self.clock,
            jitter=jitter,
        )
        source.take_over(known, [self.tallies.setdefault(tenant, Tally())], refresh_ahead)
        return source

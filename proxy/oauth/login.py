"""What becomes of a person's login: its code is redeemed, and the refresh token kept in the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from proxy.core import organization, tokens, turn
from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client, Code
from proxy.core.lineage import Access, Record, digest
from proxy.core.organization import Told
from proxy.core.secret import Secret
from proxy.core.tokens import Instant
from proxy.errors import LoginFailed, TokenError
from proxy.oauth.clock import Clock
from proxy.oauth.home import Home
from proxy.oauth.store import TokenStore


class Endpoint(Protocol):
    """What a login needs of the token endpoint."""

    async def ask(
        self, client: Client, refresh_token: Secret | None = None, *, code: Code | None = None
    ) -> TokenAnswer: ...


class Api(Protocol):
    """What tells whose a token is."""

    async def told(self, client: Client, access_token: str) -> Told: ...


@dataclass(frozen=True, slots=True)
class Registrar:
    """Takes logins for one tenant."""

    store: TokenStore
    endpoint: Endpoint
    api: Api
    clock: Clock

    async def register(self, client: Client, code: Code) -> Told:
        """Puts a login's refresh token in the place of the client's last, for every process on the same store.

        :return: whose it is, as far as the API tells; what it does not tell now, the proxy asks before it uses a token
        :raises TokenError: the token endpoint gives no tokens for the code
        :raises LoginFailed: no refresh token, or another organization's; then nothing is kept
        :raises StoreError: it can't be kept
        """
        asked = self.clock()
        answer = await self.endpoint.ask(replace(client, grant="authorization_code"), code=code)
        if answer.refresh_token is None:
            raise LoginFailed(
                "the token endpoint issues no refresh token to this OAuth client; its grant type must be Code "
                "Authorization, and a scope such as offline_access may have to be asked for",
                final=True,
            )
        try:
            told = await self.api.told(client, answer.access_token)
        except TokenError:
            told = Told()
        reason = None if client.org_id is None or told.id is None else organization.mismatch(client.org_id, told)
        if reason is not None:
            raise LoginFailed(reason.removesuffix("."), final=True)
        await self._keep(client, answer, asked, told)
        return told

    async def _keep(self, client: Client, answer: TokenAnswer, asked: Instant, told: Told) -> None:
        assert answer.refresh_token is not None
        # A configured one that was not used yet is older than the login, and is not to take its place.
        seeds = () if client.refresh_token is None else (digest(client.refresh_token),)
        lifetime = tokens.lifetime(answer.expires_in, server_time=answer.server_time or asked.wall)
        home = Home(self.store)
        while True:
            seen = await home.load(client)
            supplied = turn.supplied(seen.record or Record(), Secret(answer.refresh_token), seeds=seeds)
            obtained = seen.now - (self.clock().elapsed - asked.elapsed)
            access = Access(Secret(answer.access_token), obtained, lifetime, client.key)
            record = replace(supplied, access=access, organization=told.id)
            if await home.supply(client, seen, record):
                return

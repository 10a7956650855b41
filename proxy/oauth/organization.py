"""Asks an API whose a token is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from proxy.core import organization
from proxy.core.grants import Client
from proxy.core.organization import Told
from proxy.errors import TokenRefused, TokenUnavailable
from proxy.oauth.endpoint import NoReply, Reply, TokenEndpoint


@dataclass(frozen=True, slots=True)
class OrganizationApi:
    """The API of a tenant, asked for the organization of its tokens."""

    endpoint: TokenEndpoint

    async def confirm(self, client: Client, access_token: str) -> None:
        """Returns where the token is of the client's ``org_id``.

        :raises TokenUnavailable: that can't be told for now
        :raises TokenRefused: it is another organization's, or this client can't be told
        """
        assert client.org_id is not None, "nothing to compare with"
        reason = organization.mismatch(client.org_id, await self.told(client, access_token))
        if reason is not None:
            raise TokenRefused(f"Tenant {client.tenant}: {reason}", error="wrong_organization")

    async def told(self, client: Client, access_token: str) -> Told:
        """What the API says of a token; nothing, where it tells this client nothing.

        :raises TokenUnavailable: it can't be told for now
        :raises TokenRefused: the API does not take the token
        """
        answers: list[str] = []
        date: str | None = None
        for path in organization.RESOURCES:
            reply = await self._get(client, path, access_token)
            found = organization.read(client, reply.status, reply.headers, reply.body, time.time())
            if found is not None:
                return found
            answers.append(organization.answered(reply.status, reply.body))
            date = reply.headers.get("Date")
        return organization.closed(client, answers, date)

    async def _get(self, client: Client, path: str, access_token: str) -> Reply:
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        try:
            return await self.endpoint.send("GET", f"{client.api_url}{path}", headers)
        except NoReply as none:
            message = f"the API gave no answer ({none}); check region, api_url and network."
            raise TokenUnavailable(f"Tenant {client.tenant}: {message}", error=organization.UNCONFIRMED) from None

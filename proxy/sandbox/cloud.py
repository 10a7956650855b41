"""The state that all parts of the sandbox share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from proxy.sandbox.clients import find_client
from proxy.sandbox.faults import Faults
from proxy.sandbox.grants import Grants
from proxy.sandbox.guests import GuestBook
from proxy.sandbox.ledger import Ledger
from proxy.sandbox.limits import RateWindow
from proxy.sandbox.options import SandboxOptions
from proxy.sandbox.orgs import CLIENT_CREDENTIALS
from proxy.sandbox.tokens import IssuedToken, TokenBook

_CONTACTS_KEPT = 10_000


class Cloud:
    """Orgs, tokens, guests, contacts, faults and the ledger, with the one clock that they go by."""

    def __init__(self, options: SandboxOptions, clock: Callable[[], float]) -> None:
        self.options = options
        self.now = clock
        self.ledger = Ledger()
        self.faults = Faults()
        self.tokens = TokenBook(options)
        self.grants = Grants(options, self.tokens, self.ledger)
        self.guests = GuestBook(options)
        self.contacts: dict[str, deque[dict[str, Any]]] = {
            org.name: deque(maxlen=_CONTACTS_KEPT) for org in options.orgs
        }
        self.org_windows = {org.name: RateWindow(options.org_rate_limit, options.rate_window) for org in options.orgs}
        self.base_url = ""
        self.closing = asyncio.Event()

    async def pause(self, seconds: float | None) -> None:
        """Wait in real time, until the sandbox closes if None; never longer than that."""
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            return

    def issue(self, client_id: str, *, scope: tuple[str, ...] = ()) -> IssuedToken:
        """A client credentials token, without a request; the ledger does not count it.

        :raises OAuthError: no org has this client
        """
        client, org = find_client(self.options.orgs, client_id)
        return self.tokens.issue(client, org, grant=CLIENT_CREDENTIALS, scope=scope, now=self.now())

    def new_refresh_token(self, client_id: str) -> str:
        """A refresh token, as if somebody had logged in with this client.

        :raises OAuthError: no org has this client
        """
        return self.grants.login(*find_client(self.options.orgs, client_id)).current

    def revoke(self, org: str | None = None, *, refresh_tokens: bool = False) -> int:
        """Revoke the access tokens of one org or of all; how many were valid.

        :raises ValueError: no such org
        """
        if org is not None and org not in self.contacts:
            raise ValueError(f"no org is called {org!r}; there are {', '.join(self.contacts)}")
        count = self.tokens.revoke(org, now=self.now(), refresh_tokens=refresh_tokens)
        self.ledger.tokens_revoked += count
        return count

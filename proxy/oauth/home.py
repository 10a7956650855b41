"""Under which key of the store a client's line of refresh tokens is kept, so that no name leads to a spent one.

A configured refresh token has a line of its own, by what stays whatever its tenant is called (``Client.line``): tenants
that have it, at the same time or one after the other, in this process or another, go on with the same line, and two
that have two never write over each other's. What a tenant's name stands for (``Client.named``) leads to the line of the
refresh token that was configured last under that name; so a tenant goes on whose refresh token was taken out of the
configuration again, and another process that has an older configuration takes part in what the newer brought. A tenant
that never had one has its logins' line under its name. A login takes the place of what its tenant's refresh token has
brought, for all that have this one; of a tenant that has none any more, it begins a line of its own.

Versions that knew no such leading kept each line under the tenant's name. There it stays, and the key of its configured
refresh token leads there.

Whatever is written here is written before anything is sent, and leads to the same line however often it is begun anew;
so it does no harm to die in between.
"""

from __future__ import annotations

from dataclasses import replace

from proxy.core import turn
from proxy.core.grants import Client
from proxy.core.lineage import Record, digest
from proxy.core.secret import Secret
from proxy.oauth.store import Reading, TokenStore


class Home:
    """Finds one client's line.

    :param store: where it is kept
    """

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self._known: str | None = None
        self._leading: Record | None = None
        self._told: str | None = None

    async def load(self, client: Client) -> Reading:
        """What is kept of the client's line now; its key may be another than at the last time.

        :param client: of the same key each time, whose tenant may be called otherwise
        :raises StoreError: the store can't be used
        """
        if client.grant != "refresh_token":
            return await self._store.load(client.line)
        while True:
            named = await self._store.load(client.named)
            key = await self._find(named, client)
            if key is not None:
                self._known = key
                return named if key == client.named else await self._store.load(key)

    async def supply(self, client: Client, seen: Reading, record: Record) -> bool:
        """Puts a login's record in the place of what ``load`` brought; False where another has written meanwhile.

        :raises StoreError: the store can't be used
        """
        if client.refresh_token is not None or seen.key in (client.named, client.logins):
            return await self._store.replace(seen, record) is not None
        # The line is that of a refresh token which other tenants may have.
        named, begun = await self._store.load(client.named), await self._store.load(client.logins)
        if await self._store.replace(begun, record) is None:
            return False
        leading = replace(named.record or Record(), kept_at=client.logins)
        return await self._store.replace(named, leading) is not None

    async def _find(self, named: Reading, client: Client) -> str | None:
        """The key; None where another process has written meanwhile."""
        record = named.record or Record()
        if client.refresh_token is None:
            if named.record is None and self._leading is not None:
                return await self._lead(named, self._leading)  # the store has lost it
            if record.kept_at is not None:
                self._leading = Record(seeds=record.seeds, kept_at=record.kept_at)
            return record.kept_at or client.named
        seed = digest(client.refresh_token)
        if seed not in record.seeds:
            key = self._known or await self._begun(client, client.refresh_token, anew=named.record is None)
            if key is None or key == client.named:
                return key  # that of the name: the store has lost it, and is given it back
            return await self._lead(named, turn.led(record, seed, key))
        if record.kept_at is None and self._told != client.named:
            await self._tell(client)
        return record.kept_at or client.named

    async def _begun(self, client: Client, seed: Secret, *, anew: bool) -> str | None:
        """Where the line of the configured refresh token is, under whatever name it was begun; None where another
        process has written meanwhile.

        :param anew: the name leads nowhere yet. Otherwise a line is begun before that is changed: whoever has another
            configuration is led there too, and does not know the refresh token.
        """
        begun = await self._store.load(client.line)
        if begun.record is not None:
            return begun.record.kept_at or client.line
        if anew or await self._store.replace(begun, turn.supplied(Record(), seed, seeds=(digest(seed),))) is not None:
            return client.line
        return None

    async def _lead(self, named: Reading, record: Record) -> str | None:
        written = await self._store.replace(named, record)
        return None if written is None else record.kept_at

    async def _tell(self, client: Client) -> None:
        """Has the configured refresh token lead to what is kept under the tenant's name since an earlier version."""
        begun = await self._store.load(client.line)
        if begun.record is None:
            await self._store.replace(begun, Record(kept_at=client.named))
        self._told = client.named

"""Where tokens are kept, so that they outlive a process and are shared by several.

Every store makes the same promises, which one suite of tests holds them to:

* ``replace`` writes only over what its caller has seen, so that a slow loser never overwrites a winner.
* What ``replace`` has reported as written is durable as far as the store is: on disk for a file.
* A value that can't be read (another key, another program's, damaged) is an error and is never overwritten.
* With keys, nothing is written unencrypted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from proxy.core.lineage import Record


@dataclass(frozen=True, slots=True)
class Reading:
    """What a store holds under a key at one moment."""

    key: str
    record: Record | None
    version: int
    """Never the same for two writings; 0 where there is no record."""
    now: float
    """Unix time by the one clock of all who share the store."""
    abandoned: bool = False
    """Whoever has the record's lease is known to have died."""


class TokenStore(Protocol):
    """Keeps records by key. Every method but ``close`` raises ``StoreError`` where the store can't be used.

    :ivar owner: names this process among all who share the store; its leases' owners begin with it and a slash
    :ivar shared: other processes may hold and change the same records
    """

    owner: str
    shared: bool

    async def load(self, key: str) -> Reading:
        """What is kept under a key now."""
        ...

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        """Puts a record in the place of what was seen.

        Cancelled or failed, it may have happened or not.

        :return: what is kept now; None where the key was written since, and nothing is changed
        """
        ...

    async def changed(self, seen: Reading, seconds: float) -> None:
        """Waits until the key is written or the owner of its lease is known to have died, at most so long."""
        ...

    async def close(self) -> None:
        """Ends what is under way and closes; what was written stays."""
        ...

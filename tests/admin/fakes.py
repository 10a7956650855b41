"""Reports as the planes would make them, and a proxy that records what the admin port asks of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from proxy.core.report import (
    CallerTally,
    Happening,
    ProxyReport,
    Tally,
    TenantReport,
    TokenState,
    WorkerReport,
    headroom,
)

NOW = 1_800_000_000.0


def tenant(name: str = "acme", state: TokenState = TokenState.FRESH, tally: Tally | None = None) -> TenantReport:
    """A tenant whose token is 10 min old and lives for an hour."""
    return TenantReport(
        name=name,
        state=state,
        expires_in=3000.0,
        lifetime=3600.0,
        refresh_in=2940.0,
        expires_at=1_800_003_000.0,
        age=600.0,
        error=None,
        diagnosis=None,
        retry_in=None,
        headroom=None if tally is None else headroom(tally, NOW),
        tally=tally or Tally(),
    )


def dead(name: str = "dead", diagnosis: str = "Check the region and the client id.") -> TenantReport:
    """A tenant that never got a token."""
    return TenantReport(
        name=name,
        state=TokenState.NONE,
        expires_in=None,
        lifetime=None,
        refresh_in=None,
        expires_at=None,
        age=None,
        error="invalid_client",
        diagnosis=diagnosis,
        retry_in=12.5,
        headroom=None,
        tally=Tally(token_requests={("client_credentials", "invalid_client"): 2}),
    )


def busy() -> Tally:
    """Some of everything that is counted."""
    tally = Tally(
        at_once=3,
        websockets=2,
        websocket_received=11,
        websocket_sent=12,
        observed=2,
        replays={"accepted": 1},
        limited={"passed_on": 4, "waited": 5},
        token_requests={("client_credentials", "ok"): 2, ("refresh_token", "invalid_grant"): 1},
        history=(Happening(NOW - 60, "token", "ok"), Happening(NOW - 5, "replay", "accepted")),
    )
    for status, seconds in ((101, 0.002), (200, 0.2), (200, 0.25), (401, 20.0)):
        tally.count(status, seconds)
    tally.hear(b"300", b"9", b"42", NOW)
    tally.refreshes.observe(0.3)
    return tally


def report(*tenants: TenantReport) -> ProxyReport:
    """A proxy that accepts connections."""
    return ProxyReport(
        version="1.2.3",
        started_at=1_800_000_000.0,
        listening=("http://127.0.0.1:8080",),
        draining=False,
        started=True,
        client_connections=3,
        upstream_connections=2,
        refused={403: 4},
        tenants=tenants,
        callers={"web": CallerTally(requests={200: 5, 503: 1}, at_once=2)},
        workers=(WorkerReport(1, 4711, 1), WorkerReport(2, None, 3)),
        needs_restart=("store",),
    )


class FakeControl:
    """Shows ``shown``; fails as told; holds a refresh back until ``go``."""

    def __init__(self) -> None:
        self.shown = report(tenant())
        self.problems: list[str] = []
        self.needs_restart: tuple[str, ...] = ()
        self.failure: Exception | None = None
        self.refresh_failure: Exception | None = None
        self.reports = 0
        self.reloads = 0
        self.refreshed: list[str] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def survey(self) -> ProxyReport:
        self.reports += 1
        if self.failure is not None:
            raise self.failure
        return self.shown

    async def reload(self) -> list[str]:
        self.reloads += 1
        return self.problems

    async def refresh(self, name: str) -> TenantReport:
        self.refreshed.append(name)
        self.asked.set()
        await self.go.wait()
        if failure := self.failure or self.refresh_failure:
            raise failure
        found = {tenant.name: tenant for tenant in self.shown.tenants}[name]
        return replace(found, age=0.0)

"""Tokens that live for five seconds, under load: nobody notices when one gives way to the next."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from tests.support.stages import CONTACTS, ECHO, Answer, Tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIFETIME = 5.0
TOKEN_LATENCY = 0.5
LONGEST = 0.4
"""Seconds that an answer may take: a request that waited for a refresh ahead would take longer."""


@pytest.fixture(scope="module")
def configuration() -> str:
    return "keep_warm = false\n[limits]\nrequest_timeout = 3\n"


@pytest.fixture(scope="module")
def sandbox_options() -> dict[str, float]:
    return {"token_lifetime": LIFETIME}


@dataclass(slots=True)
class Load:
    """Clients that send one request after the other, reads and writes in turn.

    :ivar stalled: the longest time in seconds for which this machine did not let us run
    """

    tenant: Tenant
    seconds: float
    clients: int = 10
    answers: list[Answer] = field(default_factory=list)
    sent: int = 0
    stalled: float = 0.0

    async def run(self) -> None:
        end = time.monotonic() + self.seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(end), name="watch")
            for number in range(self.clients):
                group.create_task(self._one(end), name=f"client {number}")

    async def _watch(self, end: float) -> None:
        while (now := time.monotonic()) < end:
            await asyncio.sleep(0.01)
            self.stalled = max(self.stalled, time.monotonic() - now - 0.01)

    async def _one(self, end: float) -> None:
        while time.monotonic() < end:
            self.sent += 1
            if self.sent % 5:
                answer = await self.tenant.get(ECHO)
            else:
                answer = await self.tenant.call("POST", CONTACTS, json={"externalId": str(self.sent)})
            self.answers.append(answer)
            await asyncio.sleep(0.05)

    def check(self, tokens: int) -> None:
        """Nobody noticed that there were so many tokens."""
        assert {answer.status for answer in self.answers} == {200}
        assert {answer.proxy_status for answer in self.answers} == {""}
        assert max(answer.seconds for answer in self.answers) < LONGEST + self.stalled
        assert self.tenant.refused == {}, "the upstream saw a stale token"
        assert self.tenant.token_requests == {"ok": tokens}
        ledger = self.tenant.stage.sandbox.ledger
        assert ledger.contacts_created[self.tenant.name] == self.sent // 5
        assert ledger.double_executions == 0


async def load(tenant: Tenant, seconds: float) -> Load:
    """After the first token, whose refresh ahead then falls into the load."""
    assert (await tenant.get()).status == 200
    tenant.fault("token_latency", TOKEN_LATENCY)
    load = Load(tenant, seconds)
    await load.run()
    return load


async def test_no_client_notices_that_a_token_lives_for_five_seconds(tenant: Tenant) -> None:
    # The second token is asked for after 4.0 to 4.4 s and the third as long after the second.
    (await load(tenant, 7.9)).check(tokens=2)


@pytest.mark.slow
async def test_no_client_notices_three_changes_of_token(tenant: Tenant) -> None:
    found = await load(tenant, 15.9)
    found.check(tokens=found.tenant.token_requests["ok"])
    assert found.tenant.token_requests["ok"] in (4, 5)


async def test_a_token_that_expired_unused_is_never_sent(tenant: Tenant) -> None:
    tenant.fault("token_expires_in", 1, count=1)
    await tenant.get()
    await asyncio.sleep(1.1)  # a lifetime in real time: the proxy's own clock is not ours to move
    answers = await asyncio.gather(*(tenant.get() for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    serials = {answer.json["tokenSerial"] for answer in answers}
    assert len(serials) == 1
    assert tenant.token_requests == {"ok": 2}
    assert tenant.refused == {}


async def test_an_expired_token_is_not_sent_while_the_token_endpoint_is_down(tenant: Tenant) -> None:
    tenant.fault("token_expires_in", 1)
    assert (await tenant.get()).status == 200
    tenant.fault("token_status", 503)
    calls = tenant.stage.sandbox.ledger.accepted(tenant.name)
    await asyncio.sleep(1.1)
    answer = await tenant.get()
    assert answer.status == 503
    assert answer.seconds < 10
    assert tenant.stage.sandbox.ledger.accepted(tenant.name) == calls
    assert tenant.refused == {}


async def test_while_a_token_lives_a_token_endpoint_that_is_down_is_nobodys_concern(tenant: Tenant) -> None:
    assert (await tenant.get()).status == 200
    tenant.fault("token_status", 503)
    refresh = await tenant.stage.admin("POST", f"/tenants/{tenant.name}/refresh")
    assert refresh.status == 503
    answers = [await tenant.get() for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    tenant.mend()

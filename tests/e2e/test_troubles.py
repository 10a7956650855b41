"""Troubles with tokens: every client gets an answer in time, the token endpoint is spared, and it heals by itself.

All are tried side by side, each by a tenant of its own, because they take their time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from tests.support.genesys import assert_own_failure
from tests.support.stages import Answer, Stage, Tenant, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUEST_TIMEOUT = 3.0
PATIENCE_OF_THE_JAVASCRIPT_SDK = 16.0
WATCHED = 2.0
"""Seconds for which clients begin calls while the token endpoint fails; the last may wait REQUEST_TIMEOUT more."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One way to fail, and what clients are told."""

    name: str
    fault: str
    value: object = None
    status: int = 503
    heals_within: float = 15.0
    """Seconds from the end of the trouble to the first 200: the pause after the last token request, at most 8 s by
    then, 10 s after what is final, and the 10 s that one may hang; and some for a machine under load."""


TROUBLES = [
    Trouble("500", "token_status", 500),
    Trouble("503", "token_status", 503),
    Trouble("throttled", "token_throttled", 60),
    Trouble("empty", "token_empty"),
    Trouble("html", "token_html"),
    Trouble("no answer", "token_drop", "before"),
    Trouble("lost answer", "token_drop", "after"),
    Trouble("hanging", "token_hang", heals_within=20.0),
    Trouble("dead on arrival", "token_expires_in", 0),
    Trouble("unknown client", "token_invalid_client", "client not found", 502, 20.0),
    Trouble("wrong secret", "token_invalid_client", "authentication failed", 502, 20.0),
    Trouble("invalid grant", "token_invalid_grant", None, 502, 20.0),
]


@dataclass(slots=True)
class Trial:
    """What clients went through with one trouble."""

    trouble: Trouble
    tenant: Tenant
    answers: list[Answer] = field(default_factory=list)
    token_requests: int = 0
    """Of which the sandbox knew when the trouble ended."""
    lasted: float = 0.0
    healed_after: float = 0.0

    async def run(self) -> None:
        self.tenant.fault(self.trouble.fault, self.trouble.value)
        began = time.monotonic()
        end = began + WATCHED
        await asyncio.gather(*(self._keep_calling(end) for _ in range(5)))
        self.token_requests = self.tenant.token_requests.total()
        self.lasted = time.monotonic() - began
        self.tenant.mend()
        self.healed_after = await _healed_after(self.tenant)

    async def _keep_calling(self, end: float) -> None:
        while time.monotonic() < end:
            self.answers.append(await self.tenant.get())
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def configuration() -> str:
    return f"keep_warm = false\n[limits]\nrequest_timeout = {REQUEST_TIMEOUT}\n"


@dataclass(slots=True)
class Revocation:
    """A real one, just after the upstream had refused a new token for a reason that was none of the token's."""

    tenant: Tenant
    healed_after: float = 0.0

    async def run(self) -> None:
        self.tenant.fault("api_unauthorized")
        await self.tenant.get()
        self.tenant.mend()
        self.tenant.revoke()
        self.healed_after = await _healed_after(self.tenant)


async def _healed_after(tenant: Tenant) -> float:
    """Seconds from now to the first 200; more than any test allows if there is none."""

    async def served() -> bool:
        return (await tenant.get()).status == 200

    started = time.monotonic()
    with contextlib.suppress(TimeoutError):
        await until(served, 30)
    return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Trials:
    by_name: dict[str, Trial]
    revocation: Revocation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trials(stage: Stage) -> Trials:
    """After all of them."""
    trials = Trials({trouble.name: Trial(trouble, stage.tenant()) for trouble in TROUBLES}, Revocation(stage.tenant()))
    await asyncio.gather(trials.revocation.run(), *(trial.run() for trial in trials.by_name.values()))
    return trials


@pytest.fixture(params=[trouble.name for trouble in TROUBLES])
def trial(request: pytest.FixtureRequest, trials: Trials) -> Trial:
    return trials.by_name[request.param]


async def test_every_client_is_told_within_the_sdks_patience_and_never_401(trial: Trial) -> None:
    assert trial.answers
    for answer in trial.answers:
        assert answer.seconds < 3 * REQUEST_TIMEOUT < PATIENCE_OF_THE_JAVASCRIPT_SDK
        assert answer.status == trial.trouble.status
        assert_own_failure(answer)
        assert trial.tenant.name in answer.json["message"]


async def test_a_503_says_when_to_come_back_and_a_502_does_not(trial: Trial) -> None:
    for answer in trial.answers:
        assert ("Retry-After" in answer.fields) == (answer.status == 503)
        assert int(answer.fields.get("Retry-After", "1")) >= 1


async def test_the_endpoint_is_spared(trial: Trial) -> None:
    """Attempts come after 0, 0.5, 1.5, 3.5 s and so on, or a quarter sooner; what is final is asked once."""
    pauses = sum(0.75 * 0.5 * (2**number - 1) < trial.lasted for number in range(1, 10))
    assert trial.token_requests <= (1 if trial.trouble.status == 502 else 1 + pauses)


async def test_it_heals_by_itself(trial: Trial) -> None:
    assert trial.healed_after < trial.trouble.heals_within
    assert (await trial.tenant.get()).status == 200


async def test_a_real_revocation_soon_after_a_permanent_401_heals_within_seconds(trials: Trials) -> None:
    assert trials.revocation.healed_after < 8
    assert trials.revocation.tenant.token_requests.total() <= 4


async def test_the_status_page_names_the_tenant_that_has_no_token(stage: Stage) -> None:
    tenant = stage.tenant()
    tenant.fault("token_invalid_client", "client not found")
    assert (await tenant.get()).status == 502
    entry = await tenant.status()
    assert (entry["usable"], entry["error"]) == (False, "invalid_client")
    assert "region" in entry["diagnosis"]
    ready = await stage.admin("GET", "/readyz")
    assert ready.status == 200, "one tenant's dead credential is no reason to take the others' traffic away"
    assert ready.json["failing"].keys() == {tenant.name}


async def test_an_operator_may_ask_again_at_once(stage: Stage) -> None:
    tenant = stage.tenant()
    tenant.fault("token_invalid_client", count=1)
    assert (await tenant.get()).status == 502
    assert (await stage.admin("POST", f"/tenants/{tenant.name}/refresh")).status == 200
    assert (await tenant.get()).status == 200

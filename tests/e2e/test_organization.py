"""``org_id``: a token of another org is never used, and said to be one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.sandbox import Org, Outcome
from tests.support.stages import CONTACTS, ECHO, Stage, Tenant, make_orgs, open_stage, tenant_toml

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHERS = "others"


def with_org_id(org: Org) -> str:
    return tenant_toml(org, org_id="id-of-somebody-else" if org.name == OTHERS else org.id)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    orgs = make_orgs([OTHERS, "right", "late", "closed"])
    async with open_stage(orgs, "keep_warm = false\n", tenants=with_org_id) as opened:
        yield opened


def tenant_of(stage: Stage, name: str) -> Tenant:
    (org,) = [org for org in stage.sandbox.options.orgs if org.name == name]
    return Tenant(stage, org)


def accepted(tenant: Tenant) -> int:
    return tenant.stage.sandbox.ledger.calls[tenant.name, Outcome.ACCEPTED]


async def test_a_token_of_another_org_is_refused_and_reported(stage: Stage) -> None:
    tenant = tenant_of(stage, OTHERS)
    for _ in range(5):
        told = await tenant.call("POST", CONTACTS, json={"externalId": "x"})
        assert (told.status, told.json["code"]) == (502, "token.refused")
        assert (
            "belongs to organization id-of-others (others), and org_id says id-of-somebody-else" in told.json["message"]
        )
    assert tenant.token_requests == {"ok": 1}
    assert accepted(tenant) == 1, "the question whose it is"
    assert stage.sandbox.ledger.contacts_created[OTHERS] == 0
    status = await tenant.status()
    assert (status["usable"], status["error"]) == (False, "wrong_organization")


async def test_the_right_org_is_asked_for_once_however_many_tokens_follow(stage: Stage) -> None:
    tenant = tenant_of(stage, "right")
    answers = await asyncio.gather(*(tenant.get(ECHO) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    tenant.revoke()
    assert (await tenant.get(ECHO)).status == 200
    assert tenant.token_requests == {"ok": 2}
    assert accepted(tenant) == 1 + 20 + 1


async def test_while_the_api_can_not_tell_callers_wait_and_no_further_token_is_asked_for(stage: Stage) -> None:
    tenant = tenant_of(stage, "late")
    tenant.fault("api_status", 503, count=2)
    assert (await tenant.get(ECHO)).status == 200
    assert tenant.token_requests == {"ok": 1}


async def test_a_client_that_may_not_ask_whose_its_token_is_is_told_so(stage: Stage) -> None:
    tenant = tenant_of(stage, "closed")
    tenant.fault("api_status", 403, count=2)
    told = await tenant.get(ECHO)
    assert told.status == 502
    assert "org_id can't be compared" in told.json["message"]

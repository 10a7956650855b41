"""One tenant's client is refused: wherever an operator looks, it is seen, with what to do, and the others work on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.proxies import RunningProxy
from tests.support.stages import Stage, Tenant, make_orgs, open_stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADVICE = "region"
"""The usual cause of a client that is not found."""


@dataclass(frozen=True)
class Scene:
    stage: Stage
    dead: Tenant
    well: Tenant

    async def get(self, path: str) -> Any:
        return (await self.stage.admin("GET", path)).json


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    orgs = make_orgs(["dead", "well"])
    async with open_stage(orgs, "keep_warm = false\n", "--log-format", "json") as stage:
        scene = Scene(stage, *(Tenant(stage, org) for org in orgs))
        scene.dead.fault("token_invalid_client", "client not found")
        assert (await scene.dead.get()).status == 502
        assert (await scene.well.get()).status == 200
        yield scene


async def test_readiness_names_it_and_stays(scene: Scene) -> None:
    ready = await scene.stage.admin("GET", "/readyz")
    assert ready.status == 200
    assert ready.json["failing"].keys() == {"dead"}
    assert ADVICE in ready.json["failing"]["dead"]
    assert ready.json["lasts"] == {"dead": 0.0}
    own = await scene.stage.admin("GET", "/readyz?tenant=dead")
    assert own.status == 503
    assert ADVICE in own.json["failing"]["dead"]
    assert (await scene.stage.admin("GET", "/readyz?tenant=well")).status == 200


async def test_metrics_count_it_by_its_error_code(scene: Scene) -> None:
    lines = (await scene.stage.admin("GET", "/metrics")).body.decode().splitlines()
    labels = 'grant="client_credentials",outcome="invalid_client",tenant="dead"'
    [line] = [line for line in lines if line.startswith(f"genesys_auth_proxy_token_requests_total{{{labels}}}")]
    assert float(line.rpartition(" ")[2]) >= 1
    assert not [line for line in lines if "expiry" in line and 'tenant="dead"' in line], "without a token, no expiry"


async def test_status_in_the_terminal_says_what_to_do(scene: Scene) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "status", "--url", scene.stage.proxy.admin_url),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    [told] = [line for line in said.decode().splitlines() if line.startswith("dead: ")]
    assert ADVICE in told


async def test_the_page_is_told_so(scene: Scene) -> None:
    async with scene.stage.session.get(f"{scene.stage.proxy.admin_url}/events") as answer:
        event = json.loads((await answer.content.readline()).removeprefix(b"data: "))
    [dead] = [entry for entry in event["tenants"] if entry["troubled"]]
    assert (dead["name"], dead["usable"], dead["error"]) == ("dead", False, "invalid_client")
    assert ADVICE in dead["diagnosis"]
    assert [outcome for _, what, outcome in dead["history"] if what == "token"][-1] == "invalid_client"


def events(proxy: RunningProxy) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.output.splitlines() if line.startswith("{")]


async def test_the_log_says_so_and_the_failed_request_has_a_line(scene: Scene) -> None:
    await scene.stage.proxy.said('"code": "token.refused"')
    [failed, *_] = [event for event in events(scene.stage.proxy) if event.get("event") == "token.failed"]
    assert (failed["level"], failed["tenant"]) == ("warning", "dead")
    assert ADVICE in failed["message"]
    [request, *_] = [event for event in events(scene.stage.proxy) if event.get("event") == "request"]
    assert (request["tenant"], request["status"], request["code"]) == ("dead", 502, "token.refused")


async def test_the_client_is_told_so_as_well(scene: Scene) -> None:
    answer = await scene.dead.get()
    assert (answer.status, answer.json["code"]) == (502, "token.refused")
    assert ADVICE in answer.json["message"]

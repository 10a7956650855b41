"""What curl and the official SDKs see of an API that fails: an answer in time or an error, and nothing is done twice.

Before the answer's head, that is 502 or 504 in Genesys's shape; after it, a visible break.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from proxy.sandbox import Sandbox, SandboxOptions
from tests.sdk.drivers import Sdk, SdkError
from tests.support.peers import Peer, Server
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import make_orgs, tenant_toml

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

REQUEST_TIMEOUT = 2
PATIENCE = 20.0
"""Seconds in which the slowest client on the slowest machine has told its caller; the SDKs' own is 16 and more."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

BEFORE = {"refused": 502, "reset": 502, "closed": 502, "half a head": 502, "garbage": 502, "silent": 504}
"""What goes wrong before the answer's head, and the status that the client gets."""

AFTER = ("half a length", "half a chunk", "half a chunk, then a reset")


@dataclass
class Api:
    """An API that fails in the way it is told, and counts what it was asked.

    :ivar asked: by method
    """

    server: Server
    fault: str = ""
    asked: Counter[bytes] | None = None

    def begin(self, fault: str) -> None:
        self.fault, self.asked = fault, Counter()

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as serving:
            while True:
                serving.create_task(self._answer(await self.server.next()), name="faulty API")

    async def _answer(self, peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            request = await peer.message()
            assert self.asked is not None
            self.asked[request.start.split(b" ")[0]] += 1
            match self.fault:
                case "half a head":
                    peer.send(HEAD[:-10])
                case "garbage":
                    peer.send(b"220 smtp.example ESMTP\r\n\r\n")
                case "half a length":
                    peer.send(HEAD, b'Content-Length: 900\r\n\r\n{"name": "')
                case "half a chunk" | "half a chunk, then a reset":
                    peer.send(HEAD, b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"name": "')
            if self.fault == "silent":
                await peer.ended()
            await asyncio.sleep(0.05)
            peer.reset() if "reset" in self.fault else peer.close()


@dataclass(frozen=True, slots=True)
class World:
    proxy: RunningProxy
    api: Api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    (org,) = make_orgs(["acme"])
    async with Sandbox(SandboxOptions(orgs=(org,))) as sandbox, Server() as server:
        api = Api(server)
        text = (
            f"[listen]\nport = 0\n[admin]\nport = 0\n[limits]\nrequest_timeout = {REQUEST_TIMEOUT}\n"
            f'[defaults]\nlogin_url = "{sandbox.base_url}"\napi_url = "http://127.0.0.1:{server.port}"\n'
        )
        async with run_proxy(text + tenant_toml(org)) as proxy:
            serving = asyncio.gather(api.serve())
            yield World(proxy, api)
            serving.cancel()
            await asyncio.wait({serving})


@contextlib.asynccontextmanager
async def failing(world: World, fault: str) -> AsyncIterator[Counter[bytes]]:
    """The API fails in this way; what it is asked meanwhile."""
    world.api.begin(fault)
    if fault == "refused":
        world.api.server.stop()
    try:
        started = time.monotonic()
        assert world.api.asked is not None
        yield world.api.asked
        assert time.monotonic() - started < PATIENCE
    finally:
        if fault == "refused":
            await world.api.server.listen()


async def curl(world: World, *options: str) -> tuple[int, bytes, int]:
    """Status, body and exit code."""
    url = f"{world.proxy.url}/t/acme/api/v2/organizations/me"
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--noproxy", "*", "--write-out", "%{http_code}", "--max-time", str(PATIENCE)),
        *(*options, url),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    return int(told[-3:]), told[:-3], process.returncode


@pytest.mark.needs("curl")
@pytest.mark.parametrize("fault", BEFORE)
@pytest.mark.parametrize("options", [(), ("--data", "{}")], ids=["GET", "POST"])
async def test_curl_is_told_what_went_wrong(world: World, fault: str, options: tuple[str, ...]) -> None:
    async with failing(world, fault) as asked:
        status, body, code = await curl(world, *options)
    assert (status, code, json.loads(body)["status"]) == (BEFORE[fault], 0, BEFORE[fault])
    assert asked.total() == (fault != "refused")


@pytest.mark.needs("curl")
@pytest.mark.parametrize("fault", AFTER)
async def test_curl_sees_that_an_answer_is_not_whole(world: World, fault: str) -> None:
    async with failing(world, fault) as asked:
        status, body, code = await curl(world)
    assert (status, body) == (200, b'{"name": "')
    assert code in (18, 56)  # CURLE_PARTIAL_FILE, CURLE_RECV_ERROR
    assert asked.total() == 1


async def point(sdk: Sdk, world: World) -> None:
    settings = {"path_params_login": "t/acme", "path_params_api": "t/acme"}
    await sdk.do("gateway", protocol="http", host=world.proxy.host, port=world.proxy.port, **settings)


@pytest.mark.parametrize("fault", BEFORE)
async def test_an_sdk_tells_its_caller_and_sends_nothing_twice(sdk: Sdk, world: World, fault: str) -> None:
    await point(sdk, world)
    for call in ({"what": "organization"}, {"what": "write", "external_id": "x"}):
        async with failing(world, fault) as asked:
            with pytest.raises(SdkError) as error:
                await sdk.do(**call)
        assert error.value.status == BEFORE[fault]
        assert max(asked.values(), default=0) == (fault != "refused")


@pytest.mark.parametrize("fault", AFTER)
async def test_an_sdk_takes_half_an_answer_for_an_error(sdk: Sdk, world: World, fault: str) -> None:
    await point(sdk, world)
    async with failing(world, fault):
        with pytest.raises(SdkError):
            await sdk.do("organization")

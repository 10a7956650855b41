"""Starting, stopping, and clients that misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from proxy.errors import ConfigurationError
from proxy.sandbox import Sandbox, SandboxOptions
from proxy.sandbox.orgs import ACME_CLIENT_ID, ACME_DEPLOYMENT_ID
from tests.sandbox.caller import Answer, Caller


async def send(sandbox: Sandbox, data: bytes, *, read: bool = True) -> bytes:
    """Raw bytes, and what comes back until the server closes; without reading, hang up at once."""
    port = int(sandbox.base_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await reader.read() if read else b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /api/v2/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /api/v2/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"GET /api/v2/tokens/me HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1?deploymentId=" + ACME_DEPLOYMENT_ID.encode() + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        b"GET /api",
    ],
)
async def test_clients_that_hang_up_leave_nothing_in_the_log(
    caller: Caller, sandbox: Sandbox, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    sandbox.faults.set("api_latency", 0.01)
    for _ in range(5):
        await send(sandbox, data, read=False)
    assert (await caller.ask()).status == 200
    await sandbox.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert sandbox.ledger.sockets_open == 0


async def test_what_is_no_http_is_a_bad_request(sandbox: Sandbox) -> None:
    assert (await send(sandbox, b"NONSENSE\r\n\r\n")).startswith(b"HTTP/1.0 400 ")


async def test_paths_that_nobody_plays_are_not_found(caller: Caller) -> None:
    answer = await caller.get("/elsewhere")
    assert (answer.status, answer.json["code"]) == (404, "not.found")
    assert (await caller.get("/oauth/token")).status == 404


async def test_closing_ends_what_hangs_and_leaves_no_task(caller: Caller, sandbox: Sandbox) -> None:
    sandbox.faults.set("token_hang", count=1)
    sandbox.faults.set("api_latency", 1_000, count=1)
    token = sandbox.issue(ACME_CLIENT_ID).value
    own = asyncio.current_task()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        hanging = group.create_task(fails(caller.ask()))
        slow = group.create_task(caller.get("/api/v2/tokens/me", token))
        socket = await caller.session.ws_connect(f"{caller.base_url}/v1?deploymentId={ACME_DEPLOYMENT_ID}")
        await until(lambda: not sandbox.faults.as_json())
        await sandbox.close()
    assert hanging.result()
    assert slow.result().status == 200
    assert (await socket.receive()).data == aiohttp.WSCloseCode.GOING_AWAY
    await socket.close()
    await caller.session.close()
    await until(lambda: asyncio.all_tasks() == {own})


async def fails(call: Awaitable[Answer]) -> bool:
    try:
        await call
    except aiohttp.ClientConnectionError:
        return True
    return False


async def until(holds: Callable[[], bool]) -> None:
    """Give others their turn until it holds; a second at most."""
    for _ in range(100):
        if holds():
            return
        await asyncio.sleep(0.01)
    assert holds()


async def test_a_sandbox_can_be_closed_twice_and_before_it_starts() -> None:
    sandbox = Sandbox()
    await sandbox.close()
    sandbox = Sandbox()
    await sandbox.start()
    await sandbox.close()
    await sandbox.close()


async def test_an_address_that_is_taken_is_an_os_error(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="address"):
        await Sandbox().start(port=int(sandbox.base_url.rpartition(":")[2]))


@pytest.mark.parametrize("host,url", [("0.0.0.0", "http://127.0.0.1:"), ("localhost", "http://localhost:")])
async def test_the_base_url_is_one_that_can_be_called(host: str, url: str) -> None:
    sandbox = Sandbox()
    assert (await sandbox.start(host)).startswith(url)
    await sandbox.close()


async def test_many_calls_at_once_are_all_answered() -> None:
    options = SandboxOptions(rate_limit=None, org_rate_limit=None)
    async with Sandbox(options) as sandbox, aiohttp.ClientSession() as session:
        caller = Caller(session, sandbox.base_url)
        token = await caller.token()
        answers = await asyncio.gather(*(caller.get("/api/v2/tokens/me", token) for _ in range(500)))
    assert {answer.status for answer in answers} == {200}
    assert sandbox.ledger.accepted() == 500


@pytest.mark.parametrize(
    "options",
    [
        {"token_lifetime": 0},
        {"token_lifetime": float("nan")},
        {"rate_limit": 0},
        {"idle_timeout": -1},
        {"guest_token_lifetime": 0},
        {"orgs": ()},
    ],
)
def test_options_that_can_not_be_played_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SandboxOptions(**options)  # type: ignore[arg-type]

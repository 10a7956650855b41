"""Thousands of tenants in one process: what nobody asked for costs nothing, and who asks does not wait for the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

from proxy.app.tenants import TURN
from proxy.oauth.keeper import AT_ONCE
from tests.support.rig import OK, answer, request, rig
from tests.support.stages import until

CLOSING = answer(200, "Connection: close", body=b"ok")
"""So that each request goes to a new connection of the upstream."""


def tenants(count: int, **keys: object) -> dict[str, dict[str, object]]:
    return {f"t{number}": {"client_id": f"id-{number}", **keys} for number in range(count)}


def files() -> int:
    """Open ones."""
    return len(list(Path("/dev/fd").iterdir()))


async def held() -> tuple[list[str], int]:
    """Tasks and open files, once the keeper has looked at all tenants."""
    await until(lambda: any(task.get_name() == "token keeper's nap" for task in asyncio.all_tasks()))
    return sorted(task.get_name() for task in asyncio.all_tasks()), files()


async def test_tenants_that_nobody_calls_hold_no_task_no_file_and_no_token() -> None:
    async with rig(tenants=tenants(1)) as proxy, proxy.client() as client:
        one = await held()
    async with rig(tenants=tenants(10_000)) as proxy, proxy.client() as client:
        assert await held() == one
        await proxy.exchange(client, request(target="/t/t9999/api/v2/x"))
        assert proxy.tokens.asked == 1
        assert await proxy.proxy.reload() == []
        _, got, _ = await proxy.exchange(client, request(target="/t/t9999/api/v2/x"))
        assert got.body == b"ok"
        assert proxy.tokens.asked == 1


async def test_first_tokens_are_fetched_a_few_at_a_time_and_who_is_called_is_not_made_to_wait() -> None:
    async with rig(tenants=tenants(500, keep_warm=True)) as proxy, proxy.client() as client:
        proxy.tokens.open.clear()
        await proxy.tokens.asked_for(AT_ONCE)
        client.send(request(target="/t/t499/api/v2/x"))
        await proxy.tokens.asked_for(AT_ONCE + 1)
        await asyncio.sleep(0.1)
        assert proxy.tokens.asked == AT_ONCE + 1
        proxy.tokens.open.set()
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(OK)
        assert (await client.message()).body == b"ok"
        await proxy.tokens.asked_for(500)


async def test_a_reload_of_thousands_of_tenants_gives_requests_their_turn_again_and_again() -> None:
    count = 4 * TURN
    async with rig(tenants=tenants(count)) as proxy, proxy.client() as client:
        await proxy.exchange(client, request(target="/t/t0/api/v2/x"))
        prepared = proxy.proxy.prepare(proxy.proxy.settings)
        adopting = asyncio.get_running_loop().create_task(proxy.proxy.adopt(prepared), name="reload")
        turns = 0
        while not adopting.done():
            await asyncio.sleep(0)
            turns += 1
        adopting.result()
        assert turns >= 2 * count / TURN
        assert proxy.upstream_connections == 0, "those of before are closed"
        _, got, _ = await proxy.exchange(client, request(target=f"/t/t{count - 1}/api/v2/x"))
        assert got.body == b"ok"
        assert proxy.tokens.asked == 2


async def test_a_request_in_the_midst_of_a_reload_is_answered_by_the_rules_of_before() -> None:
    async with rig(tenants=tenants(2 * TURN)) as proxy, proxy.client() as client:
        await proxy.exchange(client, request(target="/t/t0/api/v2/x"), CLOSING)
        proxy.edit('client_id = "id-1"', 'client_id = "id-other"')
        reloading = asyncio.get_running_loop().create_task(proxy.proxy.reload(), name="reload")
        while not reloading.done():
            _, got, _ = await proxy.exchange(client, request(target="/t/t0/api/v2/x"), CLOSING)
            assert got.status == 200
        assert reloading.result() == []
        _, got, _ = await proxy.exchange(client, request(target="/t/t1/api/v2/x"), CLOSING)
        assert got.status == 200
        assert proxy.tokens.asked == 2

"""Thousands of tenants in one process: what nobody asked for costs nothing, and who asks does not wait for the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

from proxy.oauth.keeper import AT_ONCE
from tests.support.rig import OK, request, rig


def tenants(count: int, **keys: object) -> dict[str, dict[str, object]]:
    return {f"t{number}": {"client_id": f"id-{number}", **keys} for number in range(count)}


def held() -> tuple[int, int]:
    """Tasks and open files."""
    return len(asyncio.all_tasks()), len(list(Path("/dev/fd").iterdir()))


async def test_tenants_that_nobody_calls_hold_no_task_no_file_and_no_token() -> None:
    async with rig(tenants=tenants(1)) as proxy:
        one = held()
    async with rig(tenants=tenants(10_000)) as proxy, proxy.client() as client:
        tasks, files = held()
        assert (tasks - one[0], files - one[1]) <= (1, 2)  # of the client that is here now
        assert files - one[1] <= 2
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

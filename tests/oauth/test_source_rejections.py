"""A refused token is thrown away, and no other; refusals that the token did not cause start no storm."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.replay import COOL_DOWN
from proxy.errors import TokenRefused, TokenUnavailable
from proxy.oauth.source import DOUBT
from tests.oauth.fakes import LIFETIME, World, refused, unavailable
from tests.oauth.virtual_time import in_virtual_time

PATIENCE = 15.0


@in_virtual_time
async def test_a_rejected_token_is_not_given_out_again() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    source.reject(first)
    assert source.current() is None
    second = await source.token(PATIENCE)
    assert second is not first
    assert second.access_token == "token-2"


@in_virtual_time
async def test_any_number_of_requests_refused_with_one_token_cause_one_refresh() -> None:
    world = World(latency=0.3)
    source = world.source()
    first = await source.token(PATIENCE)

    async def refused_request(after: float) -> str:
        await asyncio.sleep(after)
        source.reject(first)
        return (await source.token(PATIENCE)).access_token

    assert set(await asyncio.gather(*(refused_request(n / 50) for n in range(100)))) == {"token-2"}
    assert len(world.endpoint.asked) == 2


@in_virtual_time
async def test_a_late_refusal_of_an_old_token_leaves_the_new_one_alone() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    second = await source.refresh()
    source.reject(first)
    assert source.current() is second
    assert len(world.endpoint.asked) == 2


@in_virtual_time
async def test_a_token_rejected_twice_is_rejected_once() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    source.reject(first)
    second = await source.token(PATIENCE)
    source.reject(first)
    assert source.current() is second


@in_virtual_time
async def test_a_rejected_token_is_not_kept_for_the_next_source() -> None:
    world = World()
    source = world.source()
    source.reject(await source.token(PATIENCE))
    assert world.source().current() is None


@in_virtual_time
async def test_a_source_that_a_reload_left_behind_rejects_no_newer_token() -> None:
    world = World()
    left_behind = world.source()
    first = await left_behind.token(PATIENCE)
    successor = world.source()
    await successor.token(PATIENCE)
    second = await successor.refresh()
    left_behind.reject(first)
    assert (await world.source().token(PATIENCE)).access_token == second.access_token
    assert (await left_behind.token(PATIENCE)).access_token == second.access_token
    assert len(world.endpoint.asked) == 2


@in_virtual_time
async def test_a_rejected_token_that_lives_is_trusted_again_while_the_endpoint_is_down() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.otherwise = unavailable
    source.reject(first)
    assert source.current() is None
    assert await source.token(PATIENCE) is first
    assert source.current() is first
    assert not source.cooling_down


@in_virtual_time
async def test_who_was_refused_gets_no_rejected_token_though_others_do() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.otherwise = unavailable
    began = asyncio.get_running_loop().time()
    with pytest.raises(TokenUnavailable, match="it is down"):
        await source.instead_of(first, PATIENCE)
    assert asyncio.get_running_loop().time() - began <= PATIENCE
    assert len(world.endpoint.asked) > 3
    assert await source.token(PATIENCE) is first


@in_virtual_time
async def test_who_was_refused_waits_while_the_endpoint_hangs_though_others_do_not() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.open.clear()
    waiting = asyncio.get_running_loop().create_task(source.instead_of(first, PATIENCE), name="refused")
    await asyncio.sleep(0)
    assert await source.token(PATIENCE) is first
    await asyncio.sleep(5.0)
    world.endpoint.open.set()
    assert (await waiting).access_token == "token-2"


@in_virtual_time
async def test_who_was_refused_is_told_at_once_that_the_client_is_refused() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.otherwise = refused
    for _ in range(2):
        with pytest.raises(TokenRefused):
            await source.instead_of(first, PATIENCE)
    assert len(world.endpoint.asked) == 2
    assert await source.token(PATIENCE) is first


@in_virtual_time
async def test_further_refusals_of_a_token_that_is_trusted_again_make_no_other_caller_wait() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.open.clear()
    source.reject(first)
    assert await source.token(PATIENCE) is first
    source.reject(first)
    assert source.current() is first
    assert source.doubted


@in_virtual_time
async def test_a_token_that_is_trusted_again_is_due_to_be_replaced_though_nobody_asks() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.script.append(unavailable())
    source.reject(first)
    assert await source.token(PATIENCE) is first
    assert 0 < source.due(world.clock()) < 1.0
    await asyncio.sleep(1.0)
    assert source.due(world.clock()) == 0.0
    await source.refresh()
    assert not source.doubted
    assert source.due(world.clock()) > 60.0


@in_virtual_time
async def test_a_rejected_token_that_has_expired_is_not_trusted_again() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.otherwise = unavailable
    source.reject(first)
    world.clock.step(LIFETIME)
    with pytest.raises(TokenUnavailable, match="it is down"):
        await source.token(1.0)
    assert source.current() is None


@in_virtual_time
async def test_a_rejected_token_is_trusted_again_though_the_client_is_refused() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.otherwise = refused
    source.reject(first)
    assert await source.token(PATIENCE) is first


@in_virtual_time
async def test_a_token_endpoint_that_hangs_costs_the_callers_of_a_rejected_token_a_moment() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.open.clear()
    source.reject(first)
    began = asyncio.get_running_loop().time()
    assert await asyncio.gather(*(source.token(PATIENCE) for _ in range(5))) == [first] * 5
    assert asyncio.get_running_loop().time() - began == pytest.approx(DOUBT)
    world.endpoint.open.set()
    await asyncio.sleep(0.1)
    newer = source.current()
    assert newer is not None
    assert newer.access_token == "token-2"


@in_virtual_time
async def test_a_token_that_is_trusted_again_gives_way_to_a_newer_one_after_the_pause() -> None:
    world = World()
    source = world.source()
    first = await source.token(PATIENCE)
    world.endpoint.script.append(unavailable())
    source.reject(first)
    assert await source.token(PATIENCE) is first
    await asyncio.sleep(1.0)
    source.reject(first)
    await asyncio.sleep(0.1)
    assert (await source.token(PATIENCE)).access_token == "token-2"


@in_virtual_time
async def test_a_rejection_asks_for_a_new_token_at_once() -> None:
    world = World()
    source = world.source()
    source.reject(await source.token(PATIENCE))
    await asyncio.sleep(0.01)
    assert len(world.endpoint.asked) == 2


@in_virtual_time
async def test_after_a_rejection_a_refresh_is_due() -> None:
    world = World()
    source = world.source()
    source.reject(await source.token(PATIENCE))
    assert source.due(world.clock()) == 0.0


@in_virtual_time
async def test_a_rejection_during_a_refresh_throws_only_the_old_token_away() -> None:
    world = World(latency=1.0)
    source = world.source()
    first = await source.token(PATIENCE)
    refreshing = asyncio.get_running_loop().create_task(source.refresh(), name="refresh")
    await asyncio.sleep(0.5)
    source.reject(first)
    second = await source.token(PATIENCE)
    assert second is await refreshing
    source.reject(first)
    assert source.current() is second
    assert len(world.endpoint.asked) == 2


# --- the cool-down ---


@in_virtual_time
async def test_a_source_cools_down_for_some_seconds() -> None:
    source = World().source()
    known = [source.cooling_down]
    source.cool_down()
    for seconds in (0.0, COOL_DOWN - 0.001, 0.002):
        await asyncio.sleep(seconds)
        known.append(source.cooling_down)
    assert known == [False, True, True, False]


@in_virtual_time
async def test_a_further_refusal_prolongs_the_cool_down() -> None:
    source = World().source()
    source.cool_down()
    await asyncio.sleep(COOL_DOWN - 1)
    source.cool_down()
    await asyncio.sleep(2)
    assert source.cooling_down


@in_virtual_time
async def test_a_cool_down_takes_no_token_away() -> None:
    world = World()
    source = world.source()
    token = await source.token(PATIENCE)
    source.cool_down()
    assert source.current() is token
    assert await source.token(PATIENCE) is token


@in_virtual_time
async def test_a_cool_down_is_forgiven() -> None:
    source = World().source()
    source.cool_down()
    source.forgive()
    assert not source.cooling_down


@pytest.mark.parametrize("stepped", [3600.0, -3600.0])
@in_virtual_time
async def test_the_wall_clock_neither_ends_nor_prolongs_a_cool_down(stepped: float) -> None:
    world = World()
    source = world.source()
    source.cool_down()
    world.clock.step(stepped)
    known = [source.cooling_down]
    await asyncio.sleep(COOL_DOWN)
    assert [*known, source.cooling_down] == [True, False]


@in_virtual_time
async def test_a_machine_that_slept_has_cooled_down() -> None:
    world = World()
    source = world.source()
    source.cool_down()
    world.clock.suspend(3600.0)
    assert not source.cooling_down

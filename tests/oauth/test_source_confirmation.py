"""With ``org_id``: no token is given out before the API has said whose it is."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

import pytest

from proxy.core.grants import Client
from proxy.core.report import Tally
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.line import Line
from proxy.oauth.source import TokenSource
from tests.oauth import fakes
from tests.oauth.fakes import LIFETIME
from tests.oauth.virtual_time import in_virtual_time


class Api:
    """Says whose a token is as a test does.

    :ivar asked: the tokens, in order
    :ivar says: what the next confirmations end with; None and what comes after: it is the right one's
    """

    def __init__(self, *says: TokenError | None) -> None:
        self.asked: list[str] = []
        self.says = deque(says)
        self.open = asyncio.Event()
        self.open.set()

    async def confirm(self, client: Client, access_token: str) -> None:
        assert client.org_id == "org-1"
        self.asked.append(access_token)
        await self.open.wait()
        said = self.says.popleft() if self.says else None
        if said is not None:
            raise said


def source(world: fakes.World, api: Api, org_id: str | None = "org-1") -> TokenSource:
    client = replace(fakes.client(), org_id=org_id)
    made = TokenSource(
        lambda asked: Line(
            client,
            world.endpoint,
            world.store,
            confirmation=api,
            asked=asked,
            clock=world.clock,
            jitter=lambda: 0.0,
        ),
        clock=world.clock,
        jitter=lambda: 0.0,
    )
    made.tallies.append(world.tallies.setdefault("acme", Tally()))
    return made


WRONG = TokenRefused("Tenant acme: of another org.", error="wrong_organization")
REFUSED = TokenRefused("Tenant acme: not taken.", error="token_rejected")
ELSEWHERE = TokenRefused("Tenant acme: no such API.", error="unconfirmed")
LATER = TokenUnavailable("Tenant acme: can't be told.", error="unconfirmed")


@in_virtual_time
async def test_the_first_token_is_confirmed_and_those_after_it_are_not() -> None:
    world, api = fakes.World(), Api()
    asking = source(world, api)
    assert (await asking.token(15)).access_token == "token-1"
    await asyncio.sleep(LIFETIME)
    assert (await asking.token(15)).access_token == "token-2"
    assert api.asked == ["token-1"]


@in_virtual_time
async def test_without_org_id_nobody_is_asked() -> None:
    world, api = fakes.World(), Api()
    await source(world, api, org_id=None).token(15)
    assert api.asked == []


@in_virtual_time
async def test_a_token_is_in_nobodys_hands_while_it_is_not_confirmed() -> None:
    world, api = fakes.World(), Api()
    asking = source(world, api)
    api.open.clear()
    waiting = [asyncio.get_running_loop().create_task(asking.token(15)) for _ in range(20)]
    await asyncio.sleep(1)
    assert api.asked == ["token-1"]
    assert asking.current() is None
    assert not any(task.done() for task in waiting)
    api.open.set()
    assert {token.access_token for token in await asyncio.gather(*waiting)} == {"token-1"}
    assert len(world.endpoint.asked) == len(api.asked) == 1


@pytest.mark.parametrize("says", [WRONG, ELSEWHERE])
@in_virtual_time
async def test_a_token_of_another_organization_or_of_none_is_never_used(says: TokenRefused) -> None:
    world, api = fakes.World(), Api(*[says] * 100)
    asking = source(world, api)
    for _ in range(60):
        with pytest.raises(TokenRefused, match=r"of another org|no such API"):
            await asking.token(5)
        assert asking.current() is None
        await asyncio.sleep(10)
    assert set(api.asked) == {"token-1"}, "no second one is asked for: the API would say the same of it"
    assert len(api.asked) < 20, "told from memory in between"


@in_virtual_time
async def test_a_token_that_the_api_refuses_is_replaced() -> None:
    world, api = fakes.World(), Api(REFUSED)
    asking = source(world, api)
    with pytest.raises(TokenRefused):
        await asking.token(5)
    await asyncio.sleep(10)
    assert (await asking.token(15)).access_token == "token-2"


@in_virtual_time
async def test_a_token_of_the_store_that_has_ended_before_it_was_confirmed_is_replaced_at_once() -> None:
    world, api = fakes.World(), Api(LATER, REFUSED)
    with pytest.raises(TokenUnavailable):
        await source(world, api).token(0.1)
    assert (await source(world, api).token(15)).access_token == "token-2"
    assert api.asked == ["token-1", "token-1", "token-2"]


@in_virtual_time
async def test_a_new_token_that_the_api_refuses_as_well_is_the_last_for_a_while() -> None:
    world, api = fakes.World(), Api(LATER, *[REFUSED] * 9)
    with pytest.raises(TokenUnavailable):
        await source(world, api).token(0.1)
    asking = source(world, api)
    for _ in range(5):
        with pytest.raises(TokenRefused, match="not taken"):
            await asking.token(5)
    assert api.asked == ["token-1", "token-1", "token-2"]


@in_virtual_time
async def test_a_token_that_can_not_be_confirmed_yet_is_kept_and_no_other_is_asked_for() -> None:
    world, api = fakes.World(), Api(*[LATER] * 3)
    asking = source(world, api)
    assert (await asking.token(15)).access_token == "token-1"
    assert api.asked == ["token-1"] * 4
    assert len(world.endpoint.asked) == 1


@in_virtual_time
async def test_one_that_could_not_be_confirmed_in_its_life_is_asked_for_again() -> None:
    world, api = fakes.World(), Api(LATER)
    asking = source(world, api)
    with pytest.raises(TokenUnavailable):
        await asking.token(0.1)
    await asyncio.sleep(LIFETIME)
    assert (await asking.token(15)).access_token == "token-2"
    assert api.asked == ["token-1", "token-2"]


@in_virtual_time
async def test_what_was_confirmed_once_is_known_after_a_restart_and_to_other_processes() -> None:
    world, api = fakes.World(), Api()
    await source(world, api).token(15)
    other = source(world, api)
    assert (await other.token(15)).access_token == "token-1"
    await asyncio.sleep(LIFETIME)
    assert (await other.token(15)).access_token == "token-2"
    assert api.asked == ["token-1"]


@in_virtual_time
async def test_another_org_id_is_another_question() -> None:
    world, api = fakes.World(), Api()
    await source(world, api).token(15)
    assert (await source(world, api, org_id=None).token(15)).access_token == "token-2"
    assert api.asked == ["token-1"]

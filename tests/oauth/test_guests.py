"""Guests' JWTs: served to who shows them, refreshed by one request each, forgotten in time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.guests import GuestNews, RefreshedJwt
from proxy.core.report import Tally
from proxy.core.secret import Secret
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.guests import Guests, GuestTokens
from tests.oauth.virtual_time import WALL, VirtualClock, in_virtual_time

LIFETIME = 900.0
DAY = 86_400.0

_numbers = itertools.count()


def made(expires_at: float) -> str:
    """A JWT that nobody has seen before."""
    return jwt.encode({"exp": int(expires_at), "jti": next(_numbers)}, "k" * 32, "HS256")


def credential(token: str) -> bytes:
    return b"Bearer " + token.encode()


class Api:
    """Refreshes JWTs by the test's clock.

    :ivar asked: the refresh tokens, in order
    :ivar fails: what the next refreshes raise
    """

    tenant = "acme"

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.asked: list[str] = []
        self.issued: list[str] = []
        self.issued_to: dict[str, str] = {}
        self.fails: list[TokenError | Exception] = []
        self.open = asyncio.Event()
        self.open.set()

    async def refresh(self, refresh_token: Secret) -> RefreshedJwt:
        self.asked.append(refresh_token.reveal())
        await self.open.wait()
        if self.fails:
            raise self.fails.pop(0)
        now = self.clock.look().wall
        self.issued.append(made(now + LIFETIME))
        self.issued_to[self.issued[-1]] = refresh_token.reveal()
        return RefreshedJwt(self.issued[-1], now - 1)


class World:
    def __init__(
        self,
        *,
        size: int = 100,
        clock: VirtualClock | None = None,
        tell: Callable[[GuestNews], None] = lambda _: None,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.api = Api(self.clock)
        self.tally = Tally()
        self.guests = Guests(self.api, self.tally, clock=self.clock, jitter=lambda: 0.0, size=size, tell=tell)

    def login(self, refresh_token: str = "r1", lifetime: float = LIFETIME) -> str:
        """The JWT of a guest who has just exchanged a code."""
        now = self.clock.look().wall
        token = made(now + lifetime)
        self.guests.learn(token, refresh_token, now - 1)
        return token

    def owner(self, token: str, logins: dict[str, str]) -> str:
        """Whose refresh token a JWT came with."""
        return logins.get(token) or self.api.issued_to[token]

    def find(self, token: str) -> GuestTokens:
        found = self.guests.find(credential(token))
        assert found is not None
        return found

    async def sent(self, token: str) -> str:
        """What a call with this JWT goes out with."""
        tokens = self.find(token)
        return (tokens.current() or await tokens.token(15)).access_token


@in_virtual_time
async def test_a_fresh_jwt_goes_out_as_it_came() -> None:
    world = World()
    token = world.login()
    assert await world.sent(token) == token
    await asyncio.sleep(LIFETIME - 61)
    assert await world.sent(token) == token
    assert world.api.asked == []


@in_virtual_time
async def test_one_that_is_about_to_expire_is_refreshed_behind_the_caller() -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME - 59)
    assert await world.sent(token) == token
    await asyncio.sleep(0.1)
    assert world.api.asked == ["r1"]
    assert await world.sent(token) == world.api.issued[-1]


@in_virtual_time
async def test_an_expired_one_waits_for_its_one_refresh_however_many_call() -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME - 4)
    world.api.open.clear()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(world.sent(token)) for _ in range(50)]
        await asyncio.sleep(1)
        world.api.open.set()
    assert {call.result() for call in calls} == {world.api.issued[0]}
    assert world.api.asked == ["r1"]
    assert world.tally.token_requests == {("guest_refresh", "ok"): 1}


@in_virtual_time
async def test_a_guest_is_served_all_day_by_the_jwt_of_the_morning_and_no_longer() -> None:
    world = World()
    token = world.login()
    for _ in range(int(DAY / 600) - 1):
        await asyncio.sleep(600)
        sent = await world.sent(token)
        expires_at = jwt.decode(sent, options={"verify_signature": False})["exp"]
        assert expires_at > world.clock.look().wall
    await asyncio.sleep(601)
    assert world.guests.find(credential(token)) is None
    assert len(world.guests) == 0


@in_virtual_time
async def test_nobody_is_served_another_guests_jwt() -> None:
    world = World()
    tokens = {world.login(f"r{number}"): f"r{number}" for number in range(10)}
    await asyncio.sleep(LIFETIME)
    sent = {token: await world.sent(token) for token in tokens}
    assert len(set(sent.values())) == 10
    assert world.api.asked == list(tokens.values())
    assert [sent[token] for token in tokens] == world.api.issued


@in_virtual_time
async def test_only_the_exact_jwt_is_known() -> None:
    world = World()
    token = world.login()
    head, claims, signature = token.split(".")
    for other in (made(WALL + 900), f"{head}.{claims}.", f"{head}.{claims}.{signature}x", token[:-1], "r1", ""):
        assert world.guests.find(credential(other)) is None
    assert world.guests.find(None) is None
    assert world.guests.find(b"Basic " + token.encode()) is None
    assert world.guests.find(b"bearer  " + token.encode()) is not None


@in_virtual_time
async def test_a_guest_who_refreshes_may_go_on_with_either_jwt() -> None:
    world = World()
    first = world.login()
    await asyncio.sleep(100)
    second = world.login()
    assert await world.sent(first) == first, "it is still good"
    await asyncio.sleep(LIFETIME - 80)
    assert await world.sent(first) == second
    assert await world.sent(second) == second
    assert world.api.asked == []


# --- refusals ---


@in_virtual_time
async def test_a_refused_jwt_is_replaced_once_and_stays_out_of_use() -> None:
    world = World()
    token = world.login()
    tokens = world.find(token)
    shown = tokens.current()
    assert shown is not None
    tokens.reject(shown)
    assert tokens.current() is None
    assert (await tokens.token(15)).access_token == world.api.issued[0]
    assert await world.sent(token) == world.api.issued[0]
    tokens.reject(shown)
    assert await world.sent(token) == world.api.issued[0], "the newer one stays"
    assert world.api.asked == ["r1"]


@in_virtual_time
async def test_when_the_fresh_one_is_refused_too_it_is_left_alone_for_some_seconds() -> None:
    world = World()
    token = world.login()
    tokens = world.find(token)
    shown = tokens.current()
    assert shown is not None
    tokens.reject(shown)
    fresh = await tokens.token(15)
    assert not world.find(token).cooling_down
    tokens.cool_down()
    assert world.find(token).cooling_down
    tokens.reject(fresh)
    assert await tokens.token(15) is fresh
    assert len(world.api.asked) == 1
    await asyncio.sleep(5)
    assert not world.find(token).cooling_down
    assert (await tokens.token(15)).access_token == world.api.issued[1]


@pytest.mark.parametrize("expired", [True, False])
@in_virtual_time
async def test_a_refresh_token_that_is_refused_is_forgotten_and_the_call_goes_out_as_it_came(expired: bool) -> None:
    world = World()
    token = world.login()
    world.api.fails = [TokenRefused("no", error="http_401")]
    if expired:
        await asyncio.sleep(LIFETIME)
    tokens = world.find(token)
    shown = tokens.current()
    if shown is not None:
        tokens.reject(shown)
    assert (await tokens.token(15)).access_token == token
    assert world.guests.find(credential(token)) is None
    assert tokens.guest.refresh_token == Secret("")
    assert tokens.cooling_down
    assert world.tally.token_requests == {("guest_refresh", "http_401"): 1}


@in_virtual_time
async def test_while_the_api_is_down_calls_go_out_as_they_came_and_it_is_asked_ever_less_often() -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME)
    world.api.fails = [TokenUnavailable("down", error="http_503") for _ in range(1000)]
    for _ in range(600):
        assert await world.sent(token) == token
        await asyncio.sleep(0.1)
    assert 5 <= len(world.api.asked) <= 10
    world.api.fails.clear()
    await asyncio.sleep(30)
    assert await world.sent(token) == world.api.issued[0]


@in_virtual_time
async def test_a_refresh_that_takes_too_long_costs_the_caller_only_their_patience() -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME)
    world.api.open.clear()
    before = world.clock.look().elapsed
    assert (await world.find(token).token(2)).access_token == token
    assert world.clock.look().elapsed - before == 2
    world.api.open.set()
    await asyncio.sleep(0.1)
    assert await world.sent(token) == world.api.issued[0], "and it goes on behind"


@in_virtual_time
async def test_a_caller_who_leaves_cancels_only_their_own_waiting() -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME)
    world.api.open.clear()
    async with asyncio.TaskGroup() as group:
        leaves = group.create_task(world.sent(token))
        stays = group.create_task(world.sent(token))
        await asyncio.sleep(1)
        leaves.cancel()
        await asyncio.sleep(1)
        world.api.open.set()
    assert stays.result() == world.api.issued[0]
    assert world.api.asked == ["r1"]


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["call", "call", "refuse", "login", "expire", "revoke", "down", "refused"]),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_a_guest_is_sent_with_a_jwt_of_their_own(steps: list[tuple[int, str]]) -> None:
    in_virtual_time(_play)(steps)


async def _play(steps: list[tuple[int, str]]) -> None:
    world = World()
    owners: dict[str, str] = {}
    held: dict[str, str] = {}

    def login(guest: str) -> None:
        held[guest] = world.login(guest)
        owners[held[guest]] = guest

    for number in range(3):
        login(f"r{number}")
    for number, step in steps:
        guest = f"r{number}"
        token, asked = held[guest], len(world.api.asked)
        match step:
            case "login":
                login(guest)
            case "expire":
                await asyncio.sleep(LIFETIME)
            case "revoke":
                world.guests.forget(credential(token))
            case "down":
                world.api.fails.append(TokenUnavailable("down", error="http_503"))
            case "refused":
                world.api.fails.append(TokenRefused("no", error="http_401"))
            case _:
                tokens = world.guests.find(credential(token))
                if tokens is not None:
                    sent = tokens.current() or await tokens.token(15)
                    if step == "refuse":
                        tokens.reject(sent)
                        sent = tokens.current() or await tokens.token(15)
                    await asyncio.sleep(0)
                    assert world.owner(sent.access_token, owners) == guest
        assert len(world.api.asked) - asked <= 2


# --- with other processes ---


def two_processes() -> tuple[World, World]:
    """Each is told what the other learns."""
    one = World()
    other = World(clock=one.clock, tell=one.guests.take)
    one.guests._tell = other.guests.take
    return one, other


@in_virtual_time
async def test_a_guest_is_known_in_every_process_and_each_refreshes_once() -> None:
    one, other = two_processes()
    token = one.login("r1")
    assert await other.sent(token) == token
    assert other.api.asked == []
    await asyncio.sleep(LIFETIME)
    assert await other.sent(token) in other.api.issued
    assert await one.sent(token) in one.api.issued
    assert (one.api.asked, other.api.asked) == (["r1"], ["r1"])
    assert other.guests.find(credential(made(WALL))) is None


@in_virtual_time
async def test_a_guest_who_is_forgotten_in_one_process_is_forgotten_in_all() -> None:
    one, other = two_processes()
    token, stays = one.login("r1"), other.login("r2")
    other.guests.forget(credential(token))
    assert one.guests.find(credential(token)) is None
    assert await one.sent(stays) == stays
    one.guests.take(GuestNews("acme", "nobody", None, one.clock(), 0.0))


@in_virtual_time
async def test_a_guest_of_another_process_is_forgotten_when_their_day_is_over() -> None:
    one, other = two_processes()
    token = one.login("r1")
    await asyncio.sleep(DAY - 1)
    assert other.guests.find(credential(token)) is not None
    await asyncio.sleep(1)
    assert other.guests.find(credential(token)) is None


# --- what is remembered ---


@in_virtual_time
async def test_revoke_forgets_every_jwt_of_the_guest_and_no_other() -> None:
    world = World()
    first, second, other = world.login("r1"), world.login("r1"), world.login("r2")
    world.guests.forget(credential(second))
    assert world.guests.find(credential(first)) is None
    assert world.guests.find(credential(second)) is None
    assert await world.sent(other) == other
    again = world.login("r1")
    assert await world.sent(again) == again, "the same refresh token in another login"


@in_virtual_time
async def test_a_refresh_under_way_does_not_bring_back_who_was_forgotten() -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME)
    world.api.open.clear()
    tokens = world.find(token)
    waiting = asyncio.get_running_loop().create_task(tokens.token(15))
    await asyncio.sleep(1)
    world.guests.forget(credential(token))
    world.api.open.set()
    assert (await waiting).access_token == token
    assert tokens.guest.newest is None


@in_virtual_time
async def test_the_memory_is_bounded_and_those_not_seen_for_longest_go_first() -> None:
    world = World(size=10)
    regular = world.login("regular")
    for number in range(100):
        world.login(f"r{number}")
        assert world.guests.find(credential(regular)) is not None
    assert len(world.guests) == 20


@in_virtual_time
async def test_a_token_that_says_no_expiry_is_replaced_when_it_is_refused() -> None:
    world = World()
    world.guests.learn("opaque", "r1", None)
    await asyncio.sleep(DAY / 2)
    assert await world.sent("opaque") == "opaque"
    tokens = world.find("opaque")
    shown = tokens.current()
    assert shown is not None
    tokens.reject(shown)
    assert (await tokens.token(15)).access_token == world.api.issued[0]


@in_virtual_time
async def test_a_wrong_clock_here_does_no_harm() -> None:
    world = World()
    world.clock.step(-3600)
    token = made(WALL + LIFETIME)
    world.guests.learn(token, "r1", WALL - 1)
    await asyncio.sleep(LIFETIME - 61)
    assert await world.sent(token) == token
    await asyncio.sleep(60)
    assert await world.sent(token) != token


@in_virtual_time
async def test_nothing_of_a_guest_shows_in_a_repr() -> None:
    world = World()
    token = world.login("hunter2")
    tokens = world.find(token)
    shown = f"{tokens!r}{tokens.guest!r}{tokens.current()!r}{world.guests!r}{tokens._shown!r}"
    assert token not in shown
    assert "hunter2" not in shown
    assert tokens.seconds_left(tokens.current()) == LIFETIME  # type: ignore[arg-type]


@in_virtual_time
async def test_closing_ends_refreshes_and_forgets_everybody() -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME)
    world.api.open.clear()
    waiting = asyncio.get_running_loop().create_task(world.find(token).token(15))
    await asyncio.sleep(1)
    await world.guests.close()
    assert (await waiting).access_token == token
    assert len(world.guests) == 0
    assert world.tally.token_requests == {("guest_refresh", "cancelled"): 1}


@in_virtual_time
async def test_a_defect_ends_the_guests_refreshing_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    token = world.login()
    await asyncio.sleep(LIFETIME)
    world.api.fails = [ZeroDivisionError()]
    assert (await world.find(token).token(15)).access_token == token
    assert "a defect of this program ended a guest's refresh" in caplog.text

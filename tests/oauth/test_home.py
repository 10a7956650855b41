"""Names of one line of refresh tokens: whoever asks by whichever goes on with it, and nobody sends a spent one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.core.grants import Client
from proxy.core.lineage import Record, digest
from proxy.core.secret import Secret
from proxy.core.turn import LOOK_AGAIN, Refuse, supplied
from proxy.errors import StoreError
from proxy.oauth.home import Home
from proxy.oauth.line import Line, Obtained
from proxy.oauth.store import Reading, TokenStore
from proxy.oauth.store.memory import MemoryStore
from tests.oauth import fakes
from tests.oauth.test_line import Kept, Rotating
from tests.oauth.virtual_time import VirtualClock, in_virtual_time

A = fakes.client("a", grant="refresh_token")
B = replace(A, tenant="b")
NEW = Secret("new-0")


def given(client: Client, refresh_token: str | None) -> Client:
    return replace(client, refresh_token=None if refresh_token is None else Secret(refresh_token))


class World:
    """An endpoint, and the store that all share."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.endpoint = Rotating()
        self.store: MemoryStore = Kept(self.clock)

    def line(self, client: Client) -> Line:
        return Line(client, self.endpoint, self.store, asked=lambda *_: None, clock=self.clock, jitter=lambda: 0.0)

    async def sent(self, *asking: Line | Client) -> list[str | None]:
        """What these send who need a new token, one after the other."""
        before = len(self.endpoint.shown)
        for one in asking:
            line = one if isinstance(one, Line) else self.line(one)
            sent = len(self.endpoint.shown)
            outcome = await line.next(rejected=True)
            while isinstance(outcome, Obtained) and len(self.endpoint.shown) == sent:
                outcome = await line.next(rejected=True)  # that was another's
            assert isinstance(outcome, Obtained), outcome
        return self.endpoint.shown[before:]

    async def next(self, client: Client) -> str | None:
        """The refresh token that is sent next as this client."""
        [sent] = await self.sent(client)
        return sent

    async def put(self, key: str, record: Record) -> None:
        assert await self.store.replace(await self.store.load(key), record) is not None

    async def as_before(self, client: Client, refresh_token: str = "old-5") -> None:
        """Keeps a line as versions did that knew no leading: under the tenant's name."""
        assert client.refresh_token is not None
        record = Record(refresh_token=Secret(refresh_token), generation=5, seeds=(digest(client.refresh_token),))
        await self.put(client.named, record)


@in_virtual_time
async def test_a_line_goes_on_under_another_name() -> None:
    world = World()
    assert [await world.next(client) for client in (A, B, B, A)] == ["refresh-0", "refresh-1", "refresh-2", "refresh-3"]


@in_virtual_time
async def test_a_line_that_is_known_goes_on_when_its_tenant_is_called_otherwise() -> None:
    world = World()
    line = world.line(A)
    assert await world.sent(line) == ["refresh-0"]
    line.client = B
    assert await world.sent(line) == ["refresh-1"]
    assert await world.next(given(B, None)) == "refresh-2", "the new name leads there as well"


@in_virtual_time
async def test_a_refresh_token_of_another_client_or_server_is_another() -> None:
    world = World()
    await world.next(A)
    for other in (replace(A, client_id="other"), replace(A, token_url="https://login.example.org/oauth/token")):
        assert await world.next(other) == "refresh-0"


@in_virtual_time
async def test_a_tenant_goes_on_whose_refresh_token_is_taken_out_of_the_configuration() -> None:
    world = World()
    assert await world.next(A) == "refresh-0"
    assert await world.next(given(A, None)) == "refresh-1"


@in_virtual_time
async def test_one_with_an_older_configuration_takes_part_in_what_the_newer_brought() -> None:
    world = World()
    older = world.line(A)
    assert await world.sent(older) == ["refresh-0"]
    assert await world.next(given(A, "new-0")) == "new-0"
    assert await world.sent(older) == ["refresh-2"]
    assert await world.next(given(A, "new-0")) == "refresh-3"
    assert await world.next(A) == "refresh-4", "nor does a new process with the older one go back"


@in_virtual_time
async def test_a_new_refresh_token_of_one_name_leaves_the_line_to_the_others() -> None:
    world = World()
    assert await world.next(A) == "refresh-0"
    assert await world.next(B) == "refresh-1"
    assert await world.next(given(A, "new-0")) == "new-0"
    assert await world.next(B) == "refresh-2"
    assert await world.next(given(A, "new-0")) == "refresh-3"


@in_virtual_time
async def test_a_name_that_another_tenant_is_given_leads_to_that_ones_line() -> None:
    world = World()
    assert await world.next(A) == "refresh-0"
    assert await world.next(given(A, "new-0")) == "new-0", "that is another tenant now"
    assert await world.next(B) == "refresh-1", "and this is the one of before"


@in_virtual_time
async def test_the_refresh_token_of_a_login_gives_way_to_one_that_is_configured_later() -> None:
    world = World()
    await world.put(A.named, Record(refresh_token=Secret("login-1"), generation=1))
    assert await world.next(given(A, None)) == "login-1"
    running = world.line(given(A, None))
    assert await world.sent(running) == ["refresh-1"]
    assert await world.next(A) == "refresh-0"
    assert await world.sent(running) == ["refresh-3"]
    assert "login-1" not in repr([record for record, _ in world.store._kept.values()])
    assert [record.refresh_token for record, _ in world.store._kept.values() if record.refresh_token] == [
        Secret("refresh-4")
    ]


@in_virtual_time
async def test_a_name_without_any_refresh_token_needs_a_login() -> None:
    outcome = await World().line(given(A, None)).next()
    assert isinstance(outcome, Refuse)
    assert (outcome.error.error, outcome.pause) == ("login_required", LOOK_AGAIN)


# --- logins ---


async def log_in(world: World, client: Client, refresh_token: str) -> None:
    home = Home(world.store)
    seen = await home.load(client)
    seeds = () if client.refresh_token is None else (digest(client.refresh_token),)
    assert await home.supply(client, seen, supplied(seen.record or Record(), Secret(refresh_token), seeds=seeds))


@in_virtual_time
async def test_a_login_is_for_all_that_have_the_tenants_refresh_token() -> None:
    world = World()
    running = [world.line(A), world.line(B)]
    assert await world.sent(*running) == ["refresh-0", "refresh-1"]
    await log_in(world, B, "login-1")
    assert await world.sent(*running) == ["login-1", "refresh-3"]


@in_virtual_time
async def test_a_login_before_the_first_use_takes_the_place_of_the_configured_refresh_token() -> None:
    world = World()
    await log_in(world, A, "login-1")
    assert [await world.next(client) for client in (B, A)] == ["login-1", "refresh-1"]


@in_virtual_time
async def test_a_login_of_a_tenant_that_has_no_refresh_token_any_more_is_its_own() -> None:
    world = World()
    older = world.line(A)
    assert await world.sent(older) == ["refresh-0"]
    running = world.line(given(A, None))
    assert await world.sent(running, B) == ["refresh-1", "refresh-2"]
    for login in ("login-1", "login-2"):
        await log_in(world, given(A, None), login)
        assert await world.sent(running) == [login]
    assert await world.next(B) == "refresh-3", "that of others stays"
    assert await world.sent(older) == ["refresh-5"], "who has an older configuration takes part"
    assert await world.next(given(A, "new-0")) == "new-0"


# --- stores of versions that knew no leading ---


@in_virtual_time
async def test_a_line_of_before_goes_on_under_its_name_and_then_under_others() -> None:
    world = World()
    await world.as_before(A)
    assert await world.next(A) == "old-5"
    assert [await world.next(client) for client in (B, A, given(A, None), given(B, None))] == [
        f"refresh-{number}" for number in (1, 2, 3, 4)
    ]


@in_virtual_time
async def test_a_line_of_before_stays_to_be_read_by_versions_of_before_until_a_new_refresh_token_comes() -> None:
    world = World()
    await world.as_before(A)
    await world.next(A)
    record = (await world.store.load(A.named)).record
    assert record is not None
    assert (record.kept_at, record.refresh_token, record.seeds) == (
        None,
        Secret("refresh-1"),
        (digest(Secret("refresh-0")),),
    )


@in_virtual_time
async def test_a_new_refresh_token_of_a_name_of_before_leaves_the_line_to_the_others() -> None:
    world = World()
    await world.as_before(A)
    assert await world.next(A) == "old-5"
    assert await world.next(given(A, "new-0")) == "new-0"
    assert await world.next(B) == "refresh-1"
    assert await world.next(A) == "refresh-2"
    assert await world.next(B) == "refresh-3"
    assert await world.next(given(A, "new-0")) == "refresh-4"


# --- stores that lose what they had ---


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("taken_out", [False, True])
@in_virtual_time
async def test_who_runs_goes_on_though_the_store_has_lost_everything(*, before: bool, taken_out: bool) -> None:
    world = World()
    if before:
        await world.as_before(A)
    await world.next(A)
    line = world.line(given(A, None) if taken_out else A)
    assert await world.sent(line) == ["refresh-1"]
    world.store._kept.clear()
    assert await world.sent(line) == ["refresh-2"]
    assert await world.next(A) == "refresh-3"


# --- death in between ---


class Dies(MemoryStore):
    """Takes some writings, and then is seen no more by who has made them.

    :ivar left: writings that are still reported
    :ivar happens: that which is not reported is there even so
    """

    shared = True

    def __init__(self, kept: MemoryStore, left: int, *, happens: bool) -> None:
        super().__init__()
        self._all = kept
        self.left = left
        self.happens = happens

    async def load(self, key: str) -> Reading:
        return await self._all.load(key)

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        if self.left <= 0:
            if self.happens and self.left == 0:
                await self._all.replace(seen, record)
            self.left = -1
            raise StoreError("dead")
        self.left -= 1
        return await self._all.replace(seen, record)


async def find_and_write(client: Client, store: TokenStore) -> None:
    """As one who takes a lease: for as long as the store does."""
    while True:
        seen = await Home(store).load(client)
        await store.replace(seen, seen.record or Record())


@pytest.mark.parametrize("happens", [False, True])
@pytest.mark.parametrize("left", [0, 1, 2])
@pytest.mark.parametrize("before", [False, True])
@in_virtual_time
async def test_who_dies_while_it_finds_a_line_leaves_one_line_to_all_names(
    *, before: bool, left: int, happens: bool
) -> None:
    world = World()
    if before:
        await world.as_before(A)
        await Home(world.store).load(A)
    first = "old-5" if before else "refresh-0"
    for client in (A, B, given(A, "new-0"), B):
        for _ in range(2):
            with pytest.raises(StoreError):
                await find_and_write(client, Dies(world.store, left, happens=happens))
    assert [await world.next(client) for client in (B, A, B)][:1] == [first]
    assert len(set(world.endpoint.shown)) == len(world.endpoint.shown) == 3

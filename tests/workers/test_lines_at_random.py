"""Refresh tokens of several processes, used by one, whoever of them wishes and leaves at whatever moment."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.app.lines import RemoteLine
from proxy.core.turn import Refuse
from proxy.oauth.line import Obtained
from tests.oauth.virtual_time import in_virtual_time, settle
from tests.workers.test_lines import LIFETIME, World

WORKERS = 2

steps = st.one_of(
    st.tuples(st.sampled_from(["wish", "leave"]), st.integers(0, WORKERS - 1), st.booleans()),
    st.tuples(st.sampled_from(["block", "free", "slow", "prompt"]), st.just(0), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([0.1, 0.5, 2.0, LIFETIME]), st.booleans()),
)
"""What happens, to whom or for how long; and whether all that follows from it does before the next."""

ENDING = [("free", 0, True), ("prompt", 0, True), ("pass", 60.0, True)]


class Workers:
    """Some who wish, each once at a time, and what holds whatever they do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lines = [world.worker() for _ in range(WORKERS)]
        self.wishes: dict[int, asyncio.Task[Obtained | Refuse]] = {}
        self.had: dict[int, str] = {}
        self.blocked = 0

    async def do(self, what: str, which: float) -> None:
        number = int(which)
        match what:
            case "leave" if number in self.wishes:
                self.wishes.pop(number).cancel()
            case "wish" if number not in self.wishes:
                self.wishes[number] = asyncio.get_running_loop().create_task(
                    self._wish(self.lines[number], number), name=f"wish of {number}"
                )
            case "block" if not self.blocked:
                self.blocked = 1
                await self.world.endpoint.room.acquire()
            case "free":
                self.free()
            case "slow" | "prompt":
                self.world.store.slow = 0.3 if what == "slow" else 0.0
            case "pass":
                await asyncio.sleep(which)

    @property
    def failed(self) -> list[asyncio.Task[Obtained | Refuse]]:
        """Wishes that have ended otherwise than with a token."""
        return [wish for wish in self.wishes.values() if wish.done()]

    def free(self) -> None:
        if self.blocked:
            self.blocked = 0
            self.world.endpoint.room.release()

    async def _wish(self, line: RemoteLine, number: int) -> Obtained | Refuse:
        outcome = await line.next()
        assert isinstance(outcome, Obtained), outcome
        assert self.had.get(number) != outcome.access_token, "it had that one"
        self.had[number] = outcome.access_token
        self.wishes.pop(number, None)  # it may have left just now
        return outcome


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, min_size=10, max_size=40))
def test_each_refresh_token_is_used_once_for_somebody_who_waits(script: list[tuple[str, float, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), script)


@in_virtual_time
async def play(folder: Path, script: list[tuple[str, float, bool]]) -> None:
    world = World(folder, "acme")
    world.endpoint.room = asyncio.Semaphore(1)
    workers, endpoint = Workers(world), world.endpoint
    await workers.do("block", 0)
    sent: int | None = None
    for what, which, settled in [*script, *(("leave", number, True) for number in range(WORKERS)), *ENDING]:
        if what == "wish":
            sent = None
        await workers.do(what, which)
        assert sent in (None, len(endpoint.shown)), "nobody waits"
        if settled:
            await settle()
            sent = None if workers.wishes else len(endpoint.shown)
        assert not workers.failed
    assert isinstance(await world.worker().next(), Obtained)
    assert endpoint.shown == [f"acme-{number}" for number in range(len(endpoint.shown))], "each once, and none lost"
    assert await world.kept() == f"acme-{len(endpoint.shown)}"
    await world.lines.close()

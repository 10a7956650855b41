"""Whatever happens to a source, in whatever order: its promises hold.

Callers come and leave, the endpoint answers late, badly or never, tokens are refused, the machine sleeps and its
wall clock is set. The model beside the source knows what the endpoint issued, and judges every token given out, every
error told and every request sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client
from proxy.core.report import Tally
from proxy.core.secret import Secret
from proxy.core.tokens import Instant, Token
from proxy.errors import TokenError
from proxy.oauth.line import Line
from proxy.oauth.source import DOUBT, TokenSource
from proxy.oauth.store.memory import MemoryStore
from tests.oauth.fakes import client, issued, refused, unavailable
from tests.oauth.virtual_time import VirtualClock, VirtualLoop, settle

LIFETIMES: dict[object, float] = {1: 1, 7: 7, 60: 60, 3600: 3600, "600": 600, 10**9: 172_800, None: 300, 0: 0, -5: -5}
"""By what ``expires_in`` says, how long the token really lives."""

INSTANT = 1e-6
"""Seconds by which sums of floating point numbers may differ."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What the endpoint knows of a token."""

    name: str
    asked: Instant
    lifetime: float

    def left(self, now: Instant) -> float:
        """Seconds until it expires, by whichever clock saw more time pass."""
        return self.lifetime - max(now.elapsed - self.asked.elapsed, now.wall - self.asked.wall)

    def usable(self, now: Instant) -> bool:
        return self.left(now) > min(5.0, self.lifetime / 20)


class HeldEndpoint:
    """Holds a request until it is told what to answer."""

    def __init__(self, asked: Callable[[], None]) -> None:
        self._asked = asked
        self.held: asyncio.Future[TokenAnswer] | None = None

    def turn(self, client: Client) -> asyncio.Semaphore:
        return asyncio.Semaphore()

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        self._asked()
        self.held = asyncio.get_running_loop().create_future()
        return await self.held


class SourceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda _, context: self.broken.append(str(context)))
        self.clock = VirtualClock(self.loop)
        self.endpoint = HeldEndpoint(self._note_request)
        self.broken: list[str] = []
        self.callers: list[asyncio.Task[None]] = []
        self.seen: dict[str, Token] = {}
        self.latest: Issued | None = None
        self.rejected: dict[str, float] = {}
        self.trusted_again: set[str] = set()
        self.issued = 0
        self.under_way = 0
        self.failures = 0
        self.quiet_until = -math.inf
        self.asked = self.clock.look()
        self.demanded = False

    @initialize(jitter=st.floats(0, 0.999), refresh_ahead=st.sampled_from([1.0, 60.0, 1e4]))
    def begin(self, jitter: float, refresh_ahead: float) -> None:
        store = MemoryStore(lambda: self.clock.look().wall)
        self.source = TokenSource(
            lambda asked: Line(client(), self.endpoint, store, asked=asked, clock=self.clock, jitter=lambda: jitter),
            clock=self.clock,
            jitter=lambda: jitter,
        )
        self.source.take_over(client(), [Tally()], refresh_ahead)

    def teardown(self) -> None:
        if hasattr(self, "source"):
            self._heal()
        for caller in self.callers:
            caller.cancel()
        self._run(0.0)
        self.loop.close()
        self.nothing_is_broken()

    def _heal(self) -> None:
        """However it came here: with an endpoint that answers, there is a token within seconds."""
        self._run(0.0)
        if self.endpoint.held is not None:
            self.answer_with_a_refusal(settled=True)
        self.the_configuration_is_reloaded()
        healed = self.loop.create_task(self._call(15.0), name="last caller")
        self._run(0.0)
        if self.endpoint.held is not None:
            self.answer_with_a_token(3600, settled=True)
        self.expect(healed.done(), "the last caller still waits")
        self.expect(self.latest is not None and self.latest.usable(self.clock.look()), "there is no token in the end")

    # --- what the model expects ---

    def expect(self, holds: bool, promise: str) -> None:
        """Keeps what is broken for the invariant: an exception here would end in somebody's task."""
        if not holds:
            self.broken.append(promise)

    def _note_request(self) -> None:
        now = self.clock.look()
        self.under_way += 1
        self.expect(self.under_way == 1, "two requests at once")
        self.expect(now.elapsed >= self.quiet_until - INSTANT, "a request before the pause is over")
        if self.latest is not None and self.latest.name not in self.rejected and not self.demanded:
            fifth = self.latest.lifetime / 5
            self.expect(self.latest.left(now) <= fifth + INSTANT, "a refresh before the last fifth of a life")
        self.demanded = False
        self.asked = now

    def _note_given(self, token: Token, *, waited_enough: bool = False) -> None:
        now, name = self.clock.look(), token.access_token
        self.seen[name] = token
        assert self.latest is not None
        self.expect(name == self.latest.name, "not the latest token")
        if name in self.rejected and name not in self.trusted_again:
            in_vain = self.failures > 0 or now.elapsed - self.rejected[name] >= DOUBT - INSTANT
            self.expect(waited_enough or in_vain, "a rejected token, though there may be a newer one")
            self.trusted_again.add(name)
        self.expect(self.latest.usable(now), "an expired token")

    def _note_error(self, error: TokenError, *, waited_enough: bool, refused: str | None = None) -> None:
        self.expect(error.retry_after is None or error.retry_after >= 0, "a wait below nothing")
        if error.error == "timeout":
            self.expect(waited_enough, "a caller with patience is told that it has waited enough")
        usable = self.latest is not None and self.latest.usable(self.clock.look()) and self.latest.name != refused
        self.expect(not usable, "an error while a token lives, rejected or not, that was not refused to this caller")

    def _note_failure(self, first: float, longest: float, retry_after: float = 0.0) -> None:
        self.failures += 1
        shortest = 0.75 * min(longest, first * 2.0 ** min(self.failures - 1, 16))
        self.quiet_until = self.clock.look().elapsed + max(shortest, min(300.0, retry_after))

    async def _call(self, patience: float) -> None:
        began, since = self.loop.now, self.clock.look().elapsed
        try:
            token = await self.source.token(patience)
        except TokenError as error:
            self._note_error(error, waited_enough=self.clock.look().elapsed - since >= patience - INSTANT)
        else:
            self._note_given(token, waited_enough=self.clock.look().elapsed - since >= patience - INSTANT)
        self.expect(self.loop.now - began <= max(0.0, patience) + INSTANT, "a wait beyond the caller's patience")

    async def _call_again(self, name: str, patience: float) -> None:
        began, since = self.loop.now, self.clock.look().elapsed
        self.rejected.setdefault(name, since)
        try:
            token = await self.source.instead_of(self.seen[name], patience)
        except TokenError as error:
            waited_enough = self.clock.look().elapsed - since >= patience - INSTANT
            self._note_error(error, waited_enough=waited_enough, refused=name)
        else:
            self.expect(token.access_token != name, "the same token for who was refused it")
            self._note_given(token, waited_enough=self.clock.look().elapsed - since >= patience - INSTANT)
        self.expect(self.loop.now - began <= max(0.0, patience) + INSTANT, "a wait beyond the caller's patience")

    def _run(self, seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await settle()

        self.loop.run_until_complete(wait())

    def _act(self, act: Callable[[], object], *, then: float | None = 0.0) -> None:
        """Does something on the loop, and lets time pass; with None, what it caused happens with the next rule."""

        async def step() -> None:
            act()

        self.loop.run_until_complete(step())
        if then is not None:
            self._run(then)

    # --- callers ---

    @rule(patience=st.sampled_from([0.0, 0.3, 5.0, 15.0, 100.0]), count=st.integers(1, 3), settled=st.booleans())
    def callers_come(self, patience: float, count: int, settled: bool) -> None:
        for _ in range(count):
            self.callers.append(self.loop.create_task(self._call(patience), name="caller"))
        if settled:
            self._run(0.0)

    @rule(settled=st.booleans())
    def a_caller_looks_without_waiting(self, settled: bool) -> None:
        def look() -> None:
            token = self.source.current()
            if token is not None:
                self._note_given(token)

        self._act(look, then=0.0 if settled else None)

    @rule(data=st.data())
    @precondition(lambda self: any(not caller.done() for caller in self.callers))
    def a_caller_hangs_up(self, data: st.DataObject) -> None:
        waiting = [caller for caller in self.callers if not caller.done()]
        waiting[data.draw(st.integers(0, len(waiting) - 1))].cancel()
        self._run(0.0)

    @rule(data=st.data(), settled=st.booleans())
    @precondition(lambda self: self.seen)
    def the_upstream_refuses_a_token(self, data: st.DataObject, settled: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.seen)))

        def reject() -> None:
            self.rejected.setdefault(name, self.clock.look().elapsed)
            self.source.reject(self.seen[name])

        self._act(reject, then=0.0 if settled else None)

    @rule(data=st.data(), patience=st.sampled_from([0.0, 0.3, 5.0, 15.0, 100.0]), settled=st.booleans())
    @precondition(lambda self: self.seen)
    def the_upstream_refuses_a_caller(self, data: st.DataObject, patience: float, settled: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.seen)))
        self.callers.append(self.loop.create_task(self._call_again(name, patience), name="refused caller"))
        if settled:
            self._run(0.0)

    # --- the keeper and the operator ---

    @rule(settled=st.booleans())
    def the_keeper_looks(self, settled: bool) -> None:
        async def look() -> None:
            if self.source.due(self.clock()) <= 0:
                await self._refresh()

        self.callers.append(self.loop.create_task(look(), name="keeper"))
        if settled:
            self._run(0.0)

    async def _refresh(self) -> None:
        try:
            await self.source.refresh()
        except TokenError:
            return

    @rule()
    def an_operator_wants_a_new_token(self) -> None:
        def demand() -> None:
            self._forgive()
            self.demanded = self.endpoint.held is None
            self.callers.append(self.loop.create_task(self._refresh(), name="operator"))

        self._run(0.0)
        self._act(demand)

    @rule()
    def the_configuration_is_reloaded(self) -> None:
        self._run(0.0)
        self._act(self._forgive)

    def _forgive(self) -> None:
        self.source.forgive()
        self.failures = 0
        self.quiet_until = -math.inf

    # --- the endpoint ---

    @rule(expires_in=st.sampled_from(list(LIFETIMES)), settled=st.booleans())
    @precondition(lambda self: self.endpoint.held is not None)
    def answer_with_a_token(self, expires_in: object, settled: bool) -> None:
        self.issued += 1
        answer = issued(f"token-{self.issued}", expires_in)
        token = Issued(answer.access_token, self.asked, LIFETIMES[expires_in])
        if token.usable(self.clock.look()):
            self.failures, self.quiet_until = 0, -math.inf
            self._answer(lambda held: held.set_result(answer), settled, token)
        else:
            self._note_failure(0.5, 30.0)
            self._answer(lambda held: held.set_result(answer), settled)

    @rule(retry_after=st.sampled_from([None, 0.0, 3.0, 100.0, 1e9]), settled=st.booleans())
    @precondition(lambda self: self.endpoint.held is not None)
    def answer_later_please(self, retry_after: float | None, settled: bool) -> None:
        self._note_failure(0.5, 30.0, retry_after or 0.0)
        self._answer(lambda held: held.set_exception(unavailable(retry_after)), settled)

    @rule(settled=st.booleans())
    @precondition(lambda self: self.endpoint.held is not None)
    def answer_with_a_refusal(self, settled: bool) -> None:
        self._note_failure(10.0, 60.0)
        self._answer(lambda held: held.set_exception(refused()), settled)

    def _answer(
        self, give: Callable[[asyncio.Future[TokenAnswer]], None], settled: bool, token: Issued | None = None
    ) -> None:
        held, self.endpoint.held = self.endpoint.held, None
        assert held is not None

        def arrive(_: object) -> None:
            self.under_way -= 1
            if token is not None:
                self.latest = token

        held.add_done_callback(arrive)
        give(held)
        if settled:
            self._run(0.0)

    # --- time ---

    @rule(seconds=st.sampled_from([0.1, 0.4, 1.0, 5.0, 30.0, 300.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self._run(seconds)

    @rule(left=st.sampled_from([30.0, 6.0, 4.0, 1.0, 0.01]))
    @precondition(lambda self: self.latest is not None)
    def time_passes_until_a_token_has_little_left(self, left: float) -> None:
        assert self.latest is not None
        self._run(min(86_400.0, max(0.0, self.latest.left(self.clock.look()) - left)))

    @rule(seconds=st.sampled_from([0.5, 50.0, 3500.0, 1e6]))
    def the_machine_sleeps(self, seconds: float) -> None:
        self._run(0.0)
        self.clock.suspend(seconds)

    @rule(seconds=st.sampled_from([0.5, 3600.0, 1e9, -0.5, -3600.0, -1e9]))
    def the_wall_clock_is_set(self, seconds: float) -> None:
        self._run(0.0)
        self.clock.step(seconds)

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.broken == []


TestSource = SourceMachine.TestCase
TestSource.settings = settings(max_examples=80, stateful_step_count=40, deadline=None, report_multiple_bugs=False)

"""Processes that share a store and refresh tokens that can be used once: none is used twice, and none is lost.

Processes want tokens, are killed and come again, the store goes and comes, a writing happens though its process is
told that it failed, and the token endpoint takes its time between using a refresh token up and answering. The model of
the endpoint revokes everything at the first reuse, as servers with reuse detection do. The processes know the tenant
by several names.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.core.answers import TokenAnswer
from proxy.core.grants import Client
from proxy.core.lineage import Record, digest
from proxy.core.secret import Secret
from proxy.errors import StoreError, TokenRefused, TokenUnavailable
from proxy.oauth.home import Home
from proxy.oauth.line import Line, Obtained
from proxy.oauth.store import Reading
from proxy.oauth.store.memory import MemoryStore
from tests.oauth import fakes
from tests.oauth.virtual_time import VirtualClock, VirtualLoop, settle

PERSON = fakes.client(grant="refresh_token")

LIFETIME = 30.0
TIMEOUT = 10.0
"""Seconds after which a request is given up, as ``endpoint.REQUEST_TIMEOUT``."""


@dataclass(eq=False)
class Request:
    """A token request under way."""

    process: Process
    refresh_token: str
    answer: asyncio.Future[TokenAnswer]
    used: TokenAnswer | None = None
    """What the endpoint has decided to answer."""
    refused: bool = False


@dataclass(eq=False)
class Process:
    """One of those that share the store; a dead one does nothing any more."""

    number: int
    alive: bool = True
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    line: Line = field(init=False)


class SharedStore:
    """One process's way to the store.

    :ivar owner: the process
    """

    shared = True

    def __init__(self, machine: LineMachine, process: Process) -> None:
        self.owner = f"p{process.number}"
        self._machine = machine
        self._process = process

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if not self._process.alive:
            await asyncio.Event().wait()
        if self._machine.store_is_down:
            raise StoreError("The store is down.")

    async def load(self, key: str) -> Reading:
        await self._reach()
        seen = await self._machine.kept.load(key)
        lease = None if seen.record is None else seen.record.lease
        dead = {f"p{process.number}" for process in self._machine.dead}
        abandoned = lease is not None and self._machine.sees_deaths and lease.owner.partition("/")[0] in dead
        return Reading(key, seen.record, seen.version, seen.now, abandoned)

    async def replace(self, seen: Reading, record: Record) -> Reading | None:
        await self._reach()
        written = await self._machine.kept.replace(seen, record)
        if self._machine.writes_in_secret:
            self._machine.writes_in_secret = False
            raise StoreError("No answer in time.")
        await asyncio.sleep(0)
        if not self._process.alive:
            await asyncio.Event().wait()
        return written

    async def changed(self, seen: Reading, seconds: float) -> None:
        await self._reach()
        if not (self._machine.sees_deaths and seen.abandoned):
            await self._machine.kept.changed(seen, min(seconds, 1.0) if self._machine.sees_deaths else seconds)

    async def close(self) -> None:
        return


class LineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda _, context: self.broken.append(str(context)))
        self.clock = VirtualClock(self.loop)
        self.kept = MemoryStore(lambda: self.clock.look().wall)
        self.broken: list[str] = []
        self.store_is_down = False
        self.writes_in_secret = False
        self.requests: list[Request] = []
        self.processes: list[Process] = []
        self.dead: list[Process] = []
        self.started = 0
        # --- the token endpoint ---
        self.valid = "refresh-0"
        self.issued = 0
        self.sent: dict[str, int] = {}
        self.excused: dict[str, int] = {}
        """By refresh token, how often it may be sent once more: a process died or got no answer."""
        self.revoked = False

    @initialize(count=st.integers(1, 3), sees_deaths=st.booleans(), names=st.integers(1, 3), since_before=st.booleans())
    def begin(self, count: int, sees_deaths: bool, names: int, since_before: bool) -> None:
        self.sees_deaths = sees_deaths
        self.names = names
        if since_before:
            self.loop.run_until_complete(self._keep_as_before())
        for _ in range(count):
            self._start()

    async def _keep_as_before(self) -> None:
        """Keeps the line under a tenant's name, as earlier versions did, which this one has seen since."""
        seed = Secret(self.valid)
        record = Record(refresh_token=seed, generation=1, seeds=(digest(seed),))
        await self.kept.replace(await self.kept.load(PERSON.named), record)
        await Home(self.kept).load(PERSON)

    def _start(self) -> None:
        """Each knows the tenant by another name, of as many as there are."""
        self.started += 1
        process = Process(self.started)
        process.line = Line(
            replace(PERSON, tenant=("acme", "emca", "meca")[self.started % self.names]),
            Endpoint(self, process),
            SharedStore(self, process),
            asked=lambda *_: None,
            clock=self.clock,
            jitter=lambda: 0.0,
        )
        self.processes.append(process)

    def teardown(self) -> None:
        if hasattr(self, "sees_deaths"):
            self._heal()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self._run(0.0)
        self.loop.close()
        self.nothing_is_broken()

    def _heal(self) -> None:
        """However it came here: if nobody was killed, and every request was answered, there is a token at once."""
        self.store_is_down = self.writes_in_secret = False
        for _ in range(40):
            for process in self.processes:
                self._want(process)
            self._run(1.0)
            for request in list(self.requests):
                self._use(request)
                self._answer(request)
            self._run(0.0)
        self.expect(bool(self.excused) or not self.revoked, "the endpoint has revoked everything")
        if self.revoked or len(self.dead) > 1:
            return  # a token that two have died over is given up, though the endpoint may never have seen it
        for process in self.processes:
            process.line.pardon()
            self.loop.run_until_complete(self._expect_token(process))

    async def _expect_token(self, process: Process) -> None:
        for task in process.tasks:
            task.cancel()
        await settle()
        waiting = self.loop.create_task(process.line.next(), name="last")
        for _ in range(60):
            await asyncio.sleep(0.5)
            for request in list(self.requests):
                self._use(request)
                self._answer(request)
            if waiting.done():
                break
        healed = waiting.done() and isinstance(waiting.result(), Obtained)
        self.expect(
            healed or (self.revoked and bool(self.excused)),
            f"there is no token in the end: {waiting.done() and waiting.result()}",
        )

    # --- what the model expects ---

    def expect(self, holds: bool, promise: str) -> None:
        """Keeps what is broken for the invariant: an exception here would end in somebody's task."""
        if not holds:
            self.broken.append(promise)

    def note_request(self, request: Request) -> None:
        name = request.refresh_token
        under_way = [other for other in self.requests if other.process.alive and other.refresh_token == name]
        self.expect(not under_way, f"{name} is sent while it is under way")
        self.requests.append(request)
        self.sent[name] = self.sent.get(name, 0) + 1
        self.expect(self.sent[name] <= 1 + self.excused.get(name, 0), f"{name} is sent again")

    def excuse(self, refresh_token: str) -> None:
        self.excused[refresh_token] = self.excused.get(refresh_token, 0) + 1

    def _run(self, seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await settle()

        self.loop.run_until_complete(wait())

    # --- processes ---

    @rule(data=st.data(), turns=st.integers(0, 8))
    @precondition(lambda self: self.processes)
    def a_process_wants_a_token(self, data: st.DataObject, turns: int) -> None:
        self._want(data.draw(st.sampled_from(self.processes)), turns)

    def _want(self, process: Process, turns: int = 20) -> None:
        process.tasks = [task for task in process.tasks if not task.done()]
        if not process.tasks:  # a source asks its line for one token at a time
            process.tasks.append(self.loop.create_task(self._next(process), name=f"process {process.number}"))
        self._turn(turns)

    async def _next(self, process: Process) -> None:
        await process.line.next()

    def _turn(self, turns: int) -> None:
        async def some() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(some())

    @rule(data=st.data())
    @precondition(lambda self: self.processes)
    def a_process_is_killed_and_another_starts(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.processes))
        process.alive = False
        self.processes.remove(process)
        self.dead.append(process)
        # Whatever it had under way or not stored may be sent once more, by whoever finds its note.
        known = {request.refresh_token for request in self.requests if request.process is process}
        for name in known | ({self.last_used} if process.line.unsaved or process.tasks else set()):
            self.excuse(name)
        self._start()

    @property
    def last_used(self) -> str:
        """The refresh token whose successor is the newest."""
        return f"refresh-{max(0, self.issued - 1)}"

    # --- the store ---

    @rule()
    def the_store_goes_or_comes(self) -> None:
        self.store_is_down = not self.store_is_down

    @rule()
    def a_writing_will_seem_to_have_failed(self) -> None:
        self.writes_in_secret = True

    # --- the token endpoint ---

    @rule(data=st.data())
    @precondition(lambda self: any(request.used is None for request in self.requests))
    def the_endpoint_uses_a_refresh_token_up(self, data: st.DataObject) -> None:
        self._use(data.draw(st.sampled_from([request for request in self.requests if request.used is None])))

    def _use(self, request: Request) -> None:
        if request.used is not None:
            return
        if request.refresh_token != self.valid or self.revoked:
            request.refused = self.revoked = True
        else:
            self.issued += 1
            self.valid = f"refresh-{self.issued}"
        request.used = TokenAnswer(f"access-{self.issued}", LIFETIME, None, self.valid)

    @rule(data=st.data(), turns=st.integers(0, 6))
    @precondition(lambda self: any(request.used is not None for request in self.requests))
    def the_endpoint_answers(self, data: st.DataObject, turns: int) -> None:
        self._answer(data.draw(st.sampled_from([request for request in self.requests if request.used is not None])))
        self._turn(turns)

    def _answer(self, request: Request) -> None:
        self.requests.remove(request)
        if request.answer.done() or request.used is None:
            return
        if request.refused:
            request.answer.set_exception(TokenRefused("It was used before.", error="invalid_grant"))
        else:
            request.answer.set_result(request.used)

    @rule(data=st.data(), seconds=st.sampled_from([0.2, 9.0, 14.0]), turns=st.integers(0, 8))
    @precondition(lambda self: self.requests and not self.store_is_down)
    def an_answer_comes_while_the_store_is_gone(self, data: st.DataObject, seconds: float, turns: int) -> None:
        self.store_is_down = True
        request = data.draw(st.sampled_from(self.requests))
        self._use(request)
        self._answer(request)
        self._run(seconds)
        self.store_is_down = False
        self._want(data.draw(st.sampled_from(self.processes)), turns)

    # --- time ---

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 4.0, 9.0, 13.0, 31.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self._run(seconds)

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.broken == []


class Endpoint:
    """The token endpoint as one process reaches it."""

    def __init__(self, machine: LineMachine, process: Process) -> None:
        self._machine = machine
        self._process = process

    def turn(self, client: Client) -> asyncio.Semaphore:
        return asyncio.Semaphore(1)

    async def ask(self, client: Client, refresh_token: Secret | None = None) -> TokenAnswer:
        if not self._process.alive:
            await asyncio.Event().wait()
        assert refresh_token is not None
        request = Request(self._process, refresh_token.reveal(), self._machine.loop.create_future())
        self._machine.note_request(request)
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await request.answer
        except TimeoutError:
            self._machine.requests.remove(request)
            self._machine.excuse(request.refresh_token)
            raise TokenUnavailable("No answer in time.", error="unreachable") from None
        if not self._process.alive:
            await asyncio.Event().wait()
        return answer


TestLine = LineMachine.TestCase
TestLine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.generate],  # making a failure smaller takes minutes
)

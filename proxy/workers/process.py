"""A worker as its supervisor sees it: a process that is asked and told over a channel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from proxy import __version__
from proxy.app import Answer, Wish
from proxy.core.guests import GuestNews
from proxy.core.report import ProxyReport, TenantReport
from proxy.core.tokens import Instant
from proxy.errors import TokenRefused, TokenUnavailable, UnknownTenant, WorkerGone
from proxy.settings import Settings
from proxy.workers.channel import Channel, Words
from proxy.workers.codec import pack, pack_settings, unpack

log = logging.getLogger(__name__)

ERRORS = {kind.__name__: kind for kind in (TokenRefused, TokenUnavailable)}
"""What a worker may answer a wish with, beside that it knows no such tenant."""


class Superior(Protocol):
    """What a worker's wishes and news are for."""

    async def grant(self, wish: Wish) -> Answer:
        """Brings a token of a refresh token; cancelled, the worker waits for it no longer, or is gone."""

    def heard(self, worker: WorkerProcess, news: GuestNews) -> None:
        """Takes what a worker tells of a guest."""


Places = Mapping[int, Sequence[socket.socket]]
"""Listening sockets by the number of the worker that they are for."""


@dataclass(slots=True)
class _Question:
    answer: asyncio.Future[Words]
    parts: list[Any] = field(default_factory=list)


class WorkerProcess:
    """One worker from its start to its end.

    :ivar ready: it serves; fails with ``WorkerGone`` if it ends before
    :ivar leaving: it accepts no more connections: it was told to end, or has ended
    :ivar orderly: it leaves because it was told to
    :ivar report: what it said when it was last asked, or at its end
    :ivar settings: those it was last told to have
    :ivar end: the task that waits for its end; its supervisor's
    """

    end: asyncio.Task[int]

    def __init__(
        self, number: int, process: asyncio.subprocess.Process, channel: Channel, settings: Settings, superior: Superior
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.ready: asyncio.Future[None] = loop.create_future()
        self.leaving = asyncio.Event()
        self.orderly = False
        self.report: ProxyReport | None = None
        self.settings = self._prepared = settings
        self._process = process
        self._channel = channel
        self._superior = superior
        self._granting: dict[object, asyncio.Task[None]] = {}
        self._order = itertools.count()
        self._farewell = _Question(loop.create_future())
        self._questions: dict[object, _Question] = {"farewell": self._farewell}
        self._listening = loop.create_task(self._listen(), name=f"answers of worker {number}")

    @classmethod
    async def start(
        cls, command: Sequence[str], number: int, places: Places, settings: Settings, superior: Superior
    ) -> Self:
        """Starts a worker, with every place's sockets, to accept on those of its own.

        :param command: starts a worker; the channel's descriptor comes behind it
        :param superior: serves its wishes, and takes its news
        :raises OSError: the system starts no further process
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.enter_context(ours)
            descriptors = {place: [sock.fileno() for sock in sockets] for place, sockets in places.items()}
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *itertools.chain(*descriptors.values())],
                # Of the terminal's signals none is for a worker: Ctrl-C would tell it twice to stop.
                start_new_session=True,
            )
            on_failure.pop_all()
        channel = await Channel.over(ours)
        greeting = {"version": __version__, "number": number, "places": list(descriptors.items())}
        channel.tell(greeting, pack_settings(settings))
        return cls(number, process, channel, settings, superior)

    @property
    def pid(self) -> int:
        return self._process.pid

    # --- told and asked ---

    def tell(self, wish: str, **words: object) -> None:
        """Says something that has no answer."""
        self._channel.tell({"wish": wish, **words})

    async def ask(self, wish: str, patience: float, content: bytes = b"", **words: object) -> tuple[Words, list[Any]]:
        """The answer to a question, and the parts that came before it.

        :raises WorkerGone: there was none within ``patience`` seconds
        """
        if self._listening.done():
            raise WorkerGone(f"worker {self.number} has ended")
        key = next(self._order)
        question = self._questions[key] = _Question(asyncio.get_running_loop().create_future())
        try:
            self._channel.tell({"wish": wish, "key": key, **words}, content)
            async with asyncio.timeout(patience):
                return await question.answer, question.parts
        except TimeoutError:
            raise WorkerGone(f"worker {self.number} does not answer") from None
        finally:
            del self._questions[key]

    async def survey(self, patience: float) -> None:
        """Renews ``report``; a worker that does not answer keeps its last one, and one that starts has none."""
        if not self.ready.done():
            return
        with contextlib.suppress(WorkerGone):
            await self._take(*await self.ask("report", patience))

    async def refresh(self, tenant: str, since: Instant, patience: float) -> TenantReport:
        """Has a tenant's token renewed, if it was asked for before ``since``.

        :raises UnknownTenant, TokenError: as ``app.Proxy.refresh`` does
        :raises WorkerGone: there was no answer
        """
        answer, _ = await self.ask("refresh", patience, tenant=tenant, since=since)
        match answer:
            case {"tenant": report}:
                return unpack(TenantReport, report)
            case {"refused": str(kind), "says": str(says), "word": str(word), "retry_after": retry_after}:
                raise ERRORS[kind](says, error=word, retry_after=retry_after)
        raise UnknownTenant("No tenant of this name is configured.")

    async def prepare(self, settings: Settings, packed: bytes, patience: float) -> list[str]:
        """Has it prepare settings, to ``adopt`` or abandon; the problems. One that ends meanwhile has none."""
        try:
            answer, _ = await self.ask("prepare", patience, packed)
        except WorkerGone as error:
            return [] if self.leaving.is_set() else [str(error)]
        self._prepared = settings
        return [str(problem) for problem in answer["problems"]]

    async def adopt(self, patience: float) -> None:
        """Has it take up what it prepared last, and waits until it has, or has ended."""
        self.settings = self._prepared
        with contextlib.suppress(WorkerGone):
            await self.ask("adopt", patience)

    # --- the end ---

    async def ended(self, patience: float) -> int:
        """Waits for the process's end, and makes one after ``patience`` seconds; its exit code."""
        try:
            async with asyncio.timeout(patience):
                code = await self._process.wait()
        except TimeoutError:
            log.warning(
                "worker %d (process %d) does not end and is killed",
                self.number,
                self.pid,
                extra={"event": "worker.killed"},
            )
            self.kill()
            code = await self._process.wait()
        await self._listening  # to its last word
        self._channel.close()
        with contextlib.suppress(WorkerGone):
            await self._take(await self._farewell.answer, self._farewell.parts)
        return code

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process.returncode is not None:
            return  # its number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # not by way of the event loop, which a signal handler may be inside of

    # --- what it says ---

    async def _listen(self) -> None:
        try:
            while True:
                words, _ = await self._channel.receive()
                self._heard(words)
        except EOFError:
            pass
        except (KeyError, TypeError, ValueError):
            log.exception(
                "worker %d says what makes no sense, and is killed", self.number, extra={"event": "worker.killed"}
            )
            self.kill()
        finally:
            self._hang_up()

    def _heard(self, words: Words) -> None:
        match words:
            case {"note": "ready"} if not self.ready.done():  # nobody waits for it once the program ends
                self.ready.set_result(None)
            case {"note": "leaving"}:
                self.orderly = True
                self.leaving.set()
            case {"to": key, "part": part} if key in self._questions:
                self._questions[key].parts.append(part)
            case {"to": key, "answer": answer} if key in self._questions:
                future = self._questions[key].answer
                if not future.done():
                    future.set_result(answer)
            case {"guest": news}:
                self._superior.heard(self, unpack(GuestNews, news))
            case {"token": key, "wish": wish}:
                granting = self._granting[key] = asyncio.get_running_loop().create_task(
                    self._bring(key, unpack(Wish, wish)), name=f"token for worker {self.number}"
                )
                granting.add_done_callback(lambda _: self._granting.pop(key))
            case {"leave": key} if key in self._granting:
                self._granting[key].cancel()

    async def _bring(self, key: object, wish: Wish) -> None:
        self._channel.tell({"token": key, "answer": pack(await self._superior.grant(wish))})

    async def _take(self, answer: Words, parts: Sequence[Any]) -> None:
        """Reads a report part by part, between which the supervisor's other work has its turn: token requests."""
        tenants: list[TenantReport] = []
        for part in parts:
            tenants += (unpack(TenantReport, tenant) for tenant in part)
            await asyncio.sleep(0)
        self.report = replace(unpack(ProxyReport, answer["report"]), tenants=tuple(tenants))

    def _hang_up(self) -> None:
        gone = WorkerGone(f"worker {self.number} has ended")
        if not self.ready.done():
            self.ready.set_exception(gone)
            self.ready.exception()  # seen, whoever waits for it
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_exception(gone)
        for granting in self._granting.values():
            granting.cancel()
        self.leaving.set()

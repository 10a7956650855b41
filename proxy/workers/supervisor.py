"""The process above the workers: sockets, admin port, reload and the end; it serves no client itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Sequence, Set

from proxy import __version__
from proxy.admin.server import AdminServer, ServerOptions
from proxy.app import Answer, Lines, Wish, system_clock
from proxy.core.guests import GuestNews
from proxy.core.report import ProxyReport, Tally, TenantReport
from proxy.core.sums import Departed, program_of, tenant_of
from proxy.core.urls import bracketed
from proxy.errors import ConfigurationError, TokenError, TokenUnavailable, UnknownTenant, WorkerGone
from proxy.settings import Settings
from proxy.settings.watch import Reloads
from proxy.wire.ports import bind, port_of
from proxy.wire.unix import UnixSocket
from proxy.workers.codec import pack, pack_settings
from proxy.workers.guests import GuestBook
from proxy.workers.process import WorkerProcess
from proxy.workers.slot import BEAT, Slot

log = logging.getLogger(__name__)

LINGERS = 1.0
"""Seconds for a process that has left without a word."""

SURVEY_PATIENCE = 3.0
"""Seconds for a worker's report; one that is busy for longer is shown as it was."""

WISH_PATIENCE = 30.0
"""Seconds for what takes a worker longer: a token request, settings of thousands of tenants."""

LAST_TOKENS = 15.0
"""Seconds beyond ``limits.drain_timeout`` for token requests that were sent before: 10 for their answers, and some to
store those."""


class Supervisor:
    """Workers for the tenants of some settings; in its users' eyes the same as one ``app.Proxy``.

    :param reread: reads the settings again, for ``reload``
    :param workers: how many
    :param command: starts a worker; the descriptor of its channel comes behind it
    :param beat: seconds between questions whether a worker still answers
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reread: Callable[[], Settings],
        workers: int,
        command: Sequence[str],
        beat: float = BEAT,
    ) -> None:
        self.settings = settings
        self.admin_url = ""
        self._reloads = Reloads(lambda: self.settings, reread, self._take_up)
        self._command = command
        self._beat = beat
        self._numbers = range(1, workers + 1)
        self._places: dict[int, list[socket.socket]] = {}
        self._unix: UnixSocket | None = None
        self._slots: dict[int, Slot] = {}
        self._running: list[asyncio.Task[None]] = []
        self._processes: set[WorkerProcess] = set()
        self._guests = GuestBook()
        self._guests.follow(settings)
        self._departed = Departed()
        self._started_at = time.time()
        self._listening: tuple[str, ...] = ()
        self._draining = False

    # --- life ---

    async def start(self) -> None:
        """Opens both ports and starts the workers; every one of them serves afterwards.

        :raises OSError: an address is taken or not ours
        :raises WorkerGone: a worker can't start
        :raises ConfigurationError: these settings are not for several processes, or the store can't be used
        """
        problems = unshareable(self.settings)
        if problems:
            raise ConfigurationError(problems)
        if self.settings.store.kind == "memory":
            log.warning(
                'store.url is "memory:": each worker asks for tokens of its own', extra={"event": "store.memory"}
            )
        loop = asyncio.get_running_loop()
        self._lines = await Lines.open(self.settings)
        try:
            await self._open_ports()
            for number in self._numbers:
                self._slots[number] = slot = Slot(number, self._start, self._welcome, self._share_out, self._beat)
                self._running.append(loop.create_task(slot.run(), name=f"worker {number}"))
            await asyncio.gather(*(slot.first for slot in self._slots.values()))
        except BaseException:
            await self.drain(0)
            raise
        self._running.append(loop.create_task(self._reloads.watch(), name="secret file watcher"))

    async def _open_ports(self) -> None:
        listen, admin = self.settings.listen, self.settings.admin
        self._admin = AdminServer(self, ServerOptions(admin.host, admin.port, self.settings.access.allowed_hosts))
        self.admin_url = f"http://{bracketed(admin.host)}:{await self._admin.start()}"
        self._places = await asyncio.to_thread(self._bind)
        self._listening = listen.urls(port_of(self._places[1]))

    def _bind(self) -> dict[int, list[socket.socket]]:
        listen = self.settings.listen
        if listen.unix_socket is not None:
            self._unix = UnixSocket.open(listen.unix_socket, listen.unix_socket_mode)
        unix = [] if self._unix is None else [self._unix.sock]
        ports = sockets_of(listen.host, listen.port, self._numbers) if listen.tcp else {}
        return {number: [*unix, *ports.get(number, ())] for number in self._numbers}

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect, ``unix:`` before the port."""
        return self._listening

    @property
    def url(self) -> str:
        """Where clients connect, at the port if one is open."""
        return self._listening[-1]

    async def drain(self, patience: float | None = None) -> None:
        """Has every worker end as ``app.Proxy.drain`` does, and kills those that don't."""
        patience = self.settings.limits.drain_timeout if patience is None else patience
        self._draining = True
        self._reloads.end()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._unix is not None:
            self._unix.remove()
        # The workers have the sockets too, and accept what waits in them before they close theirs.
        for sock in [sock for sockets in self._places.values() for sock in sockets]:
            sock.close()
        for worker in self._processes:
            worker.tell("end")
        ends = {worker.end for worker in self._processes}
        if ends:
            await asyncio.wait(ends, timeout=patience)
        # Nobody waits for a token any more, and the workers' last ones may take as long as these.
        await asyncio.gather(self._see_all_off(ends, LAST_TOKENS if patience else 0), self._lines.close())
        await self._admin.close()

    async def _see_all_off(self, ends: Set[asyncio.Task[int]], patience: float) -> None:
        """Waits for the workers' ends, and makes one after ``patience`` seconds."""
        if not ends:
            return
        _, late = await asyncio.wait(ends, timeout=patience)
        if late:
            self.kill()
        await asyncio.gather(*ends)

    def kill(self) -> None:
        """Ends every worker at once."""
        for worker in self._processes:
            worker.kill()

    # --- the workers ---

    async def _start(self, number: int) -> WorkerProcess:
        worker = await WorkerProcess.start(self._command, number, self._places, self.settings, self)
        worker.end = asyncio.get_running_loop().create_task(self._see_off(worker), name=f"end of process {worker.pid}")
        self._processes.add(worker)
        return worker

    async def _see_off(self, worker: WorkerProcess) -> int:
        """Waits for a process's end, and keeps what it had counted."""
        await worker.leaving.wait()
        code = await worker.ended(self.settings.limits.drain_timeout + LAST_TOKENS if worker.orderly else LINGERS)
        self._processes.discard(worker)
        if worker.report is not None:
            self._departed.add(worker.report)
        return code

    async def grant(self, wish: Wish) -> Answer:
        """Brings a worker a token of a refresh token; cancelled, it waits for that no longer."""
        return await self._lines.grant(wish)

    def heard(self, worker: WorkerProcess, news: GuestNews) -> None:
        """Tells the other workers of a guest."""
        if self._guests.note(news):
            for other in self._processes:
                if other is not worker:
                    other.tell("guests", news=[pack(news)])

    async def _welcome(self, worker: WorkerProcess) -> None:
        """Gives a worker that has started the guests, and the settings that came into force in the meantime.

        :raises WorkerGone: it can't use these settings, so that another one has to
        """
        if news := [pack(each) for each in self._guests]:
            worker.tell("guests", news=news)
        async with self._reloads.lock:
            if worker.settings is self.settings:
                return
            problems = await worker.prepare(self.settings, pack_settings(self.settings), WISH_PATIENCE)
            if problems:
                log.error(
                    "worker %d can't take up the configuration in force and is killed: %s",
                    worker.number,
                    "; ".join(problems),
                    extra={"event": "worker.killed"},
                )
                worker.kill()
                raise WorkerGone(f"worker {worker.number} can't take up the configuration in force")
            await worker.adopt(WISH_PATIENCE)

    def _share_out(self) -> None:
        """Gives every socket to somebody: its own worker, and all others while that one is missing."""
        missing = [slot.number for slot in self._slots.values() if slot.worker is None]
        for slot in self._slots.values():
            if slot.worker is not None:
                slot.worker.tell("accept", places=[slot.number, *missing])

    @property
    def _serving(self) -> list[WorkerProcess]:
        return [slot.worker for slot in self._slots.values() if slot.worker is not None]

    # --- what the admin port asks ---

    async def survey(self) -> ProxyReport:
        """The state now: of all workers, and of the counts also those of their predecessors."""
        await asyncio.gather(*(worker.survey(SURVEY_PATIENCE) for worker in self._processes))
        own = ProxyReport(
            version=__version__,
            started_at=self._started_at,
            listening=self._listening if self._serving and not self._draining else (),
            draining=self._draining,
            started=False,
            client_connections=0,
            upstream_connections=0,
            refused={},
            tenants=(),
            callers={},
            workers=tuple(slot.report() for slot in self._slots.values()),
            needs_restart=self.needs_restart,
        )
        # Those who ended since are among the departed.
        reports = [worker.report for worker in self._processes if worker.report is not None]
        return program_of(own, reports, self._departed, self.settings.tenants)

    async def refresh(self, name: str) -> TenantReport:
        """Gets a tenant a new token in every worker; the store sees to it that they share one.

        :raises UnknownTenant: no tenant has this name
        :raises TokenError: no worker has a new token
        """
        if name not in self.settings.tenants:
            raise UnknownTenant("No tenant of this name is configured.")
        now = system_clock()
        asked = (worker.refresh(name, now, WISH_PATIENCE) for worker in self._serving)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        reports = [answer for answer in answers if isinstance(answer, TenantReport)]
        if reports:
            return tenant_of(name, reports, self._departed.tallies.get(name, Tally()))
        for answer in answers:
            if isinstance(answer, TokenError):
                raise answer
        raise TokenUnavailable(f"Tenant {name}: no worker answers.", error="no_worker", retry_after=1.0)

    # --- reload ---

    async def reload(self) -> list[str]:
        """Takes up the configuration anew: all workers all of it, or nobody anything.

        :return: the problems if it can't be used; then everything stays as it was
        """
        return await self._reloads.reload()

    @property
    def needs_restart(self) -> tuple[str, ...]:
        """The sections of the configuration that have changed and count from the next start on."""
        return self._reloads.needs_restart

    async def _take_up(self, settings: Settings) -> None:
        if problems := unshareable(settings) or await self._prepare(settings):
            raise ConfigurationError(problems)
        await self._lines.adopt(settings)
        self.settings = settings
        self._admin.allow_hosts(settings.access.allowed_hosts)
        self._guests.follow(settings)
        self._departed.keep(settings.tenants.keys())
        await asyncio.gather(*(worker.adopt(WISH_PATIENCE) for worker in self._serving))

    async def _prepare(self, settings: Settings) -> list[str]:
        """Has every worker prepare these settings; the problems, and then no worker remembers them."""
        packed = await asyncio.to_thread(pack_settings, settings)
        asked = (worker.prepare(settings, packed, WISH_PATIENCE) for worker in self._serving)
        problems = [problem for found in await asyncio.gather(*asked) for problem in found]
        if problems:
            for worker in self._serving:
                worker.tell("abandon")
        return list(dict.fromkeys(problems))


def unshareable(settings: Settings) -> list[str]:
    """Why several processes can't serve these settings: a refresh token is good for one of them."""
    if settings.store.kind != "memory":
        return []
    refreshing = [name for name, tenant in settings.tenants.items() if tenant.grant == "refresh_token"]
    if not refreshing:
        return []
    reason = f"with --workers, tenant {refreshing[0]} (refresh_token) needs it"
    return [f'{settings.file}: store.url: expected "sqlite:FILE" or a Redis server: {reason} (got "memory:")']


def sockets_of(host: str, port: int, numbers: range) -> dict[int, list[socket.socket]]:
    """Each worker's listening sockets, all on one port.

    Where the system does not spread connections over several sockets of a port, all workers have the same ones.
    """
    if sys.platform != "linux":
        sockets = bind(host, port)
        return dict.fromkeys(numbers, sockets)
    # A port that is to be shared could be shared with a program that already has it, such as another of these.
    exclusive = bind(host, port)
    port = port_of(exclusive)
    for sock in exclusive:
        sock.close()
    places: dict[int, list[socket.socket]] = {}
    with contextlib.ExitStack() as opened:
        for number in numbers:
            places[number] = bind(host, port, share=True)
            for sock in places[number]:
                opened.enter_context(sock)
        opened.pop_all()
    return places

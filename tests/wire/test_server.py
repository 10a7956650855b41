"""The listening side: heads however they arrive, limits, the end of connections, and draining."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from proxy.errors import BadRequest, ClientTimeout, FieldsTooLarge, ProxyError
from proxy.wire.ports import bind, port_of
from proxy.wire.server import LINGER, MOST_REFUSED, NEXT_LOOK_AFTER, QUIET, ClientConnection, Limits, Listener
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer, dial, open_peer
from tests.support.stages import until
from tests.wire.streams import limits, refusal

HEAD = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = limits(head_timeout=0.1, idle_timeout=0.2)
SLOW = limits()


class Served:
    """A listener whose connections answer each head with its target, and tell what became of them.

    :ivar ends: None for a connection that ended, or what it was refused for
    :ivar gate: answers wait for it
    """

    def __init__(self, limits: Limits, *, linger: bool) -> None:
        self.ends: asyncio.Queue[ProxyError | None] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.linger = linger
        self.answering = asyncio.Event()
        self.made: list[ClientConnection] = []
        self.cancelled = 0
        self.listener = Listener(self._serve, refusal, limits)
        self.port = 0

    async def _serve(self, client: ClientConnection) -> None:
        self.made.append(client)
        try:
            while (request := await client.next_request()) is not None:
                self.answering.set()
                await self.gate.wait()
                client.write(b"<%b>" % request.target)
            self.ends.put_nowait(None)
            await client.finish(linger=self.linger)
        except ProxyError as error:
            client.write(type(error).__name__.encode())
            self.ends.put_nowait(error)
            await client.finish(linger=True)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def end(self) -> ProxyError | None:
        async with asyncio.timeout(10):
            return await self.ends.get()

    async def empty(self) -> None:
        await until(lambda: not self.listener.connections)


@contextlib.asynccontextmanager
async def serving(limits: Limits = LIMITS, *, linger: bool = False) -> AsyncIterator[tuple[Served, Peer]]:
    """A listener and a client of it."""
    served = Served(limits, linger=linger)
    sockets = bind("127.0.0.1", 0)
    served.port = port_of(sockets)
    await served.listener.accept_on(sockets)
    try:
        async with open_peer(served.port) as client:
            await until(lambda: bool(served.made))
            yield served, client
    finally:
        await served.listener.drain(0)


# --- heads ---


async def test_a_head_is_read_the_same_at_every_split() -> None:
    async with serving(SLOW) as (_, client):
        for at in range(1, len(HEAD)):
            client.send(HEAD[:at])
            await asyncio.sleep(0.001)
            client.send(HEAD[at:])
            assert await client.read(4) == b"</a>"


async def test_a_head_that_arrives_byte_by_byte_is_read() -> None:
    async with serving(SLOW) as (_, client):
        await client.send_slowly(HEAD)
        assert await client.read(4) == b"</a>"


async def test_heads_that_arrive_together_are_read_one_after_the_other() -> None:
    async with serving() as (_, client):
        client.send(HEAD, HEAD.replace(b"/a", b"/b"), HEAD.replace(b"/a", b"/c")[:-1])
        assert await client.read(8) == b"</a></b>"
        client.send(b"\n")
        assert await client.read(4) == b"</c>"


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n" * 3])
async def test_blank_lines_before_a_request_line_are_ignored_at_every_split(blank: bytes) -> None:
    whole = blank + HEAD
    async with serving(SLOW) as (_, client):
        client.send(whole, whole)
        assert await client.read(8) == b"</a></a>"
        for at in range(1, len(blank) + 2):
            client.send(whole[:at])
            await asyncio.sleep(0.002)
            client.send(whole[at:])
            assert await client.read(4) == b"</a>"


async def test_many_blank_lines_cost_next_to_nothing() -> None:
    async with serving(SLOW) as (_, client):
        async with asyncio.timeout(1):
            await client.send_all(b"\r\n" * (1 << 20))
            client.send(HEAD)
            assert await client.read(4) == b"</a>"


async def test_a_blank_line_behind_a_request_leaves_the_connection_idle() -> None:
    async with serving() as (served, client):
        client.send(HEAD, b"\r\n")
        assert await client.read(4) == b"</a>"
        assert await client.rest() == b""
        assert await served.end() is None


# --- limits ---


async def test_a_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    fits = HEAD[:-2] + b"X: " + b"x" * (LIMITS.max_header_bytes - len(HEAD) - 5) + b"\r\n\r\n"
    async with serving() as (served, client):
        client.send(fits)
        assert await client.read(4) == b"</a>"
        client.send(fits[:-4] + b"xxxxx\r\n\r\n")
        assert isinstance(await served.end(), FieldsTooLarge)


async def test_a_head_without_end_is_refused_while_it_is_still_coming() -> None:
    async with serving(SLOW) as (served, client):
        client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 5000)
        assert isinstance(await served.end(), FieldsTooLarge)
        assert await client.read(14) == b"FieldsTooLarge"


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\n", b"\nGET", b"\r\n\n"])
async def test_a_line_that_ends_without_cr_is_refused_at_once(begun: bytes) -> None:
    async with serving(SLOW) as (served, client):
        client.send(begun)
        error = await served.end()
        assert isinstance(error, BadRequest)
        assert not isinstance(error, FieldsTooLarge)


async def test_a_malformed_head_is_refused() -> None:
    async with serving() as (served, client):
        client.send(HEAD, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        assert await client.read(14) == b"</a>BadRequest"
        assert isinstance(await served.end(), BadRequest)


async def test_a_connection_without_a_request_is_closed_in_silence() -> None:
    async with serving() as (served, client):
        assert await client.rest() == b""
        assert await served.end() is None


async def test_blank_lines_alone_do_not_keep_a_connection(clock: SkippingLoop) -> None:
    async with serving(SLOW) as (served, client):
        for _ in range(3):
            client.send(b"\r\n")
            await clock.skip(SLOW.idle_timeout / 3 + 0.1)
        assert await served.end() is None
        assert await client.rest() == b""


async def test_a_connection_without_a_further_request_is_closed_in_silence() -> None:
    async with serving() as (served, client):
        client.send(HEAD)
        assert await client.rest() == b"</a>"
        assert await served.end() is None


@pytest.mark.parametrize("begun", [b"G", HEAD[:-1]])
async def test_a_head_that_does_not_come_to_its_end_is_told_so(begun: bytes) -> None:
    async with serving() as (served, client):
        client.send(begun)
        assert isinstance(await served.end(), ClientTimeout)
        assert await client.read(13) == b"ClientTimeout"


async def test_a_head_that_drips_has_no_longer_than_one_that_stops() -> None:
    async with serving() as (served, client):
        for byte in HEAD[:-1]:
            client.send(bytes([byte]))
            await asyncio.sleep(0.01)
            if not served.ends.empty():
                break
        assert isinstance(await served.end(), ClientTimeout)


async def test_the_connection_ends_with_the_last_request_it_may_have() -> None:
    async with serving(limits(max_requests=2)) as (served, client):
        (connection,) = served.listener.connections
        client.send(HEAD)
        assert await client.read(4) == b"</a>"
        assert not connection.on_last_request
        client.send(HEAD)
        assert await client.read(4) == b"</a>"
        assert connection.on_last_request


async def test_so_many_requests_may_be_sent_ahead_and_no_more() -> None:
    async with serving(limits(max_pipelined=2)) as (served, client):
        (connection,) = served.listener.connections
        for _ in range(3):
            client.send(HEAD)
            assert await client.read(4) == b"</a>"
        assert connection.pipelined == 0
        client.send(HEAD * 2)
        assert await client.read(8) == b"</a></a>"
        assert not connection.on_last_request
        client.send(HEAD * 3)
        assert await client.read(12) == b"</a></a></a>"
        assert connection.on_last_request


# --- a full house ---


@contextlib.asynccontextmanager
async def clients(served: Served, count: int, sent: bytes = b"") -> AsyncIterator[list[Peer]]:
    """So many more of them, each noticed before the next."""
    async with contextlib.AsyncExitStack() as stack:
        peers = []
        for _ in range(count):
            made = len(served.made)
            peer = await stack.enter_async_context(open_peer(served.port))
            peer.send(sent)
            await until(lambda made=made: len(served.made) > made)  # type: ignore[misc]
            await until(lambda: not sent or bool(served.made[-1].requests))
            peers.append(peer)
        yield peers


async def test_the_connection_that_waits_longest_makes_room_for_a_new_one() -> None:
    async with serving(limits(most=3)) as (served, first):
        first.send(HEAD)
        assert await first.read(4) == b"</a>"
        async with clients(served, 2, HEAD) as (second, third):
            assert (await second.read(4), await third.read(4)) == (b"</a>", b"</a>")
            first.send(HEAD)
            assert await first.read(4) == b"</a>"
            async with clients(served, 1, HEAD) as (fourth,):
                assert await fourth.read(4) == b"</a>"
                assert await second.rest() == b""
                for still in (first, third, fourth):
                    still.send(HEAD)
                    assert await still.read(4) == b"</a>"


async def test_a_connection_that_never_sent_a_request_makes_room_before_one_that_did() -> None:
    async with serving(limits(most=2)) as (served, used):
        used.send(HEAD)
        assert await used.read(4) == b"</a>"
        async with clients(served, 1) as (silent,), clients(served, 1, HEAD) as (new,):
            assert await silent.rest() == b""
            used.send(HEAD)
            assert await used.read(4) == await new.read(4) == b"</a>"


async def test_a_head_that_is_slow_to_come_makes_room() -> None:
    async with serving(limits(most=2)) as (served, used):
        used.send(HEAD)
        assert await used.read(4) == b"</a>"
        async with clients(served, 1, HEAD[:9]) as (slow,), clients(served, 1, HEAD) as (new,):
            assert await slow.rest() == b""
            used.send(HEAD)
            assert await used.read(4) == await new.read(4) == b"</a>"


async def test_a_full_house_says_so_at_once_and_disturbs_nobody() -> None:
    async with serving(limits(most=2)) as (served, busy):
        served.gate.clear()
        busy.send(HEAD)
        async with clients(served, 1, HEAD) as (other,):
            await until(lambda: all(connection.requests for connection in served.listener.connections))
            async with open_peer(served.port) as late:
                late.send(HEAD)
                assert await late.rest() == b"TooBusy"
            served.gate.set()
            assert await busy.read(4) == await other.read(4) == b"</a>"


async def test_a_full_house_is_looked_at_anew_after_a_while(clock: SkippingLoop) -> None:
    async with serving(limits(most=1)) as (served, busy):
        served.gate.clear()
        busy.send(HEAD)
        await served.answering.wait()
        async with open_peer(served.port) as late:
            assert await late.rest() == b"TooBusy"
        served.gate.set()
        assert await busy.read(4) == b"</a>"
        await clock.skip(NEXT_LOOK_AFTER)
        async with clients(served, 1, HEAD) as (new,):
            assert await new.read(4) == b"</a>"
            assert await busy.rest() == b""


async def test_a_request_whose_first_bytes_are_here_does_not_make_room() -> None:
    """It may have come whole while the loop was busy."""
    async with serving(limits(most=1)) as (served, client):
        (connection,) = served.listener.connections
        await until(lambda: connection.idle)
        assert connection.evictable
        connection.data_received(HEAD[:9])
        assert (connection.idle, connection.evictable) == (True, False)
        client.send(HEAD[9:])
        assert await client.read(4) == b"</a>"


async def test_a_crowd_at_a_full_house_is_bounded(clock: SkippingLoop) -> None:
    async with serving(limits(most=1)) as (served, busy):
        served.gate.clear()
        busy.send(HEAD)
        await served.answering.wait()
        async with contextlib.AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(open_peer(served.port)) for _ in range(MOST_REFUSED + 10)]
            for peer in crowd:
                assert await peer.rest() == b"TooBusy"
            tasks = [task for task in asyncio.all_tasks() if task.get_name() == "client connection"]
            assert len(tasks) <= 1 + MOST_REFUSED
            await clock.skip(LINGER + 0.1)
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == "client connection"]
        assert len(tasks) == 1


async def test_draining_leaves_no_refused_connection_behind() -> None:
    async with serving(limits(most=1)) as (served, busy):
        served.gate.clear()
        busy.send(HEAD)
        await served.answering.wait()
        async with open_peer(served.port) as late:
            assert await late.read(7) == b"TooBusy"
            await served.listener.drain(0)
            await until(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == "client connection"])


# --- clients that leave ---


@pytest.mark.parametrize("begun", [b"", b"GET / HT", HEAD])
async def test_a_client_that_ends_is_given_what_it_asked_for_and_closed(begun: bytes) -> None:
    async with serving(SLOW) as (served, client):
        client.send(begun)
        client.end()
        assert await client.rest() == (b"</a>" if begun == HEAD else b"")
        assert await served.end() is None
        await served.empty()


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
async def test_a_client_that_breaks_off_before_its_request_is_whole_is_forgotten(begun: bytes) -> None:
    async with serving(SLOW) as (served, client):
        client.send(HEAD, begun)
        await client.read(4)
        client.reset()
        await served.empty()


async def test_a_client_that_breaks_off_ends_what_is_done_for_it() -> None:
    async with serving(SLOW) as (served, client):
        served.gate.clear()
        client.send(HEAD)
        await served.answering.wait()
        client.reset()
        await served.empty()
        assert served.cancelled == 1


# --- the end of a connection ---


async def test_what_a_client_still_sends_does_not_wipe_out_its_answer() -> None:
    async with serving(linger=True) as (served, client):
        client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"x" * 4_000_000)
        assert await client.rest() == b"BadRequest"
        client.close()
        await served.empty()


async def test_a_client_that_goes_on_sending_is_closed_after_a_while(clock: SkippingLoop) -> None:
    async with serving() as (served, client):
        client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        assert isinstance(await served.end(), BadRequest)
        assert await client.rest() == b"BadRequest"
        for _ in range(3):
            client.send(b"more" * 1000)
            await clock.skip(LINGER / 4)
            assert served.listener.connections
        await clock.skip(LINGER / 2)
        assert not served.listener.connections


async def test_a_client_that_floods_is_closed_after_a_while(clock: SkippingLoop) -> None:
    async with serving() as (served, client):
        client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        assert isinstance(await served.end(), BadRequest)
        flood = clock.create_task(client.push(1 << 40))
        await clock.skip(LINGER + 0.1)
        await served.empty()
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)


# --- where it accepts ---


async def test_a_connection_that_waits_while_nobody_accepts_is_accepted_later() -> None:
    first, second = Served(SLOW, linger=False), Served(SLOW, linger=False)
    sockets = bind("127.0.0.1", 0)
    try:
        await first.listener.accept_on(sockets)
        await first.listener.accept_on([])
        async with open_peer(port_of(sockets)) as client:
            client.send(HEAD)
            await asyncio.sleep(0.05)
            assert not first.listener.connections
            await second.listener.accept_on([sock.dup() for sock in sockets])
            assert await client.read(4) == b"</a>"
            assert len(second.listener.connections) == 1
        await first.listener.accept_on(sockets)
        await second.listener.drain(1)
        async with open_peer(port_of(sockets)) as client:
            client.send(HEAD)
            assert await client.read(4) == b"</a>"
    finally:
        await first.listener.drain(0)
        await second.listener.drain(0)


# --- draining ---


async def test_draining_accepts_no_more_and_closes_idle_connections_once_they_are_quiet(clock: SkippingLoop) -> None:
    async with serving(SLOW) as (served, client), open_peer(served.port) as other:
        client.send(HEAD)
        assert await client.read(4) == b"</a>"
        draining = asyncio.gather(served.listener.drain(20))
        await clock.skip(QUIET / 2)
        assert not draining.done()
        with pytest.raises(ConnectionRefusedError):
            async with open_peer(served.port):
                pass
        await clock.skip(QUIET / 2 + 0.1)
        assert await client.rest() == b""
        assert await other.rest() == b""
        await draining


async def test_a_request_sent_just_before_draining_is_answered() -> None:
    async with serving(SLOW) as (served, _):
        late = await dial(served.port)
        late.send(HEAD)
        # The kernel has accepted it; the event loop has had no turn since.
        await served.listener.drain(20)
        late.setblocking(True)
        late.settimeout(10)
        assert late.recv(100) == b"</a>"
        assert late.recv(100) == b""
        late.close()


async def test_a_new_connection_that_says_nothing_is_closed_soon_after_draining_began(clock: SkippingLoop) -> None:
    async with serving(SLOW) as (served, client):
        await until(lambda: all(connection.idle for connection in served.listener.connections))
        draining = asyncio.gather(served.listener.drain(20))
        await clock.skip(QUIET + 0.1)
        assert await client.rest() == b""
        await draining


async def test_a_first_request_that_began_in_time_has_the_time_that_any_has(clock: SkippingLoop) -> None:
    async with serving(SLOW) as (served, client):
        await until(lambda: all(connection.idle for connection in served.listener.connections))
        draining = asyncio.gather(served.listener.drain(20))
        await clock.skip(QUIET / 2)
        client.send(HEAD[:5])
        await clock.skip(QUIET * 4)
        client.send(HEAD[5:])
        assert await client.rest() == b"</a>"
        await draining


async def test_draining_closes_connections_that_are_quiet_already_at_once(clock: SkippingLoop) -> None:
    async with serving(SLOW) as (served, client):
        client.send(HEAD)
        assert await client.read(4) == b"</a>"
        await clock.skip(QUIET + 0.1)
        started = clock.time()
        await served.listener.drain(20)
        assert clock.time() - started < QUIET / 2
        assert await client.rest() == b""


async def test_a_request_that_crosses_the_end_is_answered(clock: SkippingLoop) -> None:
    async with serving(SLOW) as (served, client):
        client.send(HEAD)
        assert await client.read(4) == b"</a>"
        draining = asyncio.gather(served.listener.drain(20))
        await clock.skip(QUIET / 2)
        client.send(HEAD[:9])
        await clock.skip(QUIET)  # which is for its first byte
        client.send(HEAD[9:])
        assert await client.read(4) == b"</a>"
        await clock.skip(QUIET + 0.1)
        await draining


async def test_draining_waits_for_a_request_in_flight() -> None:
    async with serving(SLOW) as (served, client):
        served.gate.clear()
        client.send(HEAD)
        await served.answering.wait()
        draining = asyncio.gather(served.listener.drain(20))
        await asyncio.sleep(0.02)
        assert not draining.done()
        served.gate.set()
        assert await client.rest() == b"</a>"
        async with asyncio.timeout(10):
            await draining


async def test_draining_lets_requests_that_had_arrived_be_answered() -> None:
    async with serving(SLOW) as (served, client):
        served.gate.clear()
        client.send(HEAD, HEAD)
        await served.answering.wait()
        draining = asyncio.gather(served.listener.drain(20))
        served.gate.set()
        assert await client.rest() == b"</a></a>"
        await draining


async def test_draining_has_an_end_and_breaks_off_what_is_left() -> None:
    async with serving(SLOW) as (served, client):
        served.gate.clear()
        client.send(HEAD)
        await served.answering.wait()
        async with asyncio.timeout(10):
            await served.listener.drain(0.05)
        assert not await client.ended()
        await served.empty()
        assert served.cancelled == 1


async def test_draining_breaks_off_an_answer_under_way_so_that_it_does_not_look_whole() -> None:
    async with serving(SLOW) as (served, client):
        served.gate.clear()
        client.send(HEAD)
        await served.answering.wait()
        for connection in served.listener.connections:
            connection.write(b"HTTP/1.0 200 OK\r\n\r\nhalf of an answer that only the connection's end del")
        await client.until(b"half")
        await served.listener.drain(0.02)
        assert not await client.ended()


async def test_draining_does_not_wait_for_a_connection_made_in_the_same_moment() -> None:
    async with serving(SLOW) as (served, _), open_peer(served.port) as late:
        async with asyncio.timeout(10):
            await served.listener.drain(20)
        with contextlib.suppress(ConnectionResetError):
            assert await late.rest() == b""
        await served.empty()


async def test_draining_waits_until_a_slow_client_has_taken_its_answer() -> None:
    async with serving(SLOW) as (served, _), open_peer(served.port, buffer=4096) as slow:
        served.gate.clear()
        slow.stop_reading()
        slow.send(HEAD)
        await served.answering.wait()
        for connection in served.listener.connections:
            connection.write(b"x" * 8_000_000)
        draining = asyncio.gather(served.listener.drain(20))
        served.gate.set()
        await asyncio.sleep(0.05)
        assert not draining.done()
        slow.resume_reading()
        assert await slow.rest() == b"x" * 8_000_000 + b"</a>"
        await draining


async def test_draining_does_not_wait_long_for_a_client_that_never_reads(clock: SkippingLoop) -> None:
    async with serving(SLOW) as (served, _), open_peer(served.port, buffer=4096) as deaf:
        deaf.stop_reading()
        deaf.send(HEAD)
        await served.answering.wait()
        for connection in served.listener.connections:
            connection.write(b"x" * 8_000_000)
        draining = asyncio.gather(served.listener.drain(20))
        await clock.skip(20.1)
        await draining
        await served.empty()

"""Every way in which an upstream can fail, at every stage of a request: what its client is told, and when.

The tables are the promise; each line of them is played over TCP and over TLS, where it can happen there. Whatever
happens, the upstream gets the request once, the answer is counted once, and no connection is left behind.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.forward.test_ask import assert_ours
from tests.forward.test_upgrade import upgraded
from tests.support.certificates import ca_file, server_context
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer, Server
from tests.support.rig import OK, Rig, answer, request, rig

LIMITS = {"request_timeout": 15, "connect_timeout": 5, "idle_timeout": 75, "tunnel_idle_timeout": 600}
LONG = 600_000
"""Bytes; more than is kept for a replay."""

GARBAGE = b"\x16\x03\x01 no HTTP at all\r\n\r\n"


FAULTS: dict[str, Callable[[Peer], None]] = {
    "reset": Peer.reset,
    "close": Peer.close,
    "cut": Peer.cut,
    "stall": lambda _: None,
    "garbage": lambda upstream: upstream.send(GARBAGE),
}


@dataclass(frozen=True, slots=True)
class Told:
    """The client gets an answer of ours."""

    status: int
    error: str
    after: float = 0.0
    """Seconds from the fault to the answer."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The client's answer, or tunnel, is visibly broken off."""

    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Ends:
    """These bytes still come, and an end in order once the client has ended."""

    rest: bytes = b""
    after: float = 0.0


Outcome = Told | Cut | Ends


# --- stages: each brings a request so far, and gives the upstream's end ---


async def head(proxy: Rig, client: Peer) -> Peer:
    client.send(request())
    upstream = await proxy.api.accept()
    await upstream.message()
    return upstream


async def inside_the_head(proxy: Rig, client: Peer) -> Peer:
    upstream = await head(proxy, client)
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-")
    return upstream


async def after_hints(proxy: Rig, client: Peer) -> Peer:
    upstream = await head(proxy, client)
    upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert (await client.head()).status == 103
    return upstream


async def asked_whether_to_go_on(proxy: Rig, client: Peer) -> Peer:
    """By us, because the body is too long to be kept."""
    client.send(request("POST", "/api/v2/x", f"Content-Length: {LONG}"), b"x" * LONG)
    upstream = await proxy.api.accept()
    assert (await upstream.head()).get(b"Expect") == b"100-continue"
    return upstream


async def after_100(proxy: Rig, client: Peer) -> Peer:
    client.send(request("POST", "/api/v2/x", "Expect: 100-continue", "Content-Length: 6"))
    upstream = await proxy.api.accept()
    await upstream.head()
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.head()).status == 100
    client.send(b"abcdef")
    assert await upstream.read(6) == b"abcdef"
    return upstream


async def inside_the_request(proxy: Rig, client: Peer) -> Peer:
    client.send(request("POST", "/api/v2/x", "Transfer-Encoding: chunked"), b"3\r\nabc\r\n")
    upstream = await proxy.api.accept()
    await upstream.head()
    assert await upstream.read(8) == b"3\r\nabc\r\n"
    return upstream


async def answered(proxy: Rig, client: Peer, framing: bytes, body: bytes) -> Peer:
    """A head of an answer and what there is of its body, which the client has."""
    upstream = await head(proxy, client)
    upstream.send(b"HTTP/1.1 200 OK\r\n", framing, b"\r\n", body)
    assert (await client.head()).status == 200
    # To the client it goes in chunks, unless its length is known.
    assert await client.until(b"abc" if b"Length" in framing else b"abc\r\n")
    return upstream


async def inside_a_length(proxy: Rig, client: Peer) -> Peer:
    return await answered(proxy, client, b"Content-Length: 900\r\n", b"abc")


async def inside_a_chunk(proxy: Rig, client: Peer) -> Peer:
    return await answered(proxy, client, b"Transfer-Encoding: chunked\r\n", b"ff\r\nabc")


async def between_chunks(proxy: Rig, client: Peer) -> Peer:
    return await answered(proxy, client, b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n")


async def until_the_end(proxy: Rig, client: Peer) -> Peer:
    return await answered(proxy, client, b"", b"abc")


async def after_the_upgrade(proxy: Rig, client: Peer) -> Peer:
    upstream = await upgraded(proxy, client)
    upstream.send(b"\x81\x02hi")
    assert await client.read(4) == b"\x81\x02hi"
    return upstream


TERMINATED = Told(502, "connection_terminated")
NO_HTTP = Told(502, "http_protocol_error")
SILENT = Told(504, "http_response_timeout", 15)

TABLE: dict[Callable[[Rig, Peer], Awaitable[Peer]], dict[str, Outcome]] = {
    head: {"reset": TERMINATED, "close": TERMINATED, "cut": TERMINATED, "stall": SILENT, "garbage": NO_HTTP},
    inside_the_head: {"reset": TERMINATED, "close": TERMINATED, "cut": TERMINATED, "stall": SILENT, "garbage": NO_HTTP},
    after_hints: {"reset": TERMINATED, "close": TERMINATED, "cut": TERMINATED, "stall": SILENT, "garbage": NO_HTTP},
    asked_whether_to_go_on: {
        "reset": TERMINATED, "close": TERMINATED, "cut": TERMINATED, "garbage": NO_HTTP,
        "stall": Told(504, "http_response_timeout", 16),  # it got the body after a second
    },
    after_100: {"reset": TERMINATED, "close": TERMINATED, "cut": TERMINATED, "stall": SILENT, "garbage": NO_HTTP},
    inside_the_request: {"reset": TERMINATED, "close": TERMINATED, "cut": TERMINATED, "garbage": NO_HTTP},
    inside_a_length: {"reset": Cut(), "close": Cut(), "cut": Cut(), "stall": Cut(75)},
    inside_a_chunk: {"reset": Cut(), "close": Cut(), "cut": Cut(), "stall": Cut(75)},
    between_chunks: {"reset": Cut(), "close": Cut(), "cut": Cut(), "stall": Cut(75), "garbage": Cut()},
    until_the_end: {"reset": Cut(), "close": Ends(b"0\r\n\r\n"), "cut": Cut(), "stall": Cut(75)},
    after_the_upgrade: {
        "reset": Cut(), "close": Ends(), "stall": Ends(after=600), "garbage": Ends(GARBAGE, after=600),
    },
}  # fmt: skip
"""What is garbage inside a length or a chunk is nobody's business but the client's. Between pieces of a request the
client is waited for, whatever its upstream does."""


def over_tcp_and_tls(*faults: str) -> list[ParameterSet]:
    return [
        pytest.param(fault, secure, id=f"{fault}, {'TLS' if secure else 'TCP'}")
        for fault in faults
        for secure in (False, True)
        if secure or fault != "cut"
    ]


def lines() -> list[ParameterSet]:
    return [
        pytest.param(stage, fault, secure, id=f"{stage.__name__}, {fault}, {'TLS' if secure else 'TCP'}")
        for stage, faults in TABLE.items()
        for fault in faults
        for secure in (False, True)
        if secure or fault != "cut"
    ]


@contextlib.asynccontextmanager
async def behind(
    folder: Path, server: Server, *, secure: bool, log: Mapping[str, object] | None = None
) -> AsyncIterator[tuple[Rig, Peer]]:
    """A proxy before this upstream, which it trusts, and a client."""
    name = "https://localhost" if secure else "http://127.0.0.1"
    upstream = {"ca_file": str(ca_file(folder))} if secure else None
    made = rig(api=server, api_url=name + ":{port}", upstream=upstream, limits=LIMITS, log=log)
    async with made as proxy, proxy.client() as client:
        yield proxy, client


async def assert_outcome(clock: SkippingLoop, client: Peer, outcome: Outcome) -> None:
    if isinstance(outcome, Ends):
        assert await client.read(len(outcome.rest)) == outcome.rest
    if outcome.after:
        await clock.skip(1.1)  # what waits for a second goes on
        await clock.skip(outcome.after - 2)
        assert await client.silent()
        await clock.skip(2)
    match outcome:
        case Told():
            assert_ours(await client.message(), outcome.status, outcome.error)
        case Cut():
            with pytest.raises(ConnectionResetError):
                await client.rest()
        case Ends():
            client.end()
            assert await client.rest() == b""


@pytest.mark.parametrize(("stage", "fault", "secure"), lines())
async def test_a_fault_has_its_outcome_in_its_time(
    clock: SkippingLoop,
    tmp_path: Path,
    stage: Callable[[Rig, Peer], Awaitable[Peer]],
    fault: str,
    secure: bool,
) -> None:
    server = Server(server_context("localhost") if secure else None)
    async with behind(tmp_path, server, secure=secure) as (proxy, client):
        upstream = await stage(proxy, client)
        FAULTS[fault](upstream)
        outcome = TABLE[stage][fault]
        await assert_outcome(clock, client, outcome)
        await proxy.upstreams_gone()
        assert proxy.api.connections == 1
        status = outcome.status if isinstance(outcome, Told) else 101 if stage is after_the_upgrade else 200
        tally = proxy.proxy.report().tenants[0].tally
        client.close()
        await proxy.clients_gone()
        assert (tally.requests, tally.at_once, tally.replays) == ({status: 1}, 0, {})


# --- before there is a connection ---


def full_house() -> socket.socket:
    """Listens, but the system has no room for further connections there, and answers none."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    return listening


async def test_a_connection_that_the_system_does_not_answer_is_given_up(clock: SkippingLoop) -> None:
    with full_house() as listening, contextlib.ExitStack() as waiting:
        address = listening.getsockname()
        for _ in range(2):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(address)
        async with rig(api_url=f"http://127.0.0.1:{address[1]}", limits=LIMITS) as proxy, proxy.client() as client:
            client.send(request("POST", "/api/v2/x", body=b"hi"))
            await assert_outcome(clock, client, Told(504, "connection_timeout", 5))
            await proxy.upstreams_gone()


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("reset", Told(502, "destination_unavailable")),
        ("close", Told(502, "destination_unavailable")),
        ("stall", Told(504, "connection_timeout", 5)),
        ("garbage", Told(502, "tls_protocol_error")),
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
async def test_a_fault_in_the_handshake_has_its_outcome_in_its_time(
    clock: SkippingLoop, tmp_path: Path, fault: str, outcome: Outcome, greeted: bool
) -> None:
    async with behind(tmp_path, Server(), secure=True) as (proxy, client):
        client.send(request("POST", "/api/v2/x", body=b"hi"))
        upstream = await proxy.api.accept()
        if greeted:
            assert (await upstream.read(3))[:2] == b"\x16\x03"  # a ClientHello
        upstream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n") if fault == "garbage" else FAULTS[fault](upstream)
        await assert_outcome(clock, client, outcome)
        await proxy.upstreams_gone()
        assert proxy.api.connections == 1
        client.send(request())  # the connection of the client goes on
        upstream = await proxy.api.accept()
        upstream.reset()
        assert (await client.message()).status == 502


# --- connections that are kept ---


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("fault", "secure"), over_tcp_and_tls(*FAULTS))
async def test_a_kept_connection_that_fails_just_as_we_write_costs_no_request_twice(
    clock: SkippingLoop, tmp_path: Path, fault: str, method: str, secure: bool
) -> None:
    server = Server(server_context("localhost") if secure else None)
    async with behind(tmp_path, server, secure=secure) as (proxy, client):
        _, _, upstream = await proxy.exchange(client, request())
        client.send(request(method))
        await upstream.message()
        FAULTS[fault](upstream)
        if method == "GET" and fault in ("reset", "close", "cut"):
            again = await proxy.api.accept()
            assert (await again.message()).start.startswith(b"GET ")
            again.send(OK)
            assert (await client.message()).status == 200
            assert proxy.api.connections == 2
        else:
            await assert_outcome(clock, client, TABLE[head][fault])
            await proxy.upstreams_gone()
            assert proxy.api.connections == 1


@pytest.mark.parametrize(("fault", "secure"), over_tcp_and_tls("reset", "close", "cut", "garbage"))
async def test_a_kept_connection_that_fails_before_we_write_costs_nothing(
    tmp_path: Path, fault: str, secure: bool
) -> None:
    server = Server(server_context("localhost") if secure else None)
    async with behind(tmp_path, server, secure=secure) as (proxy, client):
        _, _, upstream = await proxy.exchange(client, request())
        FAULTS[fault](upstream)
        await proxy.upstreams_gone()
        arrived, got, _ = await proxy.exchange(client, request("POST", "/api/v2/x", body=b"hi"), answer(201))
        assert (arrived.body, got.status) == (b"hi", 201)
        assert proxy.api.connections == 2


# --- an end beneath TLS, on every loop ---


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_an_answer_that_ends_beneath_tls_never_looks_whole(tmp_path: Path, framing: bytes) -> None:
    async with behind(tmp_path, Server(server_context("localhost")), secure=True) as (proxy, client):
        upstream = await answered(proxy, client, framing, b"5\r\nabc" if b"chunked" in framing else b"abc")
        upstream.cut()
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await proxy.upstreams_gone()


async def test_a_certificate_that_has_expired_is_told(tmp_path: Path) -> None:
    async with behind(tmp_path, Server(server_context("localhost", expired=True)), secure=True) as (proxy, client):
        client.send(request())
        assert_ours(await client.message(), 502, "tls_certificate_error")
        assert proxy.api.connections == 0


# --- what is left ---


@pytest.mark.one_loop
@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
async def test_what_is_over_is_freed_at_once_and_not_when_python_looks_for_cycles(tmp_path: Path, secure: bool) -> None:
    """Which it does by the count of objects: lost connections with their buffers would pile up until then."""
    gc.collect()
    gc.disable()
    try:
        for stage, fault in ((stage, fault) for stage, faults in TABLE.items() for fault in faults):
            if fault == "stall" or (fault == "cut" and not secure):
                continue
            server = Server(server_context("localhost") if secure else None)
            async with behind(tmp_path, server, secure=secure) as (proxy, client):
                upstream = await stage(proxy, client)
                FAULTS[fault](upstream)
                with contextlib.suppress(ConnectionResetError):
                    await client.some()
                upstream.reset()
                client.reset()
                await proxy.clients_gone()
                await proxy.upstreams_gone()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kept = {type(each).__name__ for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not kept & {"ClientConnection", "UpstreamConnection", "Tunnel", "Exchange", "KeptBody", "Body"}

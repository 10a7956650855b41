"""Everything that can go wrong at once, at random from a seed: what must hold whatever happens.

A longer run: ``make test PYTEST_ARGS='-m slow -k random'``; a seed that fails is repeated by its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.certificates import ca_file, server_context
from tests.support.peers import Message, Peer
from tests.support.rig import Rig, answer, chunked, request, rig

CLIENTS = 12
LIMITS = {"request_timeout": 1.0, "connect_timeout": 0.7, "idle_timeout": 5.0, "replay_buffer": 3000}

LATEST = 10.0
"""Seconds in which an answer has begun on the slowest machine; with the limits above, one and a little."""

_REQUEST = re.compile(rb"([A-Z]+) /api/v2/(things|sockets)/(\d+) ")

_HEAD = b"HTTP/1.1 200 OK\r\n"

Reply = Callable[[bytes], bytes]

GOOD: dict[str, tuple[Reply, str]] = {
    "whole": (lambda body: answer(200, body=body), "stay"),
    "not found": (lambda body: answer(404, body=body), "stay"),
    "chunked": (lambda body: _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, body), "stay"),
    "hints first": (
        lambda body: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(200, body=body), "stay",
    ),
    "until the end": (lambda body: _HEAD + b"\r\n" + body, "close"),
    "then closes": (lambda body: answer(200, body=body), "close"),
}  # fmt: skip
FAULTS: dict[str, tuple[Reply, str]] = {
    "refused token": (lambda body: answer(200, body=body), "stay"),
    "resets at once": (lambda body: b"", "reset"),
    "closes at once": (lambda body: b"", "close"),
    "half a head": (lambda body: _HEAD[:-1], "close"),
    "half a body": (lambda body: _HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + 9) + body, "reset"),
    "half a chunk": (lambda body: _HEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n" + body[:100], "close"),
    "garbage": (lambda body: b"\x16\x03\x01 no HTTP at all\r\n\r\n", "stay"),
    "two lengths": (lambda body: _HEAD + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", "stay"),
    "says nothing": (lambda body: b"", "stop"),
    "continue and no more": (lambda body: b"HTTP/1.1 100 Continue\r\n\r\n", "stop"),
    "too much": (lambda body: answer(200, body=body) + answer(200, body=b"smuggled"), "stay"),
    "switches": (lambda body: b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "stay"),
}
"""By name: what is sent for a body, and what becomes of the connection; "stop": it stays, and nothing follows."""

BEFORE_THE_BODY = ("resets after 100", "closes after 100", "stalls after 100", "refuses the body and closes")
"""What else an upstream can do that has read no more than the head; "after 100": where it was asked for one."""

AT_THE_BEGINNING = ("resets", "closes", "stalls", "greets with garbage", "stalls within TLS")
"""What can become of a connection before a request is on it."""

SOCKETS = ("echoes", "resets", "closes", "stalls", "refused token", "refuses", "ends beneath TLS")
"""What an upstream does with a WebSocket, after it has agreed to it and sent one message back."""


@dataclass
class Played:
    """What the upstream is to do with each request, and how often each came whole with a token it did not refuse."""

    rng: random.Random
    tls: ssl.SSLContext | None = None
    executed: Counter[tuple[int, bytes]] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)
    sockets: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)


async def upstream(peer: Peer, played: Played) -> None:
    """One connection of the upstream, which does with each request what its number says."""
    peer.patience = None
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        if not await begun(peer, played):
            return None
        while True:
            head = await peer.head()
            if head.get(b"Upgrade") is not None:
                try:
                    return await socket(peer, played, head)
                finally:
                    peer.close()
            if await before_the_body(peer, played, head):
                return None
            if head.get(b"Transfer-Encoding") is not None:
                await peer.until(b"\r\n0\r\n\r\n")
            else:
                await peer.read(int(head.get(b"Content-Length") or 0))
            if not await reply(peer, played, head):
                return None


async def begun(peer: Peer, played: Played) -> bool:
    """Whether requests can come over a connection."""
    match played.rng.choice(AT_THE_BEGINNING) if played.rng.random() < 0.1 else "":
        case "resets":
            peer.reset()
        case "closes":
            peer.close()
        case "stalls":
            await peer.rest()
        case "greets with garbage":
            peer.send(b"220 smtp.example\r\n")
        case "stalls within TLS" if played.tls is not None:
            await peer.read(20)
            await peer.rest()
        case _:
            if played.tls is not None:
                await peer.start_tls(played.tls)
            return True
    return False


def what(head: Message) -> tuple[int, bytes]:
    """The number and the method of a request, which has a token."""
    found = _REQUEST.match(head.start)
    assert found is not None, head.start
    assert (head.get(b"Authorization") or b"").startswith(b"Bearer token-")
    return int(found[3]), found[1]


async def before_the_body(peer: Peer, played: Played, head: Message) -> bool:
    """Says that the body may come, where it is asked; whether that is the last it does."""
    number, method = what(head)
    fault, asked = played.faults[number], head.get(b"Expect") is not None
    if asked:
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if fault not in BEFORE_THE_BODY:
        return False
    played.executed[number, method] += 1
    match fault:
        case "resets after 100":
            peer.reset()
        case "closes after 100":
            peer.close()
        case "stalls after 100":
            await peer.rest()
        case _:
            body = b"%d" % number
            peer.send(b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body), body)
            peer.close()
    return True


async def socket(peer: Peer, played: Played, head: Message) -> None:
    """A WebSocket that sends one message back, and then does what its number says."""
    number, method = what(head)
    fault = played.sockets[number]
    if fault == "refused token" and number not in played.refused:
        played.refused.add(number)
        peer.send(answer(401, body=b"refused"))
        head = await peer.head()
        number, method = what(head)
        fault = played.sockets[number]
    if fault == "refuses":
        played.executed[number, method] += 1
        peer.send(answer(403, body=b"%d" % number))
        return
    played.executed[number, method] += 1
    message = frame(number)
    early = played.rng.choice([0, 1, len(message)])
    peer.send(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", message[:early])
    assert await peer.read(len(message)) == message
    peer.send(message[early:])
    match fault:
        case "resets":
            peer.reset()
        case "closes":
            peer.close()
        case "stalls":
            await peer.rest()
        case "ends beneath TLS":
            peer.cut()
            await peer.rest()
        case _:
            while True:
                peer.send(await peer.read(len(message)))


def frame(number: int) -> bytes:
    return b"\x82\x7e\x10\x00" + b"%04096d" % number


async def reply(peer: Peer, played: Played, head: Message) -> bool:
    """Answers one request; whether the connection goes on."""
    number, method = what(head)
    fault = played.faults[number]
    if fault == "refused token" and number not in played.refused:
        played.refused.add(number)
        peer.send(answer(401, body=b"refused"))
        return True
    played.executed[number, method] += 1
    make, then = (GOOD | FAULTS)[fault]
    # What comes behind an answer once its connection carries another request can be told from nothing.
    body = b"%d " % number * (1 if fault == "too much" else played.rng.choice([1, 50, 30_000]))
    sent = make(body)
    if method == b"HEAD" and (fault in GOOD or fault in ("refused token", "too much")):
        sent = answer(404 if fault == "not found" else 200)
    await peer.send_slowly(sent, len(sent) // (1 if fault == "too much" else played.rng.choice([1, 3])) + 1)
    if then == "close":
        peer.close()
    elif then == "reset":
        peer.reset()
    return then == "stay"


async def client(proxy: Rig, played: Played, numbers: list[int], rng: random.Random) -> None:
    """Sends its requests one after the other, over as many connections as it takes."""
    pending = list(numbers)
    while pending:
        async with proxy.client() as peer:
            while pending and not peer.closed:
                number = pending.pop(0)
                if number in played.sockets:
                    await talk(peer, played, number, rng)
                    break
                method = rng.choice(["GET", "POST", "POST", "PUT", "HEAD", "DELETE"])
                target = f"/api/v2/things/{number}"
                sent = request_of(method, target, rng)
                if rng.random() < 0.06:
                    peer.send(sent[: rng.randrange(1, len(sent))])
                    await asyncio.sleep(rng.random() * 0.02)
                    peer.reset()
                    break
                if rng.random() < 0.3:
                    await peer.send_slowly(sent, max(1, len(sent) // 4))
                else:
                    peer.send(sent)
                if rng.random() < 0.06:
                    await asyncio.sleep(rng.random() * 0.02)
                    peer.reset()
                    break
                if not await answered(peer, played, number, bodiless=method == "HEAD"):
                    break


async def talk(peer: Peer, played: Played, number: int, rng: random.Random) -> None:
    """Opens a WebSocket, sends some messages and leaves in one way or another; what comes back must be its own."""
    fault, message = played.sockets[number], frame(number)
    peer.send(request("GET", f"/api/v2/sockets/{number}", "Connection: Upgrade", "Upgrade: websocket"))
    early = rng.choice([0, 3])
    peer.send(message[:early])
    async with asyncio.timeout(LATEST):
        got = await peer.head()
    if got.status != 101:
        if got.status < 500:
            assert (got.status, fault) == (403, "refuses")
        else:
            assert played.executed[number, b"GET"] == 0, fault
        return
    peer.send(message[early:])
    broken = fault in ("resets", "ends beneath TLS")
    try:
        assert await peer.read(len(message)) == message
        if fault in ("resets", "closes", "ends beneath TLS"):
            assert await peer.ended() != broken
            return
        if fault != "stalls":
            await peer.send_slowly(message, rng.choice([1, 1000, 5000])) if rng.random() < 0.1 else peer.send(message)
            assert await peer.read(len(message)) == message
    except (ConnectionResetError, asyncio.IncompleteReadError):
        assert broken, fault
    leave = rng.choice([Peer.end, Peer.close, Peer.reset])
    leave(peer)


def request_of(method: str, target: str, rng: random.Random) -> bytes:
    size = 0 if method in ("GET", "HEAD", "DELETE") else rng.choice([0, 2, 2000, 20_000])
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
    if size and rng.random() < 0.4:
        return (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + chunked(b"x" * size, b"y")
    return (head + f"Content-Length: {size}\r\n\r\n").encode() + b"x" * size


async def answered(peer: Peer, played: Played, number: int, *, bodiless: bool) -> bool:
    """Checks an answer, if it is one; whether another request may follow."""
    fault = played.faults[number]
    peer.patience = LATEST
    try:
        while (got := await peer.message(bodiless=bodiless)).status < 200:
            pass
    except (asyncio.IncompleteReadError, ConnectionResetError):
        # Broken off: only where the upstream did so after its head, or gave no answer to end cleanly.
        assert fault in ("half a body", "half a chunk"), fault
        return False
    if got.status == 401:  # only where the body was too long to be sent once more
        assert b"too long to be kept" in (got.get(b"Proxy-Status") or b""), fault
        return got.get(b"Connection") != b"close"
    if got.get(b"Proxy-Status") is not None and got.status >= 500:
        # Good ones fail only where they were lost on a connection that the upstream was closing, and not done.
        not_done = number not in {done for done, _ in played.executed}
        assert fault in FAULTS or fault in BEFORE_THE_BODY or not_done, fault
    elif not bodiless:
        assert got.status == (404 if fault == "not found" else 413 if fault.startswith("refuses") else 200), fault
        assert set(got.body.split()) == {b"%d" % number}, (fault, got.body[:50])
    return got.get(b"Connection") != b"close"


async def run(seed: int, requests: int, trust: Path | None = None) -> None:
    """One run, and what must hold after it.

    :param trust: for certificates of the upstream's; None: it speaks no TLS
    """
    rng = random.Random(seed)
    played = Played(random.Random(seed + 1), server_context("localhost") if trust else None)
    for number in range(requests):
        if rng.random() < 0.15:
            played.sockets[number] = rng.choice(SOCKETS if trust else SOCKETS[:-1])
        else:
            played.faults[number] = rng.choice([*GOOD] if rng.random() < 0.6 else [*FAULTS, *BEFORE_THE_BODY])
    url = "https://localhost:{port}" if trust else "http://127.0.0.1:{port}"
    trusted = {"ca_file": str(ca_file(trust))} if trust else None
    async with rig(limits=LIMITS, api_url=url, upstream=trusted) as proxy, asyncio.TaskGroup() as serving:

        async def accept() -> None:
            while True:
                serving.create_task(upstream(await proxy.api.next(), played), name="upstream")

        accepting = serving.create_task(accept(), name="accept")
        async with asyncio.timeout(50), asyncio.TaskGroup() as clients:
            for which in range(CLIENTS):
                numbers = list(range(which, requests, CLIENTS))
                work = client(proxy, played, numbers, random.Random(seed * 100 + which))
                clients.create_task(work, name=f"client {which}")
        await proxy.clients_gone()
        tally = proxy.proxy.report().tenants[0].tally
        assert tally.at_once == 0
        assert tally.requests.get(401, 0) <= tally.replays.get("body_too_long", 0)
        await proxy.proxy.drain(0)
        await proxy.upstreams_gone()
        accepting.cancel()
    for (number, method), times in played.executed.items():
        # A safe request that was lost on a kept connection is sent once more; no other ever is.
        played_with = played.faults.get(number) or played.sockets[number]
        assert times <= (2 if method in (b"GET", b"HEAD") else 1), (number, method, played_with)


@pytest.mark.one_loop
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("seed", range(2))
async def test_random_faults_break_no_promise(seed: int, secure: bool, tmp_path: Path) -> None:
    await run(seed, 60, tmp_path if secure else None)


@pytest.mark.slow
@pytest.mark.one_loop
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("seed", range(100, 130))
async def test_many_random_faults_break_no_promise(seed: int, secure: bool, tmp_path: Path) -> None:
    await run(seed, 300, tmp_path if secure else None)

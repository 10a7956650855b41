"""Upgrades: WebSockets become tunnels once the upstream agrees, and nothing else does."""

from __future__ import annotations

import pytest

from tests.support.loops import SkippingLoop
from tests.support.peers import Message, Peer
from tests.support.rig import OK, REFUSED, Rig, answer, request, rig
from tests.support.stages import until

HANDSHAKE = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: WebSocket",
    "Sec-WebSocket-Key: a2V5",
    "Sec-WebSocket-Version: 13",
)
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)


def handshake(*lines: str) -> bytes:
    """A request to become a WebSocket, with further lines."""
    return request("GET", "/api/v2/ws", *HANDSHAKE, *lines)


async def upgraded(proxy: Rig, client: Peer, *lines: str) -> Peer:
    """The upstream's end of a new tunnel."""
    _, got, upstream = await proxy.exchange(client, handshake(*lines), AGREED)
    assert got.status == 101
    return upstream


def names(message: Message) -> list[bytes]:
    return [line.partition(b":")[0] for line in message.lines]


async def test_a_handshake_passes_with_a_token_and_the_answer_comes_back() -> None:
    async with rig() as proxy, proxy.client() as client:
        arrived, got, _ = await proxy.exchange(client, request("GET", "/api/v2/ws?a=%20", *HANDSHAKE), AGREED)
        assert arrived.start == b"GET /api/v2/ws?a=%20 HTTP/1.1"
        assert arrived.get(b"Connection") == b"Upgrade"
        assert arrived.get(b"Upgrade") == b"websocket"
        assert arrived.get(b"Sec-WebSocket-Key") == b"a2V5"
        assert arrived.get(b"Authorization") == b"Bearer token-1"
        assert got.start == b"HTTP/1.1 101 Switching Protocols"
        assert got.get(b"Connection") == b"Upgrade"
        assert got.get(b"Upgrade") == b"websocket"
        assert got.get(b"Sec-WebSocket-Protocol") == b"chat"
        assert got.get(b"Transfer-Encoding") is got.get(b"Content-Length") is None


async def test_a_web_messaging_socket_goes_to_its_host_without_a_token() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request("GET", "/t/acme/v1?deploymentId=d", *HANDSHAKE, "Authorization: guest")
        arrived, got, _ = await proxy.exchange(client, sent, AGREED)
        assert arrived.target == b"/v1?deploymentId=d"
        assert arrived.get(b"Authorization") == b"guest"
        assert got.status == 101
        assert proxy.tokens.asked == 0


async def test_frames_go_both_ways_as_they_are() -> None:
    everything = bytes(range(256)) * 1000
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        for _ in range(2):
            client.send(everything)
            assert await upstream.read(len(everything)) == everything
            upstream.send(everything)
            assert await client.read(len(everything)) == everything


async def test_bytes_right_behind_either_side_of_the_handshake_go_through_the_tunnel() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("GET", "/api/v2/ws", *HANDSHAKE), b"early client")
        upstream = await proxy.api.accept()
        await upstream.head()
        assert await upstream.silent()
        upstream.send(AGREED, b"early upstream")
        assert (await client.head()).status == 101
        assert await client.read(14) == b"early upstream"
        assert await upstream.read(12) == b"early client"


async def test_bytes_in_a_tunnel_are_no_requests() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        client.send(request("GET", "/api/v2/x"))
        assert await upstream.read(len(request("GET", "/api/v2/x"))) == request("GET", "/api/v2/x")
        upstream.send(OK)
        assert await client.read(len(OK)) == OK


async def test_an_end_passes_through_a_tunnel_and_leaves_the_other_direction_open() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        client.end()
        assert await upstream.rest() == b""
        upstream.send(b"bye")
        upstream.end()
        assert await client.rest() == b"bye"
        await proxy.upstreams_gone()
        await proxy.clients_gone()


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_a_reset_passes_through_a_tunnel(side: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        near, far = (client, upstream) if side == "client" else (upstream, client)
        near.reset()
        assert not await far.ended()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


async def test_a_silent_tunnel_ends_by_its_own_limit_and_not_by_the_others(clock: SkippingLoop) -> None:
    async with rig(limits={"tunnel_idle_timeout": 600}) as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        for talker, listener in (client, upstream), (upstream, client):
            await clock.skip(599)
            talker.send(b"x")
            assert await listener.read(1) == b"x"
        await clock.skip(601)
        assert await client.ended()
        assert await upstream.ended()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


@pytest.mark.parametrize("status", [200, 400, 403, 426, 503])
async def test_a_refused_handshake_passes_and_the_connection_goes_on(status: int) -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = answer(status, "Upgrade: websocket", body=b"why")
        _, got, upstream = await proxy.exchange(client, request("GET", "/api/v2/ws", *HANDSHAKE), sent)
        assert (got.status, got.body) == (status, b"why")
        client.send(request())
        await upstream.message()
        upstream.send(OK)
        assert (await client.message()).body == b"ok"


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA"),
        ("Connection: Upgrade", "Upgrade: websocket, h2c"),
        ("Connection: Upgrade", "Upgrade: TLS/1.2"),
        ("Upgrade: websocket",),
    ],
)
async def test_no_other_upgrade_is_passed_on(fields: tuple[str, ...]) -> None:
    async with rig() as proxy, proxy.client() as client:
        arrived, got, _ = await proxy.exchange(client, request("GET", "/api/v2/x", *fields))
        assert names(arrived) == [b"Host", b"Via", b"Authorization"]
        assert got.status == 200


@pytest.mark.parametrize(
    ("method", "version", "body"), [("POST", "1.1", b""), ("GET", "1.1", b"x"), ("GET", "1.0", b"")]
)
async def test_only_a_get_without_a_body_can_become_a_websocket(method: str, version: str, body: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request(method, "/api/v2/ws", *HANDSHAKE, body=body, version=version)
        arrived, got, _ = await proxy.exchange(client, sent)
        assert arrived.get(b"Upgrade") is None
        assert got.status == 200


@pytest.mark.parametrize("fields", [(), HANDSHAKE])
@pytest.mark.parametrize("protocol", [b"h2c", b"evil", b""])
async def test_an_upstream_can_not_switch_to_what_nobody_asked_for(fields: tuple[str, ...], protocol: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\nEVIL" % protocol
        _, got, upstream = await proxy.exchange(client, request("GET", "/api/v2/x", *fields), switched)
        assert got.status == 502
        assert await client.silent()
        await upstream.ended()
        await proxy.upstreams_gone()


async def test_a_token_refused_at_the_handshake_is_replaced_before_the_tunnel() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("GET", "/api/v2/ws", *HANDSHAKE))
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.send(REFUSED)
        again = await upstream.head()
        assert again.get(b"Authorization") == b"Bearer token-2"
        assert again.get(b"Sec-WebSocket-Key") == b"a2V5"
        upstream.send(AGREED)
        got = await client.head()
        assert got.status == 101
        assert (got.get(b"Proxy-Status") or b"").startswith(b"genesys-auth-proxy; details=")
        client.send(b"frame")
        assert await upstream.read(5) == b"frame"


async def test_an_answer_to_the_handshake_that_does_not_come_is_a_504(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("GET", "/api/v2/ws", *HANDSHAKE))
        upstream = await proxy.api.accept()
        await upstream.head()
        await clock.skip(15.1)
        assert (await client.message()).status == 504
        await upstream.ended()


async def test_a_websocket_is_counted_when_it_opens_and_while_it_is_open() -> None:
    async with rig(log={"access": "all"}) as proxy, proxy.client() as client:
        upstream = await upgraded(proxy, client)
        tally = proxy.proxy.report().tenants[0].tally
        assert (tally.requests, tally.at_once, tally.websockets, sum(tally.durations.counts)) == ({101: 1}, 0, 1, 1)
        client.send(b"12345")
        await upstream.read(5)
        upstream.send(b"1234567")
        await client.read(7)
        assert (tally.websocket_received, tally.websocket_sent) == (5, 7)
        assert proxy.records == []
        client.close()
        await upstream.rest()
        upstream.close()
        await proxy.clients_gone()
        await until(lambda: bool(proxy.records))
        assert (tally.requests, tally.websockets, sum(tally.durations.counts)) == ({101: 1}, 0, 1)
        [told] = proxy.records
        assert (told.status, told.received, told.sent) == (101, 5, 7)


async def test_a_page_of_a_foreign_origin_opens_no_socket() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("GET", "/api/v2/ws", *HANDSHAKE, "Origin: https://evil.example"))
        assert (await client.message()).status == 403
        assert proxy.api.connections == 0

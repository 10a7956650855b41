"""The way up: what the upstream gets, when, how often, and what becomes of it where no answer comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import ca_file, server_context
from tests.support.loops import SkippingLoop
from tests.support.peers import Message, Peer, Server
from tests.support.rig import OK, REFUSED, Rig, answer, chunked, request, rig


def assert_ours(got: Message, status: int, kind: str) -> None:
    """An answer of our own, with this error type of RFC 9209."""
    assert got.status == status
    marked = got.get(b"Proxy-Status")
    assert marked is not None
    assert marked.startswith(b"genesys-auth-proxy; error=%b; details=" % kind.encode())
    assert json.loads(got.body)["status"] == status


async def kept(proxy: Rig, client: Peer) -> Peer:
    """An upstream's end of a connection that carried a request and is now kept."""
    _, got, upstream = await proxy.exchange(client, request())
    assert got.status == 200
    return upstream


# --- what the upstream gets ---


async def test_the_head_has_the_clients_fields_then_ours_then_the_credential() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request(
            "POST", "/api/v2/a%2Fb//c?d=%20", "X-B: 1", "x-a:2", "x-b:  3 ", "Authorization: Bearer mine", body=b"hi"
        )
        arrived, _, _ = await proxy.exchange(client, sent)
        assert arrived.start == b"POST /api/v2/a%2Fb//c?d=%20 HTTP/1.1"
        assert arrived.lines == (
            b"Host: 127.0.0.1:%d" % proxy.api.port,
            b"X-B: 1",
            b"x-a:2",
            b"x-b:  3 ",
            b"Content-Length: 2",
            b"Via: 1.1 genesys-auth-proxy",
            b"Authorization: Bearer token-1",
        )
        assert arrived.body == b"hi"


async def test_what_is_for_this_hop_stays_here() -> None:
    hop = ("Connection: keep-alive, X-Mine, Content-Length", "Keep-Alive: 5", "X-Mine: 1", "Proxy-Connection: x",
           "TE: gzip", "Proxy-Authorization: x", "Forwarded: for=a", "X-Forwarded-For: a", "X_Forwarded_Host: a",
           "Trailer: X", "HTTP2-Settings: x", "Upgrade: h2c")  # fmt: skip
    async with rig() as proxy, proxy.client() as client:
        arrived, _, _ = await proxy.exchange(client, request("POST", "/api/v2/x", *hop, body=b"hi"))
        names = [line.partition(b":")[0] for line in arrived.lines]
        assert names == [b"Host", b"Content-Length", b"Via", b"Authorization"]
        assert arrived.body == b"hi"


async def test_a_request_without_a_body_gets_no_framing() -> None:
    async with rig() as proxy, proxy.client() as client:
        for method in ("GET", "POST", "DELETE", "PROPFIND"):
            client.send(request(method))
            upstream = await proxy.api.accept()
            arrived = await upstream.message()
            assert arrived.get(b"Content-Length") is arrived.get(b"Transfer-Encoding") is None
            upstream.send(OK)
            upstream.end()
            await client.message()
            await proxy.upstreams_gone()


async def test_a_chunked_body_is_chunked_again_and_its_trailers_are_dropped() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request("PUT", "/api/v2/x", "Transfer-Encoding: chunked", "Trailer: Content-Length")
        coded = chunked(b"abc", b"de", trailers=b"Content-Length: 3\r\nX: y\r\n")
        arrived, got, _ = await proxy.exchange(client, sent + coded)
        assert arrived.body == b"abcde"
        assert arrived.trailers == ()
        assert arrived.get(b"Trailer") is None
        assert got.status == 200


async def test_an_http_1_0_client_is_passed_on_as_http_1_1() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request("POST", "/api/v2/x", "Expect: 100-continue", body=b"hi", version="1.0")
        arrived, got, _ = await proxy.exchange(client, sent)
        assert arrived.start.endswith(b"HTTP/1.1")
        assert arrived.get(b"Via") == b"1.0 genesys-auth-proxy"
        assert arrived.get(b"Expect") is None
        assert got.status == 200
        assert got.get(b"Connection") == b"close"
        assert await client.rest() == b""


async def test_an_http_1_0_client_may_keep_its_connection_where_the_length_is_known() -> None:
    async with rig() as proxy, proxy.client() as client:
        for _ in range(2):
            client.send(request("GET", "/api/v2/x", "Connection: keep-alive", version="1.0"))
            upstream = await proxy.api.accept()
            await upstream.message()
            upstream.send(OK)
            upstream.end()
            assert (await client.message()).get(b"Connection") == b"keep-alive"


@pytest.mark.parametrize(
    ("hops", "passed"), [("5", b"4"), ("1", b"0"), ("00", b"00"), ("many", b"many"), ("9" * 30, b"9" * 30)]
)
async def test_options_goes_one_hop_less_far(hops: str, passed: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        arrived, _, _ = await proxy.exchange(client, request("OPTIONS", "/api/v2/x", f"Max-Forwards: {hops}"))
        assert arrived.get(b"Max-Forwards") == passed


async def test_options_for_no_hop_is_answered_here() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("OPTIONS", "/api/v2/x", "Max-Forwards: 0"))
        got = await client.message()
        assert (got.status, got.body) == (200, b"")
        assert b"GET" in (got.get(b"Allow") or b"")
        assert proxy.api.connections == 0


async def test_options_for_the_server_goes_on_as_it_is() -> None:
    async with rig() as proxy, proxy.client() as client:
        arrived, _, _ = await proxy.exchange(client, request("OPTIONS", "*"))
        assert arrived.target == b"*"


async def test_an_upstreams_own_path_comes_before_the_target() -> None:
    async with rig(api_url="http://127.0.0.1:{port}/base") as proxy, proxy.client() as client:
        arrived, _, _ = await proxy.exchange(client, request(target="/t/acme/api/v2/x?y"))
        assert arrived.target == b"/base/api/v2/x?y"


# --- the body on its way ---


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_a_body_goes_up_as_it_comes(in_chunks: bool) -> None:
    framing = "Transfer-Encoding: chunked" if in_chunks else "Content-Length: 9"
    pieces = [b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"3\r\nghi\r\n0\r\n\r\n"] if in_chunks else [b"abc", b"def", b"ghi"]
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", framing))
        upstream = await proxy.api.accept()
        await upstream.head()
        for piece in pieces:
            client.send(piece)
            assert await upstream.read(len(piece)) == piece
        upstream.send(OK)
        assert (await client.message()).status == 200
        upstream = await proxy.api.accept() if proxy.api.connections > 1 else upstream
        client.send(request())
        assert (await upstream.message()).start.startswith(b"GET ")


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("size", [1, 1000, 300_000, 3_000_000])
async def test_a_body_arrives_whole_whatever_its_size(in_chunks: bool, size: int) -> None:
    content = bytes(range(250)) * (size // 250) + b"x" * (size % 250)
    async with rig() as proxy, proxy.client() as client:
        if in_chunks:
            sent = request("POST", "/api/v2/x", "Transfer-Encoding: chunked")
            sent += chunked(*(content[at : at + 70_001] for at in range(0, size, 70_001)))
        else:
            sent = request("POST", "/api/v2/x", body=content)
        arrived, got, _ = await proxy.exchange(client, sent)
        assert arrived.body == content
        assert got.status == 200


@pytest.mark.parametrize(
    ("framing", "begun", "how"),
    [
        ("Content-Length: 9", b"abc", "end"),
        ("Content-Length: 9", b"abc", "reset"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n", "end"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n", "reset"),
        ("Transfer-Encoding: chunked", b"9\r\nabc", "end"),
    ],
)
async def test_a_client_that_leaves_inside_its_body_never_sends_a_whole_request(
    framing: str, begun: bytes, how: str
) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", framing))
        upstream = await proxy.api.accept()
        await upstream.head()
        client.send(begun)
        assert await upstream.read(len(begun)) or True
        client.end() if how == "end" else client.reset()
        with pytest.raises(ConnectionResetError):
            await upstream.rest()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


async def test_a_body_that_is_broken_is_told_and_never_sends_a_whole_request() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Transfer-Encoding: chunked"))
        upstream = await proxy.api.accept()
        await upstream.head()
        client.send(b"3\r\nabc\r\nno size\r\n")
        assert_ours(await client.message(), 400, "http_request_error")
        assert await client.rest() == b""
        with pytest.raises(ConnectionResetError):
            await upstream.rest()
        await proxy.upstreams_gone()


async def test_a_body_that_is_broken_from_the_start_reaches_nobody() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Transfer-Encoding: chunked"), b"no size\r\n", request())
        got = await client.message()
        assert_ours(got, 400, "http_request_error")
        assert got.get(b"Connection") == b"close"
        assert await client.rest() == b""
        assert proxy.api.connections == 0


async def test_a_body_that_stops_is_told_so(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 9"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        await clock.skip(75.1)
        got = await client.message()
        assert_ours(got, 408, "http_request_error")
        assert got.get(b"Connection") == b"close"
        with pytest.raises(ConnectionResetError):
            await upstream.rest()


@pytest.mark.parametrize(("later", "status"), [(14, 200), (15.1, 504)])
async def test_the_answer_has_its_time_from_the_bodys_last_byte(clock: SkippingLoop, later: float, status: int) -> None:
    async with rig(limits={"body_timeout": 300}) as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 4"))
        upstream = await proxy.api.accept()
        await upstream.head()
        for _ in range(4):
            await clock.skip(70)
            client.send(b"x")
        await clock.skip(later)
        upstream.send(OK)
        assert (await client.message()).status == status


# --- backpressure on the way up ---


async def test_an_upstream_that_does_not_read_stops_the_client_and_costs_little_memory() -> None:
    async with rig(api=Server(buffer=16384)) as proxy, proxy.client(buffer=16384) as client:
        client.send(request("POST", "/api/v2/x", f"Content-Length: {64 << 20}"))
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.stop_reading()
        sent = await client.push(64 << 20)
        assert sent < 32 << 20  # most of it in the kernel's buffers
        upstream.resume_reading()
        assert await upstream.read(sent) == b"x" * sent
        assert await client.push(1 << 20)


# --- Expect and interim answers ---


async def test_continue_is_the_upstreams_to_say() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Expect: 100-continue", "Content-Length: 4"))
        upstream = await proxy.api.accept()
        assert (await upstream.head()).get(b"Expect") == b"100-continue"
        assert await client.silent()
        upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.head()).status == 100
        client.send(b"body")
        assert await upstream.read(4) == b"body"
        upstream.send(OK)
        assert (await client.message()).status == 200
        assert await upstream.silent()


async def test_a_client_that_is_told_no_instead_of_continue_is_closed_for_what_it_sends_next_is_unclear() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Expect: 100-continue", "Content-Length: 4"))
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.send(answer(417))
        got = await client.message()
        assert (got.status, got.get(b"Connection")) == (417, b"close")
        client.end()
        assert await client.rest() == b""
        await upstream.ended()
        await proxy.upstreams_gone()


async def test_a_client_that_expects_but_does_not_wait_is_served() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request("POST", "/api/v2/x", "Expect: 100-continue", body=b"body")
        arrived, got, _ = await proxy.exchange(client, sent, b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        assert arrived.body == b"body"
        assert got.status == 100
        assert (await client.message()).status == 200


async def test_interim_answers_pass_in_their_order_without_what_is_for_the_hop() -> None:
    async with rig() as proxy, proxy.client() as client:
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: y\r\nContent-Length: 5\r\n\r\n"
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(b"HTTP/1.1 102 Processing\r\n\r\n", interim)
        assert (await client.head()).start == b"HTTP/1.1 102 Processing"
        hints = await client.head()
        assert (hints.status, hints.lines) == (103, (b"Link: </a>",))
        upstream.send(OK)
        assert (await client.message()).status == 200


async def test_an_http_1_0_client_gets_no_interim_answer() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, _ = await proxy.exchange(client, request(version="1.0"), b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
        assert got.status == 200


async def test_interim_answers_do_not_put_the_answer_off(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        for _ in range(2):
            upstream.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            assert (await client.head()).status == 102
            await clock.skip(7.6)
        assert (await client.message()).status == 504


HINTS = b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 16_000 + b"\r\n\r\n"


async def test_a_client_that_takes_no_interim_answers_makes_the_upstream_wait() -> None:
    async with rig(api=Server(buffer=16384)) as proxy, proxy.client(buffer=16384) as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        assert await upstream.push(32 << 20, HINTS) < 16 << 20


async def test_interim_answers_without_end_are_no_answer() -> None:
    async with rig(limits={"request_timeout": 0.5}) as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()

        async def flood() -> None:
            with contextlib.suppress(OSError):
                while True:  # so many at once that the next is always there
                    await upstream.send_all(HINTS * 32)

        async with asyncio.TaskGroup() as meanwhile:
            flooding = meanwhile.create_task(flood(), name="flood")
            while (answer := await client.head()).status == 103:
                pass
            flooding.cancel()
        assert answer.status == 504


# --- no answer ---


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 2"])
async def test_an_answer_that_does_not_come_is_a_504(clock: SkippingLoop, begun: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(begun)
        await clock.skip(13)
        assert await client.silent()
        await clock.skip(2.1)
        assert_ours(await client.message(), 504, "http_response_timeout")
        await upstream.ended()
        await proxy.upstreams_gone()
        _, got, _ = await proxy.exchange(client, request())
        assert got.status == 200


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 2"])
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_an_upstream_that_closes_without_an_answer_is_a_502(before: bytes, how: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(before)
        if before.endswith(b"\n"):
            assert (await client.head()).status == 100
        else:
            await asyncio.sleep(0.01)
        upstream.end() if how == "end" else upstream.reset()
        assert_ours(await client.message(), 502, "connection_terminated")
        assert proxy.api.connections == 1
        _, got, _ = await proxy.exchange(client, request())
        assert got.status == 200


@pytest.mark.parametrize(
    "broken",
    [
        b"HTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 4\r\n\r\nEVIL",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nEVIL",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nEVIL",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nEVIL",
        b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\n" % (b"x" * 70_000),
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: evil\r\n\r\nEVIL",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nEVIL\r\n",
    ],
)
async def test_an_answer_that_is_none_is_a_502_and_nothing_of_it_passes(broken: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, _ = await proxy.exchange(client, request(), broken)
        assert_ours(got, 502, "http_protocol_error")
        assert b"EVIL" not in got.body
        await proxy.upstreams_gone()
        _, got, _ = await proxy.exchange(client, request())
        assert got.status == 200


# --- no connection ---


async def test_an_upstream_that_refuses_is_a_502_until_it_is_back() -> None:
    async with rig() as proxy, proxy.client() as client:
        proxy.api.stop()
        for _ in range(2):
            client.send(request("POST", "/api/v2/x", body=b"hi"))
            assert_ours(await client.message(), 502, "connection_refused")
        await proxy.api.listen()
        arrived, got, _ = await proxy.exchange(client, request("POST", "/api/v2/x", body=b"hi"))
        assert (arrived.body, got.status) == (b"hi", 200)


async def test_an_upstream_that_does_not_shake_hands_is_a_504(clock: SkippingLoop) -> None:
    async with rig(api_url="https://127.0.0.1:{port}") as proxy, proxy.client() as client:
        client.send(request())
        await clock.skip(5.1)
        assert_ours(await client.message(), 504, "connection_timeout")
        await (await proxy.api.accept()).ended()


async def test_the_time_for_a_connection_is_part_of_the_answers_time(clock: SkippingLoop) -> None:
    limits = {"request_timeout": 5, "connect_timeout": 15}
    async with rig(api_url="https://127.0.0.1:{port}", limits=limits) as proxy, proxy.client() as client:
        client.send(request())
        await clock.skip(5.1)
        assert (await client.message()).status == 504


def secure(folder: Path, server: ssl.SSLContext) -> contextlib.AbstractAsyncContextManager[Rig]:
    """A proxy that trusts the tests' authority, before an upstream with this TLS."""
    return rig(api=Server(server), api_url="https://localhost:{port}", upstream={"ca_file": str(ca_file(folder))})


async def test_tls_by_an_authority_of_our_own_is_trusted(tmp_path: Path) -> None:
    async with secure(tmp_path, server_context("localhost")) as proxy, proxy.client() as client:
        arrived, got, upstream = await proxy.exchange(client, request())
        assert arrived.get(b"Host") == b"localhost:%d" % proxy.api.port
        assert got.body == b"ok"
        client.send(request())
        assert (await upstream.message()).start.startswith(b"GET ")


@pytest.mark.parametrize(
    ("name", "trusted"), [("localhost", False), ("another.example", True)], ids=["unknown authority", "wrong name"]
)
async def test_tls_that_can_not_be_verified_is_a_502_and_no_token_is_sent(
    tmp_path: Path, name: str, trusted: bool
) -> None:
    async with secure(tmp_path, server_context(name, trusted=trusted)) as proxy, proxy.client() as client:
        client.send(request())
        assert_ours(await client.message(), 502, "tls_certificate_error")
        assert proxy.api.connections == 0


# --- connections that are kept ---


async def test_one_connection_serves_one_request_after_the_other() -> None:
    async with rig() as proxy, proxy.client() as client, proxy.client() as other:
        upstream = await kept(proxy, client)
        for peer in client, other, client:
            peer.send(request("POST", "/api/v2/x", body=b"hi"))
            assert (await upstream.message()).body == b"hi"
            upstream.send(OK)
            assert (await peer.message()).status == 200
        assert proxy.api.connections == 1
        assert proxy.upstream_connections == 1


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_request_that_had_an_interim_answer_is_not_sent_again(how: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await kept(proxy, client)
        client.send(request())
        await upstream.message()
        upstream.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        assert (await client.head()).status == 103
        upstream.end() if how == "end" else upstream.reset()
        assert_ours(await client.message(), 502, "connection_terminated")
        assert proxy.api.connections == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_safe_request_lost_on_a_kept_connection_is_sent_once_more_on_a_new_one(method: str, how: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await kept(proxy, client)
        client.send(request(method))
        await upstream.message()
        upstream.end() if how == "end" else upstream.reset()
        fresh = await proxy.api.accept()
        assert (await fresh.message()).start.startswith(method.encode())
        fresh.send(answer(200))
        assert (await client.message(bodiless=method == "HEAD")).status == 200
        assert proxy.api.connections == 2


async def test_a_safe_request_lost_twice_is_not_sent_a_third_time() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await kept(proxy, client)
        client.send(request())
        await upstream.message()
        upstream.end()
        fresh = await proxy.api.accept()
        await fresh.message()
        fresh.end()
        assert_ours(await client.message(), 502, "connection_terminated")
        assert proxy.api.connections == 2


async def test_a_safe_request_lost_on_a_new_connection_is_not_sent_again() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.end()
        assert_ours(await client.message(), 502, "connection_terminated")
        assert proxy.api.connections == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
async def test_any_other_request_lost_on_a_kept_connection_may_have_been_done_and_fails(method: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await kept(proxy, client)
        client.send(request(method, "/api/v2/x", body=b"hi"))
        await upstream.message()
        upstream.end()
        assert_ours(await client.message(), 502, "connection_terminated")
        assert proxy.api.connections == 1


async def test_a_get_with_a_body_is_sent_again_whole() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await kept(proxy, client)
        client.send(request("GET", "/api/v2/x", "Content-Length: 6"), b"abc")
        await upstream.head()
        assert await upstream.read(3) == b"abc"
        upstream.end()
        fresh = await proxy.api.accept()
        await fresh.head()
        assert await fresh.read(3) == b"abc"
        client.send(b"def")
        assert await fresh.read(3) == b"def"
        fresh.send(OK)
        assert (await client.message()).status == 200


async def test_a_connection_that_was_closed_while_unused_costs_a_post_nothing() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await kept(proxy, client)
        upstream.end()
        await proxy.upstreams_gone()
        arrived, got, _ = await proxy.exchange(client, request("POST", "/api/v2/x", body=b"hi"))
        assert (arrived.body, got.status) == (b"hi", 200)


@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"])
@pytest.mark.parametrize("together", [True, False])
async def test_bytes_behind_an_answer_are_never_the_next_ones(surplus: bytes, together: bool) -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, upstream = await proxy.exchange(client, request(), OK + (surplus if together else b""))
        assert got.body == b"ok"
        if not together:
            upstream.send(surplus)
        await upstream.ended()
        await proxy.upstreams_gone()
        _, got, _ = await proxy.exchange(client, request())
        assert got.body == b"ok"
        assert proxy.api.connections == 2


@pytest.mark.parametrize("last", [answer(200, "Connection: close"), answer(200, version="1.0")])
async def test_a_connection_that_the_upstream_does_not_keep_is_not_kept_here_either(last: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        for count in (1, 2):
            _, got, upstream = await proxy.exchange(client, request(), last)
            assert got.status == 200
            assert got.get(b"Connection") is None
            await upstream.ended()
            assert proxy.api.connections == count
        await proxy.upstreams_gone()


# --- refused tokens ---


async def test_a_refused_token_is_replaced_and_the_request_sent_again_on_the_same_connection() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request("POST", "/api/v2/x", "X-A: b", body=b"hi")
        client.send(sent)
        upstream = await proxy.api.accept()
        first = await upstream.message()
        upstream.send(REFUSED)
        second = await upstream.message()
        upstream.send(OK)
        got = await client.message()
        assert first.lines[:-1] == second.lines[:-1]
        assert (first.body, second.body) == (b"hi", b"hi")
        assert (first.lines[-1], second.lines[-1]) == (
            b"Authorization: Bearer token-1",
            b"Authorization: Bearer token-2",
        )
        assert (got.status, got.body) == (200, b"ok")
        assert (got.get(b"Proxy-Status") or b"").startswith(b"genesys-auth-proxy; details=")
        assert proxy.api.connections == 1


@pytest.mark.parametrize(
    "refused",
    [
        b"HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 401 No\r\n\r\nno",
        b"HTTP/1.1 401 No\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
        b"HTTP/1.1 401 No\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nnoSURPLUS",
    ],
)
async def test_a_refusal_that_can_not_be_read_away_costs_its_connection_and_nothing_else(refused: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", body=b"hi"))
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(refused)
        fresh = await proxy.api.accept()
        assert (await fresh.message()).body == b"hi"
        fresh.send(OK)
        assert (await client.message()).body == b"ok"
        await upstream.ended()
        assert proxy.upstream_connections == 1


async def test_a_refusal_that_comes_slowly_does_not_hold_the_replay_for_long(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\n")
        for _ in range(3):
            upstream.send(b"x")
            await clock.skip(0.4)
        fresh = await proxy.api.accept()
        await fresh.message()
        fresh.send(OK)
        assert (await client.message()).status == 200
        await upstream.ended()


async def test_a_client_that_leaves_while_a_refusal_is_read_leaves_no_connection_behind() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\nx")
        await asyncio.sleep(0.02)
        client.reset()
        await proxy.clients_gone()
        await upstream.ended()
        await proxy.upstreams_gone()


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_a_body_that_was_still_coming_when_the_token_was_refused_is_sent_whole(in_chunks: bool) -> None:
    framing = "Transfer-Encoding: chunked" if in_chunks else "Content-Length: 6"
    pieces = [b"3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n"] if in_chunks else [b"abc", b"def"]
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", framing), pieces[0])
        upstream = await proxy.api.accept()
        await upstream.head()
        assert await upstream.read(len(pieces[0])) == pieces[0]
        upstream.send(REFUSED)
        fresh = await proxy.api.accept()
        head = await fresh.head()
        assert head.get(b"Authorization") == b"Bearer token-2"
        assert await fresh.read(len(pieces[0])) == pieces[0]
        client.send(pieces[1])
        assert await fresh.read(len(pieces[1])) == pieces[1]
        fresh.send(OK)
        assert (await client.message()).status == 200
        with pytest.raises(ConnectionResetError):
            await upstream.rest()


async def test_expectations_hold_through_a_replay() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Expect: 100-continue", "Content-Length: 4"))
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.send(REFUSED)
        fresh = await proxy.api.accept()
        await fresh.head()
        assert await client.silent()
        fresh.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.head()).status == 100
        client.send(b"body")
        assert await fresh.read(4) == b"body"
        fresh.send(OK)
        assert (await client.message()).status == 200


DOWN = answer(503, body=b"{}")


async def test_a_refusal_is_no_401_where_no_newer_token_can_be_had_and_the_next_request_has_the_old_one() -> None:
    async with rig(limits={"request_timeout": 1}) as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request())
        proxy.tokens.answers.extend([DOWN] * 10)
        client.send(request("POST", "/api/v2/x", body=b"hi"))
        await upstream.message()
        upstream.send(REFUSED)
        got = await client.message()
        assert (got.status, json.loads(got.body)["code"]) == (503, "token.unavailable")
        assert int(got.get(b"Retry-After") or 0) >= 1
        client.send(request())
        upstream = await proxy.api.accept()
        assert (await upstream.message()).get(b"Authorization") == b"Bearer token-1"
        upstream.send(OK)
        assert (await client.message()).status == 200
        assert proxy.proxy.report().tenants[0].tally.replays == {"no_newer_token": 1}


async def test_a_token_endpoint_that_fails_once_after_a_refusal_is_waited_for() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, _, upstream = await proxy.exchange(client, request())
        proxy.tokens.answers.append(DOWN)
        client.send(request("POST", "/api/v2/x", body=b"hi"))
        await upstream.message()
        upstream.send(REFUSED)
        again = await upstream.message()
        assert (again.get(b"Authorization"), again.body) == (b"Bearer token-3", b"hi")
        upstream.send(OK)
        assert (await client.message()).status == 200
        assert proxy.proxy.report().tenants[0].tally.replays == {"accepted": 1}


async def test_a_refusal_before_the_body_was_there_ends_both_connections_where_there_is_no_newer_token() -> None:
    async with rig(limits={"request_timeout": 1}) as proxy, proxy.client() as client:
        proxy.tokens.answers.extend([proxy.tokens.token(), *[DOWN] * 10])
        client.send(request("POST", "/api/v2/x", "Content-Length: 6"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        assert await upstream.read(3) == b"abc"
        upstream.send(REFUSED)
        got = await client.message()
        assert (got.status, got.get(b"Connection")) == (503, b"close")
        await proxy.upstreams_gone()


async def test_a_client_that_leaves_while_a_newer_token_is_awaited_leaves_no_connection_behind() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        proxy.tokens.open.clear()
        upstream.send(REFUSED)
        await proxy.tokens.asked_for(2)
        client.reset()
        await proxy.clients_gone()
        await proxy.upstreams_gone()


@pytest.mark.parametrize(("size", "requests"), [(1024, 2), (1025, 1)])
async def test_a_body_is_sent_again_if_it_fits_the_buffer_and_only_then(size: int, requests: int) -> None:
    async with rig(limits={"replay_buffer": 1024}) as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", body=b"x" * size))
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(REFUSED)
        if requests == 2:
            assert len((await upstream.message()).body) == size
            upstream.send(OK)
        got = await client.message()
        assert got.status == (200 if requests == 2 else 401)
        assert (b"too long" in (got.get(b"Proxy-Status") or b"")) == (requests == 1)
        assert await upstream.silent()


async def test_a_replay_that_gets_no_answer_is_a_502_and_counted() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(REFUSED)
        await upstream.message()
        upstream.reset()
        fresh = await proxy.api.accept()
        await fresh.message()
        fresh.reset()
        assert_ours(await client.message(), 502, "connection_terminated")
        assert proxy.proxy.report().tenants[0].tally.replays == {"failed": 1}


async def test_a_replay_whose_answer_is_broken_is_counted_once() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(REFUSED)
        await upstream.message()
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok")
        assert (await client.message()).status == 502
        assert proxy.proxy.report().tenants[0].tally.replays == {"accepted": 1}

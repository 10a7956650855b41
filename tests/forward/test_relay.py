"""The way down: an answer arrives as it was sent, framed for its client, and never looks whole when it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.certificates import ca_file, server_context
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer, Server
from tests.support.rig import OK, Rig, answer, chunked, request, rig

HEAD_OF_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def asked(proxy: Rig, client: Peer, sent: bytes) -> Peer:
    """The upstream's end, once a request has arrived there on a new connection."""
    client.send(sent)
    upstream = await proxy.api.accept()
    await upstream.message()
    return upstream


async def still_kept(proxy: Rig, client: Peer, upstream: Peer) -> None:
    """Both connections carry another request."""
    client.send(request())
    await upstream.message()
    upstream.send(OK)
    assert (await client.message()).body == b"ok"
    assert proxy.api.connections == 1


# --- framing ---


async def test_an_answer_keeps_its_status_its_fields_and_their_order() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = (
            b"HTTP/1.1 299 Any \xe9 Reason\r\nX-B: 1\r\nx-a:2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
            b"Content-Length: 2\r\nX-E:\r\n\r\nok"
        )
        _, got, upstream = await proxy.exchange(client, request(), sent)
        assert got.start == b"HTTP/1.1 299 Any \xe9 Reason"
        assert got.lines == (
            b"X-B: 1", b"x-a:2", b"Set-Cookie: a", b"Set-Cookie: b", b"Content-Length: 2", b"X-E:",
            b"Via: 1.1 genesys-auth-proxy",
        )  # fmt: skip
        assert got.body == b"ok"
        await still_kept(proxy, client, upstream)


async def test_what_was_for_the_upstreams_hop_does_not_pass() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = answer(200, "Connection: X-Mine, keep-alive", "X-Mine: 1", "Keep-Alive: timeout=5",
                      "Proxy-Authenticate: x", "Upgrade: h2c", "Trailer: X", "X-Ours: 1", body=b"ok")  # fmt: skip
        _, got, _ = await proxy.exchange(client, request(), sent)
        assert [line.partition(b":")[0] for line in got.lines] == [b"X-Ours", b"Content-Length", b"Via"]
        assert got.body == b"ok"


async def test_folded_fields_are_unfolded() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, _ = await proxy.exchange(
            client, request(), b"HTTP/1.1 200 OK\r\nX: one\r\n two\r\nContent-Length : 2\r\n\r\nok"
        )
        assert (got.get(b"X"), got.body) == (b"one two", b"ok")


@pytest.mark.parametrize("size", [0, 1, 5000, 2_000_000])
@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
async def test_a_body_arrives_whole_whatever_delimits_it(size: int, framing: str) -> None:
    content = (b"0123456789" * (size // 10 + 1))[:size]
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request())
        match framing:
            case "length":
                upstream.send(answer(200, body=content))
            case "chunks":
                pieces = (content[at : at + 65_000] for at in range(0, size, 65_000))
                upstream.send(HEAD_OF_CHUNKS, chunked(*pieces))
            case "end":
                upstream.send(b"HTTP/1.1 200 OK\r\n\r\n", content)
                upstream.end()
        got = await client.message()
        assert got.body == content
        assert (got.get(b"Content-Length") is None) == (framing != "length")
        assert got.get(b"Connection") is None
        if framing == "end":
            await proxy.upstreams_gone()
        else:
            await still_kept(proxy, client, upstream)


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
@pytest.mark.parametrize("keep", [True, False])
async def test_an_http_1_0_client_gets_a_length_or_the_connections_end(framing: str, keep: bool) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(
            proxy, client, request("GET", "/api/v2/x", *["Connection: keep-alive"] * keep, version="1.0")
        )
        match framing:
            case "length":
                upstream.send(answer(200, body=b"abcdef"))
            case "chunks":
                upstream.send(HEAD_OF_CHUNKS, chunked(b"abc", b"def"))
            case "end":
                upstream.send(b"HTTP/1.0 200 OK\r\n\r\nabcdef")
                upstream.end()
        got = await client.message()
        assert got.body == b"abcdef"
        assert got.get(b"Transfer-Encoding") is None
        stays = keep and framing == "length"
        assert got.get(b"Connection") == (b"keep-alive" if stays else b"close")
        assert got.get(b"Via") == (b"1.0" if framing == "end" else b"1.1") + b" genesys-auth-proxy"
        if stays:
            await still_kept(proxy, client, upstream)
        else:
            assert await client.rest() == b""


async def test_pieces_of_an_answer_arrive_as_they_are_sent() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request())
        upstream.send(HEAD_OF_CHUNKS)
        assert (await client.head()).status == 200
        for piece in b"3\r\nabc\r\n", b"4\r\ndefg\r\n", b"0\r\n\r\n":
            upstream.send(piece)
            assert await client.read(len(piece)) == piece
        await still_kept(proxy, client, upstream)


async def test_an_answer_that_comes_byte_by_byte_is_the_same() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request())
        await upstream.send_slowly(HEAD_OF_CHUNKS + chunked(b"abc", b"defgh"))
        assert (await client.message()).body == b"abcdefgh"
        await still_kept(proxy, client, upstream)


@pytest.mark.parametrize("te", ["TE: trailers", "TE: gzip, trailers;q=1, trailers", "te: Trailers"])
async def test_trailers_pass_to_a_client_that_asks_for_them(te: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        trailers = b"X-Sum: 1\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nSet-Cookie: a\r\nX-Two:\r\n"
        sent = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(
            b"abc", trailers=trailers
        )
        arrived, got, upstream = await proxy.exchange(client, request("GET", "/api/v2/x", te), sent)
        assert arrived.get(b"TE") == b"trailers"
        assert arrived.get(b"Connection") == b"TE"
        assert got.get(b"Trailer") == b"X-Sum"
        assert (got.body, got.trailers) == (b"abc", (b"X-Sum: 1", b"X-Two:"))
        await still_kept(proxy, client, upstream)


@pytest.mark.parametrize("fields", [(), ("TE: gzip",), ("TE:",)])
async def test_trailers_do_not_pass_to_a_client_that_does_not_ask(fields: tuple[str, ...]) -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(
            b"abc", trailers=b"X-Sum: 1\r\n"
        )
        arrived, got, upstream = await proxy.exchange(client, request("GET", "/api/v2/x", *fields), sent)
        assert arrived.get(b"TE") is None
        assert got.get(b"Trailer") is None
        assert (got.body, got.trailers) == (b"abc", ())
        await still_kept(proxy, client, upstream)


@pytest.mark.parametrize(
    ("method", "sent", "passed"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b"Content-Length: 999"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"Transfer-Encoding: chunked"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"Content-Length: 5"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", None),
        ("HEAD", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    ],
)
async def test_an_answer_that_has_no_body_is_not_waited_for(method: str, sent: bytes, passed: bytes | None) -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, upstream = await proxy.exchange(client, request(method), sent, bodiless=True)
        framing = [line for line in got.lines if line.startswith((b"Content-Length", b"Transfer-Encoding"))]
        assert framing == ([] if passed is None else [passed])
        await still_kept(proxy, client, upstream)


async def test_an_http_1_0_client_is_not_told_of_chunks_that_head_would_not_bring() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, _ = await proxy.exchange(client, request("HEAD", version="1.0"), HEAD_OF_CHUNKS, bodiless=True)
        assert got.get(b"Transfer-Encoding") is None


async def test_codings_of_the_content_are_nobodys_business_here() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, _ = await proxy.exchange(
            client, request(), answer(200, "Content-Encoding: gzip", body=b"\x1f\x8bnot gzip")
        )
        assert (got.get(b"Content-Encoding"), got.body) == (b"gzip", b"\x1f\x8bnot gzip")


@pytest.mark.parametrize("status", [301, 307, 403, 404, 429, 500, 503, 599, 999])
async def test_the_upstreams_own_word_passes_unmarked(status: int) -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, upstream = await proxy.exchange(
            client, request(), answer(status, "Location: http://a/", "Retry-After: 42", body=b"why")
        )
        assert (got.status, got.body) == (status, b"why")
        assert (got.get(b"Location"), got.get(b"Retry-After")) == (b"http://a/", b"42")
        assert got.get(b"Proxy-Status") is None
        await still_kept(proxy, client, upstream)


# --- requests one after the other ---


async def test_requests_that_come_together_are_answered_in_their_order() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request(target="/api/v2/1"), request("POST", "/api/v2/2", body=b"hi"), request(target="/api/v2/3"))
        upstream = await proxy.api.accept()
        for number in b"1", b"2", b"3":
            assert (await upstream.message()).target.endswith(number)
            assert await upstream.silent(0.01)
            upstream.send(answer(200, body=number))
        assert [(await client.message()).body for _ in range(3)] == [b"1", b"2", b"3"]


async def test_what_comes_behind_a_request_that_closes_is_dropped() -> None:
    async with rig() as proxy, proxy.client() as client:
        sent = request("GET", "/api/v2/x", "Connection: close") + request("POST", "/api/v2/evil", body=b"x")
        _, got, upstream = await proxy.exchange(client, sent)
        assert (got.status, got.get(b"Connection")) == (200, b"close")
        assert await client.rest() == b""
        assert await upstream.silent()
        assert proxy.api.connections == 1


async def test_a_client_that_has_ended_still_gets_its_answer() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request())
        client.end()
        await asyncio.sleep(0.02)
        upstream.send(answer(200, body=b"late"))
        assert (await client.message()).body == b"late"
        assert await client.rest() == b""


# --- answers that break off ---


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    ("framing", "how"),
    [("length", "end"), ("length", "reset"), ("chunks", "end"), ("chunks", "reset"), ("chunks", "break")],
)
async def test_an_answer_that_is_cut_short_never_looks_whole(framing: str, how: str, version: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request(version=version))
        upstream.send(answer(200, body=b"x" * 100)[:-10] if framing == "length" else HEAD_OF_CHUNKS + b"3\r\nabc\r\n")
        await client.head()
        await asyncio.sleep(0.01)
        match how:
            case "end":
                upstream.end()
            case "reset":
                upstream.reset()
            case "break":
                upstream.send(b"no size\r\n")
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await upstream.ended()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


async def test_an_answer_until_the_end_that_is_broken_off_never_looks_whole() -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request(version="1.0"))
        upstream.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        await client.until(b"abc")
        upstream.reset()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_an_answer_may_pause_as_long_as_it_is_not_idle(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request())
        upstream.send(HEAD_OF_CHUNKS)
        for _ in range(4):
            await clock.skip(70)
            upstream.send(b"1\r\nx\r\n")
        upstream.send(b"0\r\n\r\n")
        assert (await client.message()).body == b"xxxx"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_that_stops_never_looks_whole(clock: SkippingLoop, version: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request(version=version))
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await client.until(b"abc")
        await clock.skip(75.1)
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await upstream.ended()
        await proxy.upstreams_gone()


# --- clients that leave ---


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_inside_an_answer_ends_it_upstream(how: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request())
        upstream.send(HEAD_OF_CHUNKS)
        await client.head()
        client.reset() if how == "reset" else client.close()
        async with asyncio.timeout(10):
            while not upstream.closed:
                upstream.send(b"3\r\nabc\r\n")
                await asyncio.sleep(0.005)
        await proxy.upstreams_gone()
        await proxy.clients_gone()


# --- backpressure on the way down ---


async def test_a_client_that_does_not_read_stops_the_upstream_and_costs_little_memory() -> None:
    async with rig(api=Server(buffer=16384)) as proxy, proxy.client(buffer=16384) as client:
        upstream = await asked(proxy, client, request())
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        await client.head()
        client.stop_reading()
        sent = await upstream.push(64 << 20)
        assert sent < 32 << 20  # most of it in the kernel's buffers
        client.resume_reading()
        assert await client.read(sent) == b"x" * sent
        assert await upstream.push(1 << 20)


async def test_a_client_that_never_reads_is_given_up(clock: SkippingLoop) -> None:
    async with rig(api=Server(buffer=16384)) as proxy, proxy.client(buffer=16384) as client:
        upstream = await asked(proxy, client, request())
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        await client.head()
        client.stop_reading()
        await upstream.push(64 << 20)
        await clock.skip(75.1)
        await proxy.upstreams_gone()
        await proxy.clients_gone()


async def test_a_client_that_asks_and_asks_and_never_reads_is_given_up(clock: SkippingLoop) -> None:
    ahead = {"max_pipelined_requests": 1_000_000}
    async with rig(limits=ahead) as proxy, proxy.client(buffer=16384) as client:
        client.stop_reading()
        assert await client.push(64 << 20, request("TRACE", "/api/v2/x") * 1000) < 32 << 20
        for _ in range(500):  # it has the time anew with each answer that it takes
            if not proxy.client_connections:
                break
            await clock.skip(75.1)
        await proxy.clients_gone()


async def test_the_end_of_an_answer_over_tls_is_seen_by_a_client_that_reads_late(tmp_path: Path) -> None:
    api = Server(server_context("localhost"))
    tls = {"ca_file": str(ca_file(tmp_path))}
    async with (
        rig(api=api, api_url="https://localhost:{port}", upstream=tls) as proxy,
        proxy.client(buffer=16384) as client,
    ):
        upstream = await asked(proxy, client, request())
        upstream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x" * 700_000)
        upstream.close()
        client.stop_reading()
        await asyncio.sleep(0.1)
        client.resume_reading()
        assert (await client.message()).body == b"x" * 700_000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_passed_on_and_never_followed(status: int) -> None:
    async with rig() as proxy, proxy.client() as client, Server() as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/stolen"
        _, got, _ = await proxy.exchange(client, request(), answer(status, f"Location: {location}"))
        assert (got.status, got.get(b"Location")) == (status, location.encode())
        assert elsewhere.connections == 0
        assert proxy.api.connections == 1


TWO = {"acme": {}, "globex": {"client_id": "another"}}


@pytest.mark.parametrize("shortcut", [False, True])  # which takes a request where a connection is kept
async def test_a_relative_redirect_leads_to_the_same_tenant(shortcut: bool) -> None:
    async with rig(tenants=TWO, routing={"default_tenant": "acme"}) as proxy, proxy.client() as client:
        asked = request("GET", "/t/globex/api/v2/x")
        _, _, upstream = await proxy.exchange(client, asked)
        if not shortcut:
            upstream.close()
        client.send(asked)
        upstream = upstream if shortcut else await proxy.api.accept()
        first = await upstream.message()
        upstream.send(answer(307, "Location: /api/v2/other?a=1", "Set-Cookie: session=1; Path=/"))
        got = await client.message()
        assert got.get(b"Set-Cookie") == b"session=1; Path=/t/globex/"
        client.send(request("GET", (got.get(b"Location") or b"").decode()))
        second = await upstream.message()
        assert second.start == b"GET /api/v2/other?a=1 HTTP/1.1"
        assert second.get(b"Authorization") == first.get(b"Authorization")


async def test_a_relative_redirect_keeps_the_callers_key() -> None:
    access = {"caller_keys": ["key-key-key-key-key"]}
    async with rig(access=access) as proxy, proxy.client() as client:
        asked = request("GET", "/k/key-key-key-key-key/t/acme/api/v2/x")
        _, got, _ = await proxy.exchange(client, asked, answer(302, "Location: /y"))
        assert got.get(b"Location") == b"/k/key-key-key-key-key/t/acme/y"


async def test_a_redirect_of_a_request_without_a_prefix_stays_as_it_is() -> None:
    async with rig(routing={"default_tenant": "acme"}) as proxy, proxy.client() as client:
        _, got, _ = await proxy.exchange(client, request("GET", "/api/v2/x"), answer(302, "Location: /y"))
        assert got.get(b"Location") == b"/y"


# --- early answers ---


async def test_an_early_answer_arrives_while_the_body_is_coming_and_both_connections_go_on() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 6"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.send(answer(200, body=b"early"))
        got = await client.message()
        assert (got.body, got.get(b"Connection")) == (b"early", None)
        client.send(b"def", request())
        assert await upstream.read(6) == b"abcdef"
        assert (await upstream.message()).start.startswith(b"GET ")
        upstream.send(OK)
        assert (await client.message()).body == b"ok"
        assert proxy.api.connections == 1


async def test_an_early_answer_that_closes_ends_the_upload() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 600000"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.send(answer(413, "Connection: close", body=b"too much"))
        upstream.end()
        got = await client.message()
        assert (got.status, got.body, got.get(b"Connection")) == (413, b"too much", b"close")
        client.send(b"x" * 500_000)
        assert await client.rest() == b""
        client.close()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


@pytest.mark.parametrize(("status", "goes_on"), [(200, True), (413, False)])
async def test_a_body_is_sent_no_further_once_the_upstream_refuses_it_and_closes(status: int, goes_on: bool) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 600000"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        assert await upstream.read(3) == b"abc"
        upstream.send(b"HTTP/1.1 %d Early\r\nConnection: close\r\nContent-Length: 20\r\n\r\n" % status, b"the answer")
        head = await client.head()
        assert (head.status, await client.read(10)) == (status, b"the answer")
        client.send(b"def")
        assert await upstream.silent() != goes_on
        upstream.send(b"'s other half"[3:])
        assert await client.read(10) == b"other half"


@pytest.mark.parametrize("how", ["stop", "end", "reset"])
async def test_a_client_that_never_sends_the_rest_after_an_early_answer_costs_the_connections(
    clock: SkippingLoop, how: str
) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 6"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.send(answer(200, body=b"early"))
        assert (await client.message()).body == b"early"
        assert await upstream.read(3) == b"abc"
        if how == "stop":
            await clock.skip(75.1)
        else:
            client.end() if how == "end" else client.reset()
        with pytest.raises(ConnectionResetError):
            await upstream.rest()
        if how != "reset":
            await client.rest()
        client.close()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_an_early_answer_that_is_cut_short_never_looks_whole(how: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", "Content-Length: 6"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        upstream.send(HEAD_OF_CHUNKS, b"3\r\nabc\r\n")
        await client.head()
        upstream.end() if how == "end" else upstream.reset()
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await proxy.upstreams_gone()
        await proxy.clients_gone()


async def test_a_post_of_a_client_that_closes_does_not_cost_the_upstreams_connection() -> None:
    async with rig() as proxy, proxy.client() as client, proxy.client() as other:
        client.send(request("POST", "/api/v2/x", "Connection: close", "Content-Length: 6"), b"abc")
        upstream = await proxy.api.accept()
        await upstream.head()
        client.send(b"def")
        assert await upstream.read(6) == b"abcdef"
        upstream.send(OK)
        assert (await client.message()).get(b"Connection") == b"close"
        await still_kept(proxy, other, upstream)


async def test_an_answer_of_a_closed_connection_is_not_wiped_out_by_what_comes_behind(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        upstream = await asked(proxy, client, request("GET", "/api/v2/x", "Connection: close") + b"x" * 100_000)
        upstream.send(OK)
        client.send(b"x" * 1_000_000)
        assert (await client.message()).body == b"ok"
        assert await client.rest() == b""
        await clock.skip(3)
        await proxy.clients_gone()

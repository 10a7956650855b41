"""One POST over the network: what it carries, what bounds it, and what each way of going wrong is called."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gzip
import json
import re
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.core.answers import LONGEST_ANSWER, TokenAnswer
from proxy.core.grants import Client
from proxy.core.secret import Secret
from proxy.errors import TokenError, TokenRefused, TokenUnavailable
from proxy.oauth.endpoint import REQUEST_TIMEOUT, TokenEndpoint
from proxy.tls import client_context
from tests.oauth.fakes import SECRET
from tests.oauth.test_assertions import signing
from tests.oauth.token_server import GOOD, TokenServer, client, raw_server

CONNECT_TIMEOUT = 5.0

EC = ec.generate_private_key(ec.SECP256R1())

BASIC = "Basic " + base64.b64encode(f"acme-id:{SECRET}".encode()).decode()


@contextlib.asynccontextmanager
async def endpoint(
    tls: ssl.SSLContext | None = None, connect_timeout: float = CONNECT_TIMEOUT
) -> AsyncIterator[TokenEndpoint]:
    opened = TokenEndpoint(tls or client_context(None), connect_timeout)
    try:
        yield opened
    finally:
        await opened.close()


async def ask(server: TokenServer, **changes: object) -> TokenAnswer:
    """One request to a server that is up for it, from a client that differs by ``changes``."""
    changed: dict[str, Any] = changes
    async with server.serving(), endpoint() as asking:
        return await asking.ask(replace(client(server.url), **changed))


def answering(status: int = 200, body: bytes = b"", **fields: str) -> TokenServer:
    """A server that always gives the same answer; ``_`` stands for ``-`` in the names of fields."""

    async def answer(_: web.Request) -> web.Response:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        return web.Response(status=status, body=body, headers=headers)

    return TokenServer(answer)


# --- what goes out ---


async def test_the_request_is_one_post_with_a_form_and_basic_authentication() -> None:
    server = TokenServer()
    await ask(server)
    [request] = server.received
    assert (request.method, request.target) == ("POST", "/oauth/token")
    assert parse_qsl(request.body.decode()) == [("grant_type", "client_credentials")]
    assert request.fields["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.fields["Accept"] == "application/json"
    assert request.fields["Content-Length"] == str(len(request.body))
    assert request.fields.getall("Authorization") == [BASIC]


async def test_scope_resource_server_parameters_and_fields_are_sent() -> None:
    server = TokenServer()
    await ask(
        server,
        scope=("messaging:write", "users:read"),
        resource_server="partner-org",
        parameters={"resource": ("a", "b c"), "orgName": "Ärger"},
        headers={"X-Gateway-Key": "k"},
    )
    [request] = server.received
    assert parse_qsl(request.body.decode()) == [
        ("grant_type", "client_credentials"),
        ("scope", "messaging:write users:read"),
        ("resourceServer", "partner-org"),
        ("resource", "a"),
        ("resource", "b c"),
        ("orgName", "Ärger"),
    ]
    assert request.fields["resource_server"] == "partner-org"
    assert request.fields["X-Gateway-Key"] == "k"


async def test_id_and_secret_arrive_form_encoded() -> None:
    server = TokenServer()
    await ask(server, client_id="urn:acme", client_secret=Secret("p:a+s s%"))
    sent = base64.b64decode(server.received[0].fields["Authorization"].removeprefix("Basic "))
    assert sent == b"urn%3Aacme:p%3Aa%2Bs+s%25"


async def test_the_path_of_the_url_arrives_as_it_is_configured() -> None:
    server = TokenServer()
    async with server.serving(), endpoint() as asking:
        await asking.ask(client(server.url.replace("/oauth/token", "/gate%2Fway/~x/oauth/token")))
    assert server.received[0].target == "/gate%2Fway/~x/oauth/token"


async def test_one_connection_serves_one_request_after_the_other() -> None:
    server = TokenServer()
    async with server.serving(), endpoint() as asking:
        for _ in range(3):
            await asking.ask(client(server.url))
    assert len({request.port for request in server.received}) == 1


async def test_what_is_signed_anew_each_time_shares_a_connection() -> None:
    server = TokenServer()
    async with server.serving(), endpoint() as asking:
        for _ in range(3):
            await asking.ask(
                replace(client(server.url), grant="jwt_bearer", subject="agent", signing_key=signing(EC, "ES256"))
            )
    shown = [dict(parse_qsl(request.body.decode()))["assertion"] for request in server.received]
    assert len(set(shown)) == 3
    assert len({request.port for request in server.received}) == 1


@pytest.mark.parametrize(
    ("grant", "shown"), [("refresh_token", None), ("saml2_bearer", "assertion"), ("jwt_bearer", "assertion")]
)
async def test_what_can_be_used_once_goes_out_on_a_connection_of_its_own(grant: str, shown: str | None) -> None:
    server = TokenServer()
    async with server.serving(), endpoint() as asking:
        one = client(server.url)
        await asking.ask(one)  # leaves a connection that could be used
        for _ in range(2):
            assertion = None if shown is None else Secret(shown)
            await asking.ask(replace(one, grant=grant, assertion=assertion), Secret("refresh-token"))
        await asking.ask(one)
    ports = [request.port for request in server.received]
    assert len(set(ports)) == 3
    assert ports[0] == ports[3]


async def test_no_cookie_is_kept_from_one_client_to_the_next() -> None:
    server = answering(200, json.dumps(GOOD).encode(), Set_Cookie="session=acme; Path=/")
    async with server.serving(), endpoint() as asking:
        for _ in range(2):
            # A cookie jar keeps none of a server without a name.
            await asking.ask(client(server.url.replace("127.0.0.1", "localhost")))
    assert "Cookie" not in server.received[1].fields


# --- what comes back ---


async def test_a_token_comes_back_with_the_time_by_the_servers_clock() -> None:
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    answer = await ask(answering(200, json.dumps(GOOD).encode(), Date=date))
    assert answer == TokenAnswer("good-token", 86400, parsedate_to_datetime(date).timestamp())


async def test_a_compressed_answer_is_read() -> None:
    server = answering(200, gzip.compress(json.dumps(GOOD).encode()), Content_Encoding="gzip")
    assert (await ask(server)).access_token == "good-token"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    elsewhere = TokenServer()
    async with elsewhere.serving():
        server = answering(status, b"", Location=elsewhere.url)
        with pytest.raises(TokenRefused, match="redirects"):
            await ask(server)
    assert len(server.received) == 1
    assert elsewhere.received == []


@pytest.mark.parametrize(
    ("status", "body", "fields", "kind", "said"),
    [
        (200, b"<html>Sign in</html>", {"Content_Type": "text/html"}, TokenUnavailable, "20 bytes of text/html"),
        (200, b"", {}, TokenUnavailable, "answered 200 with nothing"),
        (200, b"{}", {}, TokenUnavailable, "without a usable access_token"),
        (200, b'{"access_token": "x", "token_type": "mac"}', {}, TokenRefused, "not a bearer token"),
        (204, b"", {}, TokenRefused, "204"),
        (400, b'{"error": "invalid_client", "description": "client not found"}', {}, TokenRefused, "wrong region"),
        (400, b'{"error": "x", "error_description": "rate limit exceeded"}', {}, TokenUnavailable, "throttling"),
        (404, b"nothing here", {}, TokenRefused, "404"),
        (408, b"", {}, TokenUnavailable, "answered 408"),
        (429, b"", {}, TokenUnavailable, "throttling"),
        (500, b"oops", {}, TokenUnavailable, "answered 500"),
        (503, b"", {}, TokenUnavailable, "answered 503"),
    ],
)  # fmt: skip
async def test_each_answer_is_told_for_what_it_is(
    status: int, body: bytes, fields: dict[str, str], kind: type[TokenError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        await ask(answering(status, body, **fields))


@pytest.mark.parametrize("status", [400, 429, 503])
async def test_retry_after_comes_through(status: int) -> None:
    body = b'{"error": "invalid_request", "error_description": "rate limit exceeded"}'
    with pytest.raises(TokenUnavailable) as caught:
        await ask(answering(status, body, Retry_After="42"))
    assert caught.value.retry_after == 42


# --- size ---


@pytest.mark.parametrize(("length", "whole"), [(LONGEST_ANSWER, True), (LONGEST_ANSWER + 1, False)])
async def test_an_answer_has_a_greatest_length(length: int, whole: bool) -> None:
    server = answering(200, json.dumps(GOOD).encode().ljust(length))
    if whole:
        assert (await ask(server)).access_token == "good-token"
        return
    with pytest.raises(TokenUnavailable, match="Tenant acme"):
        await ask(server)


async def test_an_endless_answer_is_broken_off() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
        while True:
            writer.write(b" " * 65_536)
            await writer.drain()
            sent += 65_536

    async with raw_server(pour) as url, endpoint() as asking:
        with pytest.raises(TokenUnavailable):
            await asking.ask(client(url))
    assert sent < 50_000_000


async def test_a_small_answer_that_unpacks_to_a_huge_one_is_broken_off() -> None:
    server = answering(200, gzip.compress(b"{" + b" " * 100_000_000), Content_Encoding="gzip")
    tracemalloc.start()
    try:
        with pytest.raises(TokenUnavailable):
            await ask(server)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


async def test_an_answer_that_is_too_long_is_told_as_such() -> None:
    with pytest.raises(TokenUnavailable, match="long"):
        await ask(answering(200, b" " * (LONGEST_ANSWER + 1)))


# --- time ---


class HurriedLoop(asyncio.SelectorEventLoop):
    """A loop whose time a test moves on; sockets take the time they take."""

    hurried = 0.0

    def time(self) -> float:
        return super().time() + self.hurried


def in_a_hurry(test: Callable[[HurriedLoop], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs a test on a HurriedLoop."""

    @functools.wraps(test)
    def run() -> None:
        loop = HurriedLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(test(loop))

    del run.__wrapped__  # pytest would take the loop for a fixture
    return run


async def expect_timeout(
    loop: HurriedLoop, url: str, reached: asyncio.Event, limit: float, tls: ssl.SSLContext | None = None
) -> None:
    """Asks, and is told that there is no answer in time when the limit is over and not much before."""
    async with endpoint(tls) as asking:
        task = loop.create_task(asking.ask(client(url)), name="token request")
        await reached.wait()
        loop.hurried += limit - 1.5
        await asyncio.sleep(0.01)
        assert not task.done()
        loop.hurried += 3.0
        with pytest.raises(TokenUnavailable, match=r"no (answer in time from|connection to) \S+:\d+") as caught:
            async with asyncio.timeout(1.0):
                await task
    assert caught.value.error == "unreachable"


@in_a_hurry
async def test_an_endpoint_that_does_not_answer_is_waited_for_ten_seconds(loop: HurriedLoop) -> None:
    reached = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        await reader.read()

    async with raw_server(be_silent) as url:
        await expect_timeout(loop, url, reached, REQUEST_TIMEOUT)


@in_a_hurry
async def test_the_body_is_not_waited_for_any_longer(loop: HurriedLoop) -> None:
    reached = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)
            reached.set()

    async with raw_server(drip) as url:
        await expect_timeout(loop, url, reached, REQUEST_TIMEOUT)


@in_a_hurry
async def test_a_connection_that_does_not_come_about_is_waited_for_a_shorter_time(loop: HurriedLoop) -> None:
    reached = asyncio.Event()

    async def shake_no_hands(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reached.set()
        await reader.read()

    async with raw_server(shake_no_hands) as url:
        await expect_timeout(loop, url.replace("http:", "https:"), reached, CONNECT_TIMEOUT)


async def test_the_whole_fits_in_the_sdks_patience() -> None:
    assert REQUEST_TIMEOUT < 16


async def test_a_request_that_is_given_up_leaves_nothing_behind() -> None:
    server = TokenServer()
    forever = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        await forever.wait()
        raise AssertionError

    server.answer = never
    async with server.serving(), endpoint() as asking:
        task = asyncio.get_running_loop().create_task(asking.ask(client(server.url)), name="token request")
        await server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- no answer ---


async def break_off(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


def saying(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return say


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 two hundred\r\n\r\n",
    ],
    ids=lambda answer: repr(answer)[:40],
)
async def test_an_answer_that_breaks_off_or_is_no_http_is_no_answer(answer: bytes) -> None:
    async with raw_server(saying(answer)) as url, endpoint() as asking:
        with pytest.raises(TokenUnavailable, match="gave no answer") as caught:
            await asking.ask(client(url))
    assert caught.value.error == "unreachable"
    assert re.search(r"127\.0\.0\.1:\d+ (broke off|answers is no HTTP)", str(caught.value))


async def test_a_refused_connection_is_no_answer() -> None:
    async with raw_server(break_off) as url:
        pass
    async with endpoint() as asking:
        said = rf"gave no answer \({urlsplit(url).netloc} refuses connections\); check region, login_url and network"
        with pytest.raises(TokenUnavailable, match=said):
            await asking.ask(client(url))


async def test_a_name_that_does_not_exist_is_no_answer() -> None:
    async with endpoint() as asking:
        with pytest.raises(TokenUnavailable, match=r"gave no answer \(the name login\.invalid is not found\)"):
            await asking.ask(client("https://login.invalid/oauth/token"))


async def test_close_ends_what_is_being_asked() -> None:
    server = TokenServer()
    forever = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        await forever.wait()
        raise AssertionError

    server.answer = never
    async with server.serving():
        asking = TokenEndpoint(client_context(None), CONNECT_TIMEOUT)
        task = asyncio.get_running_loop().create_task(asking.ask(client(server.url)), name="token request")
        await server.asked.wait()
        await asking.close()
        with pytest.raises(TokenUnavailable):
            await task


# --- TLS ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = client_context(None)
    authority.configure_trust(context)
    return context


async def test_a_trusted_server_is_asked_over_tls(authority: trustme.CA) -> None:
    async with TokenServer().serving(server_context(authority)) as server, endpoint(trusting(authority)) as asking:
        assert (await asking.ask(client(server.url))).access_token == "good-token"


async def test_a_server_that_is_not_trusted_is_sent_nothing_and_the_error_says_what_to_do(
    authority: trustme.CA,
) -> None:
    async with TokenServer().serving(server_context(authority)) as server, endpoint() as asking:
        with pytest.raises(
            TokenUnavailable, match=r"the certificate of localhost:\d+ is not trusted; .* upstream\.ca_file"
        ):
            await asking.ask(client(server.url))
    assert server.received == []


async def test_a_certificate_for_another_name_is_not_trusted(authority: trustme.CA) -> None:
    tls = server_context(authority, "login.example.com")
    async with TokenServer().serving(tls) as server, endpoint(trusting(authority)) as asking:
        with pytest.raises(TokenUnavailable, match=r"the certificate of localhost:\d+ is not trusted"):
            await asking.ask(client(server.url))
    assert server.received == []


async def test_a_context_that_a_reload_brings_is_used_from_then_on(authority: trustme.CA) -> None:
    async with TokenServer().serving(server_context(authority)) as server, endpoint() as asking:
        with pytest.raises(TokenUnavailable):
            await asking.ask(client(server.url))
        asking.tls = trusting(authority)
        assert (await asking.ask(client(server.url))).access_token == "good-token"


async def test_a_server_that_speaks_no_tls_is_no_answer() -> None:
    async with TokenServer().serving() as server, endpoint() as asking:
        with pytest.raises(TokenUnavailable, match=r"gave no answer \(TLS with 127\.0\.0\.1:\d+ failed\)"):
            await asking.ask(client(server.url.replace("http:", "https:")))
    assert server.received == []


# --- secrecy ---


async def test_no_error_shows_what_was_sent_or_what_came(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    told: list[str] = []

    async def note(asking: TokenEndpoint, of: Client) -> None:
        with pytest.raises(TokenError) as caught:
            await asking.ask(of)
        error: BaseException | None = caught.value
        while error is not None:
            told.append(f"{error!r} {error}")
            error = error.__cause__

    echo = f'{{"error": "{SECRET}", "error_description": "{SECRET}", "access_token": "{SECRET} x"}}'.encode()
    async with endpoint() as asking:
        for status in (200, 302, 400, 401, 429, 500):
            async with answering(status, echo, Location=f"http://x/{SECRET}").serving() as server:
                await note(asking, client(server.url))
        for raw in (echo, b"HTTP/1.1 " + echo + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + echo + b"\r\n\r\n"):
            async with raw_server(saying(raw)) as url:
                await note(asking, client(url))
        await note(asking, client("http://127.0.0.1:1/oauth/token"))
    assert len(told) == 10
    assert SECRET not in " ".join(told)
    assert SECRET not in caplog.text
    assert BASIC not in caplog.text

"""One request after the other: who may send it, whose it is, and what is left when somebody leaves."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from tests.support.loops import SkippingLoop
from tests.support.peers import Message, Peer
from tests.support.rig import OK, REFUSED, Rig, answer, chunked, request, rig
from tests.support.stages import until

pytestmark = pytest.mark.one_loop

KEY = "a-caller-key-for-tests"
TWO: dict[str, dict[str, object]] = {"acme": {}, "other": {}}


def assert_own_failure(got: Message, status: int) -> None:
    """An answer of our own, in Genesys's shape, that says so."""
    assert got.status == status != 401
    told = json.loads(got.body)
    assert told.keys() == {"message", "code", "status", "contextId", "details", "errors"}
    assert told["status"] == status
    assert told["message"]
    assert str(uuid.UUID(told["contextId"])) == told["contextId"]
    assert got.get(b"Content-Type") == b"application/json"
    assert (got.get(b"Proxy-Status") or b"").startswith(b"genesys-auth-proxy; error=")


async def refused(proxy: Rig, client: Peer, sent: bytes, status: int) -> Message:
    """The answer to a request of which nothing must go upstream, and no token be asked for."""
    client.send(sent)
    got = await client.message()
    assert_own_failure(got, status)
    assert proxy.api.connections == 0
    assert proxy.tokens.asked == 0
    return got


async def passed(proxy: Rig, client: Peer, sent: bytes) -> Message:
    """A request as it arrived upstream, on whatever connection."""
    client.send(sent)
    upstream = await proxy.api.accept()
    arrived = await upstream.message()
    upstream.send(answer(200, "Connection: close"))
    assert (await client.message()).status == 200
    return arrived


# --- Host, Origin and Sec-Fetch-Site ---


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:8080", "acme.localhost", "proxy.example:9"]
)
async def test_a_name_that_is_ours_passes(host: str) -> None:
    async with rig(access={"allowed_hosts": ["proxy.example"]}) as proxy, proxy.client() as client:
        arrived = await passed(proxy, client, request(host=host))
        assert arrived.get(b"Host") == b"127.0.0.1:%d" % proxy.api.port


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.2", 403), ("notlocalhost", 403), ("", 400),
     ("user@localhost", 400), ("localhost/x", 400), ("localhost, evil.example", 400), ("localhost:80:80", 400)],
)  # fmt: skip
async def test_any_other_name_is_refused(host: str, status: int) -> None:
    async with rig() as proxy, proxy.client() as client:
        await refused(proxy, client, request(host=host), status)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /api/v2/x HTTP/1.1\r\n\r\n",
        b"GET /api/v2/x HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /api/v2/x HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET http://localhost/api/v2/x HTTP/1.1\r\n\r\n",
        b"GET http://localhost/api/v2/x HTTP/1.1\r\nHost: local@host\r\n\r\n",
        b"GET ftp://localhost/api/v2/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET api/v2/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_a_request_that_is_for_no_one_name_is_refused(sent: bytes) -> None:
    async with rig() as proxy, proxy.client() as client:
        await refused(proxy, client, sent, 400)


async def test_the_targets_authority_counts_and_not_host() -> None:
    async with rig() as proxy, proxy.client() as client:
        arrived = await passed(proxy, client, request(target="http://localhost:1/api/v2/x?y", host="evil.example"))
        assert arrived.target == b"/api/v2/x?y"
    async with rig() as proxy, proxy.client() as client:
        await refused(proxy, client, request(target="http://evil.example/api/v2/x"), 403)


async def test_an_http_1_0_request_needs_no_host() -> None:
    async with rig() as proxy, proxy.client() as client:
        assert (await passed(proxy, client, b"GET /api/v2/x HTTP/1.0\r\n\r\n")).target == b"/api/v2/x"


@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: https://evil.example",),
        ("Origin: null",),
        ("Origin: http://localhost:3000",),
        ("Origin: http://page.example.evil.example",),
        ("Origin: http://page.example",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),
        ("Origin: https://evil.example", "Sec-Fetch-Site: same-origin"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_a_page_of_a_foreign_origin_is_refused_and_can_not_read_why(method: str, fields: tuple[str, ...]) -> None:
    async with rig(access={"allowed_origins": ["https://page.example"]}) as proxy, proxy.client() as client:
        got = await refused(proxy, client, request(method, "/api/v2/x", *fields, body=b"a=b"), 403)
        assert got.get(b"Access-Control-Allow-Origin") is None


@pytest.mark.parametrize(
    "fields", [("Origin: http://localhost:8080",), ("Sec-Fetch-Site: none",), ("Sec-Fetch-Site: same-origin",)]
)
async def test_a_page_of_our_own_origin_passes(fields: tuple[str, ...]) -> None:
    async with rig() as proxy, proxy.client() as client:
        await passed(proxy, client, request("GET", "/api/v2/x", *fields, host="localhost:8080"))


# --- CORS ---


async def test_an_allowed_page_is_answered_here_when_its_browser_asks_first() -> None:
    asking = (
        "Origin: https://page.example", "Access-Control-Request-Method: PATCH",
        "Access-Control-Request-Headers: authorization,genesys-app", "Access-Control-Request-Private-Network: true",
    )  # fmt: skip
    rules = {"allowed_origins": ["https://page.example"], "caller_keys": [KEY]}
    async with rig(access=rules) as proxy, proxy.client() as client:
        for _ in range(2):
            client.send(request("OPTIONS", "/t/acme/api/v2/x", *asking))
            got = await client.message()
            assert (got.status, got.body) == (204, b"")
            assert got.get(b"Access-Control-Allow-Origin") == b"https://page.example"
            assert got.get(b"Access-Control-Allow-Methods") == b"PATCH"
            assert got.get(b"Access-Control-Allow-Headers") == b"authorization,genesys-app"
            assert got.get(b"Access-Control-Allow-Private-Network") == b"true"
            assert got.get(b"Content-Length") is None
            assert b"Origin" in got.all(b"Vary")
        assert proxy.api.connections == 0


async def test_an_allowed_page_may_read_answers_and_the_fields_it_needs() -> None:
    async with rig(access={"allowed_origins": ["https://page.example"]}) as proxy, proxy.client() as client:
        theirs = ("Access-Control-Allow-Origin: https://apps.mypurecloud.de", "Access-Control-Allow-Credentials: true",
                  "Access-Control-Expose-Headers: x", "Vary: Accept", "X: y")  # fmt: skip
        sent = request("GET", "/api/v2/x", "Origin: https://page.example", "Sec-Fetch-Site: cross-site")
        _, got, _ = await proxy.exchange(client, sent, answer(200, *theirs, body=b"ok"))
        assert got.get(b"Access-Control-Allow-Origin") == b"https://page.example"
        assert got.get(b"Access-Control-Allow-Credentials") is None
        exposed = (got.get(b"Access-Control-Expose-Headers") or b"").lower()
        for name in b"inin-ratelimit-count", b"inin-correlation-id", b"retry-after", b"proxy-status":
            assert name in exposed
        assert got.all(b"Vary") == [b"Accept", b"Origin"]
        assert got.get(b"X") == b"y"


async def test_an_allowed_page_may_read_our_own_errors() -> None:
    async with (
        rig(access={"allowed_origins": ["https://page.example"]}, tenants=TWO) as proxy,
        proxy.client() as client,
    ):
        got = await refused(proxy, client, request("GET", "/t/nobody/x", "Origin: https://page.example"), 404)
        assert got.get(b"Access-Control-Allow-Origin") == b"https://page.example"


async def test_without_a_page_the_upstreams_cors_fields_pass() -> None:
    async with rig() as proxy, proxy.client() as client:
        _, got, _ = await proxy.exchange(client, request(), answer(200, "Access-Control-Allow-Origin: *"))
        assert got.get(b"Access-Control-Allow-Origin") == b"*"
        assert got.get(b"Vary") is None


# --- caller keys ---


@pytest.mark.parametrize(
    ("target", "fields"),
    [("/t/acme/api/v2/x", (f"X-Proxy-Key: {KEY}",)), (f"/k/{KEY}/t/acme/api/v2/x", ()), (f"/k/{KEY}/api/v2/x", ())],
)
async def test_a_caller_key_opens_the_proxy_and_goes_no_further(target: str, fields: tuple[str, ...]) -> None:
    async with rig(access={"caller_keys": ["another-key-for-tests", KEY]}) as proxy, proxy.client() as client:
        arrived = await passed(proxy, client, request("GET", target, *fields))
        assert arrived.target == b"/api/v2/x"
        assert KEY.encode() not in b"".join(arrived.lines)


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/api/v2/x", ()),
        ("/api/v2/x", ("X-Proxy-Key:",)),
        ("/api/v2/x", (f"X-Proxy-Key: {KEY}x",)),
        ("/api/v2/x", (f"X-Proxy-Key: {KEY}", f"X-Proxy-Key: {KEY}")),
        ("/api/v2/x", (f"Authorization: Bearer {KEY}",)),
        (f"/k/{KEY[:-1]}/api/v2/x", ()),
        (f"/k/{KEY}/api/v2/x", ("X-Proxy-Key: wrong",)),
        ("/k//api/v2/x", ()),
        (f"/api/v2/x?/k/{KEY}/", ()),
    ],
)
async def test_without_a_right_key_nothing_passes(target: str, fields: tuple[str, ...]) -> None:
    async with rig(access={"caller_keys": [KEY]}) as proxy, proxy.client() as client:
        got = await refused(proxy, client, request("GET", target, *fields), 403)
        assert KEY.encode() not in got.body


# --- policy ---


@pytest.mark.parametrize(
    "target",
    [
        "/api/v2/tokens/me", "/api/v2/tokens/me?x", "/api/v2/tokens/me/", "//api/v2/tokens/me", "/api/v2//tokens/me",
        "/api/v2/x/../tokens/me", "/api/v2/./tokens/me", "/api/v2/tokens/%6de", "/api/v2/tokens/%256de",
        "/api/v2%2Ftokens/me", "/api/v2/TOKENS/me", "/api/v2/tokens/me;a=b", "/api/v2/tokens;x/me",
        "/api/v2\\tokens\\me", "/api/v2/tokens/me%3Fx", "/t/acme/api/v2/tokens/me", "/api/v2/tokens/x/%2e%2e/me",
    ],
)  # fmt: skip
async def test_what_a_policy_denies_is_denied_however_the_path_is_written(target: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        for _ in range(2):
            got = await refused(proxy, client, request("DELETE", target), 403)
            assert b"DELETE /api/v2/tokens/me" in got.body


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/api/v2/tokens/me"),
        ("DELETE", "/api/v2/tokens/menu"),
        ("DELETE", "/api/v2/tokens/me/x"),
        ("DELETE", "/tokens/me"),
    ],
)
async def test_what_a_policy_does_not_name_passes(method: str, target: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        assert (await passed(proxy, client, request(method, target))).target == target.encode()


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/api/v2/users", True),
        ("GET", "/api/v2/users/a/b", True),
        ("GET", "/api/v2/%75sers", False),
        ("POST", "/api/v2/users", False),
        ("get", "/api/v2/queues", False),
        ("GET", "/api/v2/queues", False),
        ("GET", "/api/v2/users/../queues", False),
        ("GET", "/api/v2/users/%2e%2e/queues", False),
        ("GET", "/api/v2/users/secret", False),
        ("GET", "/api/v2/users/%73ecret", False),
        ("GET", "/v1", False),
    ],
)
async def test_where_a_policy_allows_some_the_rest_is_refused_by_any_reading(
    method: str, target: str, allowed: bool
) -> None:
    policy = {"allow": ["GET /api/v2/users/**"], "deny": ["* /api/v2/users/secret"]}
    async with rig(tenants={"acme": policy}) as proxy, proxy.client() as client:
        if allowed:
            await passed(proxy, client, request(method, target))
        else:
            await refused(proxy, client, request(method, target), 403)


# --- tenants ---


@pytest.mark.parametrize(
    ("target", "fields", "host", "tenant"),
    [
        ("/t/acme/api/v2/x", (), "localhost", "acme"),
        ("/t/other/api/v2/x", ("X-Genesys-Tenant: acme",), "acme.localhost", "other"),
        ("/api/v2/x", ("X-Genesys-Tenant: other",), "acme.localhost", "other"),
        ("/api/v2/x", (), "other.localhost:80", "other"),
        ("/api/v2/x", (), "OTHER.localhost", "other"),
        ("/api/v2/x", (), "localhost", "acme"),
        ("/k/any/t/other/api/v2/x", (), "localhost", "other"),
        ("http://other.localhost/api/v2/x", (), "localhost", "other"),
    ],
)
async def test_a_tenant_is_named_by_path_field_host_or_default(
    target: str, fields: tuple[str, ...], host: str, tenant: str
) -> None:
    async with rig(tenants=TWO, routing={"default_tenant": "acme"}) as proxy, proxy.client() as client:
        arrived = await passed(proxy, client, request("GET", target, *fields, host=host))
        assert arrived.target == b"/api/v2/x"
        assert [line for line in arrived.lines if b"enant" in line] == []
        counted = {report.name: report.tally.requests for report in proxy.proxy.report().tenants}
        assert counted == {"acme": {}, "other": {}} | {tenant: {200: 1}}


@pytest.mark.parametrize(
    ("target", "fields", "host"),
    [
        ("/api/v2/x", (), "localhost"),
        ("/t/nobody/api/v2/x", (), "localhost"),
        ("/t/ACME/api/v2/x", (), "localhost"),
        ("/t/acm%65/api/v2/x", (), "localhost"),
        ("/t//api/v2/x", (), "acme.localhost"),
        ("/api/v2/x", ("X-Genesys-Tenant: nobody",), "acme.localhost"),
        ("/api/v2/x", ("X-Genesys-Tenant: acme", "X-Genesys-Tenant: acme"), "localhost"),
        ("/api/v2/x", (), "nobody.localhost"),
        ("/api/v2/x", (), "acme.acme.localhost"),
    ],
)
async def test_a_request_without_a_tenant_that_is_known_is_a_404(
    target: str, fields: tuple[str, ...], host: str
) -> None:
    async with rig(tenants=TWO) as proxy, proxy.client() as client:
        await refused(proxy, client, request("GET", target, *fields, host=host), 404)


async def test_the_icon_for_a_page_that_a_browser_shows_is_not_asked_for_upstream() -> None:
    async with rig() as proxy, proxy.client() as client:
        browser = ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: image")
        await refused(proxy, client, request("GET", "/favicon.ico", *browser), 404)
        await passed(proxy, client, request("GET", "/api/v2/favicon.ico", *browser))
    async with rig() as proxy, proxy.client() as client:
        await passed(proxy, client, request("GET", "/favicon.ico"))


async def test_what_is_refused_before_it_has_a_tenant_is_counted() -> None:
    async with rig(tenants=TWO) as proxy, proxy.client() as client, proxy.client() as other:
        await refused(proxy, client, request(host="evil.example"), 403)
        await refused(proxy, client, request(), 404)
        await refused(proxy, client, request(), 404)
        await refused(proxy, other, b"nonsense\r\n\r\n", 400)
        assert proxy.proxy.report().refused == {403: 1, 404: 2, 400: 1}
        assert all(report.tally.requests == {} for report in proxy.proxy.report().tenants)


async def test_rules_of_allow_leave_the_doors_open_that_are_answered_here() -> None:
    rules = {"acme": {"allow": ["GET /api/v2/**"]}}
    async with rig(tenants=rules) as proxy, proxy.client() as client:
        for sent, status in (
            (request("POST", "/oauth/token", body=b"grant_type=client_credentials"), 200),
            (request("GET", "/oauth/authorize?client_id=x"), 302),
            (request("GET", "/logout"), 302),
        ):
            client.send(sent)
            assert (await client.message()).status == status
        for target in ("/oauth/token/../../api", "/oauth/token%2f", "/v1", "/webdeployments/x", "/oauth/tokens"):
            client.send(request("POST", target))
            assert_own_failure(await client.message(), 403)
        assert proxy.api.connections == 0


async def test_what_was_decided_for_one_proxy_is_nothing_to_another() -> None:
    sent = request("GET", "/t/acme/api/v2/x", host="proxy.example")
    async with rig(access={"allowed_hosts": ["proxy.example"]}) as open_one, open_one.client() as client:
        await passed(open_one, client, sent)
        await passed(open_one, client, sent)
        async with rig() as closed, closed.client() as other:
            await refused(closed, other, sent, 403)
        rules = {"allowed_hosts": ["proxy.example"]}
        async with rig(access=rules, tenants={"other": {}}) as another, another.client() as other:
            await refused(another, other, sent, 404)
        arrived = await passed(open_one, client, sent)
        assert arrived.get(b"Host") == b"127.0.0.1:%d" % open_one.api.port


# --- methods and heads ---


@pytest.mark.parametrize(
    ("method", "target"), [("TRACE", "/api/v2/x"), ("CONNECT", "/api/v2/x"), ("CONNECT", "localhost:443")]
)
async def test_trace_and_connect_are_refused(method: str, target: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        got = await refused(proxy, client, request(method, target), 405)
        assert got.get(b"Allow") == b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


async def test_a_tenant_that_is_not_there_is_named() -> None:
    async with rig(tenants=TWO) as proxy, proxy.client() as client:
        got = await refused(proxy, client, request("GET", "/t/nobody/x"), 404)
        assert b'details="Tenant \\"nobody\\" is not configured."' in (got.get(b"Proxy-Status") or b"")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_token_request_that_is_no_post_is_told_so(method: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        got = await refused(proxy, client, request(method, "/oauth/token"), 405)
        assert got.get(b"Allow") == b"POST"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70_000, 431),
        (request("POST", "/api/v2/x", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (request("POST", "/api/v2/x", "Content-Length: 1", "Content-Length: 1"), 400),
        (request("POST", "/api/v2/x", "Transfer-Encoding: gzip"), 501),
        (request("POST", "/api/v2/x", "Transfer-Encoding: chunked", version="1.0"), 400),
    ],
)  # fmt: skip
async def test_a_head_that_can_not_be_trusted_ends_the_connection_with_an_answer(sent: bytes, status: int) -> None:
    async with rig() as proxy, proxy.client() as client:
        got = await refused(proxy, client, sent + request("POST", "/api/v2/evil", body=b"x"), status)
        assert got.get(b"Connection") == b"close"
        assert await client.rest() == b""


async def test_a_head_that_stops_is_told_so(clock: SkippingLoop) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(b"GET / HT")
        await clock.skip(15.1)
        got = await refused(proxy, client, b"", 408)
        assert got.get(b"Connection") == b"close"
        assert await client.rest() == b""


async def test_a_refusal_leaves_the_connection_open_where_the_request_is_whole() -> None:
    async with rig() as proxy, proxy.client() as client:
        bodies = [request("POST", "/api/v2/x", "Origin: null", body=b"abc"), request("TRACE")]
        bodies.append(request("POST", "/api/v2/x", "Origin: null", "Transfer-Encoding: chunked") + chunked(b"abc"))
        for sent in bodies:
            got = await refused(proxy, client, sent, 405 if sent.startswith(b"TRACE") else 403)
            assert got.get(b"Connection") is None
        await passed(proxy, client, request())


async def test_a_refusal_closes_the_connection_where_the_body_is_still_coming() -> None:
    async with rig() as proxy, proxy.client() as client:
        got = await refused(
            proxy, client, request("POST", "/api/v2/x", "Origin: null", "Content-Length: 9") + b"abc", 403
        )
        assert got.get(b"Connection") == b"close"
        client.send(b"x" * 500_000)
        assert await client.rest() == b""


async def test_a_refused_head_request_is_answered_without_a_body() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("HEAD", host="evil.example"))
        assert (await client.message(bodiless=True)).status == 403
        await passed(proxy, client, request())


# --- tokens ---


async def test_without_a_token_there_is_no_request_and_no_401() -> None:
    async with rig() as proxy, proxy.client() as client:
        proxy.tokens.answers.append(answer(401, "Content-Type: application/json", body=b'{"error": "invalid_client"}'))
        client.send(request())
        got = await client.message()
        assert_own_failure(got, 502)
        assert got.get(b"Retry-After") is None
        assert proxy.api.connections == 0


async def test_a_token_that_takes_too_long_is_a_503_that_says_when_to_come_back(clock: SkippingLoop) -> None:
    async with rig(limits={"request_timeout": 5}) as proxy, proxy.client() as client:
        proxy.tokens.open.clear()
        client.send(request("POST", "/api/v2/x", body=b"hi"))
        await proxy.tokens.asked_for(1)
        await clock.skip(5.1)
        got = await client.message()
        assert_own_failure(got, 503)
        assert int(got.get(b"Retry-After") or 0) >= 1
        assert proxy.api.connections == 0
        proxy.tokens.open.set()
        client.send(request())
        upstream = await proxy.api.accept()
        assert (await upstream.message()).get(b"Authorization") == b"Bearer token-1"
        upstream.send(OK)
        assert (await client.message()).status == 200


async def test_a_second_refusal_is_passed_on_marked_and_the_connection_goes_on() -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        for _ in range(2):
            await upstream.message()
            upstream.send(REFUSED)
        got = await client.message()
        assert (got.status, got.body) == (401, b"no")
        assert (got.get(b"Proxy-Status") or b"").startswith(b"genesys-auth-proxy; details=")
        client.send(request())
        assert (await upstream.message()).get(b"Authorization") == b"Bearer token-2"
        upstream.send(REFUSED)
        assert (await client.message()).status == 401
        assert proxy.tokens.asked == 2


async def test_whoever_logs_in_through_the_door_gets_no_token() -> None:
    async with rig() as proxy, proxy.client() as client:
        for sent in (
            request("POST", "/t/acme/oauth/token", body=b"grant_type=client_credentials"),
            request("POST", "/oauth/token", "Transfer-Encoding: chunked")
            + chunked(b"grant_type=", b"client_credentials"),
            request("POST", "/oauth/token"),
        ):
            client.send(sent)
            got = await client.message()
            assert got.status == 200
            assert b"token-1" not in got.body
            assert 0 < json.loads(got.body)["expires_in"] <= 86400
        client.send(request("POST", "/oauth/token", "Expect: 100-continue", "Content-Length: 3"))
        assert (await client.head()).status == 100
        client.send(b"a=b")
        assert (await client.message()).status == 200
        assert proxy.api.connections == 0
        assert proxy.tokens.asked == 1


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 413)])
@pytest.mark.parametrize("buffer", [0, 524_288])
async def test_a_login_may_be_so_long_and_no_longer_whatever_is_kept_for_replays(
    size: int, status: int, buffer: int
) -> None:
    async with rig(limits={"replay_buffer": buffer}) as proxy, proxy.client() as client:
        client.send(request("POST", "/oauth/token", body=b"a=" + b"b" * (size - 2)))
        got = await client.message()
        assert got.status == status
        if status != 200:
            assert_own_failure(got, status)


async def test_pages_for_people_are_redirected_with_their_query() -> None:
    async with rig() as proxy, proxy.client() as client:
        for target in "/oauth/authorize?a=b%20c", "/logout":
            client.send(request(target="/t/acme" + target))
            got = await client.message()
            assert got.status == 302
            location = got.get(b"Location") or b""
            assert location.startswith(b"http://127.0.0.1:")
            assert location.endswith(target.encode())


@pytest.mark.parametrize(
    ("own", "sent"),
    [("Bearer real", b"Bearer real"), ("Bearer ", b"Bearer token-1"), ("Bearer [REDACTED]", b"Bearer token-1")],
)
async def test_a_callers_own_token_is_kept_only_where_the_tenant_says_so(own: str, sent: bytes) -> None:
    async with rig(tenants={"acme": {"authorization": "fill"}}) as proxy, proxy.client() as client:
        assert (await passed(proxy, client, request("GET", "/api/v2/x", f"Authorization: {own}"))).get(
            b"Authorization"
        ) == sent
    async with rig() as proxy, proxy.client() as client:
        arrived = await passed(proxy, client, request("GET", "/api/v2/x", f"Authorization: {own}"))
        assert arrived.get(b"Authorization") == b"Bearer token-1"


# --- clients that leave ---


async def test_a_client_that_breaks_off_while_its_token_is_fetched_leaves_nothing_behind() -> None:
    async with rig() as proxy, proxy.client() as client:
        proxy.tokens.open.clear()
        client.send(request("POST", "/api/v2/x", body=b"hi"))
        await proxy.tokens.asked_for(1)
        client.reset()
        await proxy.clients_gone()
        proxy.tokens.open.set()
        async with proxy.client() as other:
            await passed(proxy, other, request())
        assert (proxy.tokens.asked, proxy.api.connections) == (1, 1)
        await proxy.upstreams_gone()


@pytest.mark.parametrize("size", [1, 400_000])
async def test_a_client_that_breaks_off_while_its_answer_is_awaited_leaves_nothing_behind(size: int) -> None:
    async with rig() as proxy, proxy.client() as client:
        client.send(request("POST", "/api/v2/x", body=b"x" * size))
        upstream = await proxy.api.accept()
        await upstream.message()
        client.reset()
        await proxy.clients_gone()
        await upstream.ended()
        await proxy.upstreams_gone()
        assert proxy.proxy.report().tenants[0].tally.requests == {499: 1}


async def test_a_client_that_breaks_off_while_a_connection_is_made_leaves_nothing_behind() -> None:
    async with rig(api_url="https://127.0.0.1:{port}") as proxy, proxy.client() as client:
        client.send(request())
        upstream = await proxy.api.accept()
        client.reset()
        await proxy.clients_gone()
        await upstream.ended()
        await proxy.upstreams_gone()


async def test_a_client_that_breaks_off_does_not_break_off_another() -> None:
    async with rig() as proxy, proxy.client() as client, proxy.client() as other:
        client.send(request())
        first = await proxy.api.accept()
        await first.message()
        other.send(request())
        second = await proxy.api.accept()
        await second.message()
        client.reset()
        await first.ended()
        second.send(OK)
        assert (await other.message()).status == 200


async def test_a_hundred_clients_that_come_and_go_leave_nothing_behind() -> None:
    async with rig() as proxy:

        async def come_and_go(number: int) -> None:
            async with proxy.client() as client:
                client.send(request("POST", "/api/v2/x", "Content-Length: 100"), b"x" * number)
                await asyncio.sleep(0.001 * (number % 7))
                client.reset() if number % 2 else client.close()

        await asyncio.gather(*(come_and_go(number) for number in range(100)))
        await proxy.clients_gone()
        await proxy.upstreams_gone()
        served = {"client connection", "request body"}
        await until(lambda: served.isdisjoint(task.get_name() for task in asyncio.all_tasks()))


# --- a defect ---


async def test_a_defect_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as proxy, proxy.client() as client:
        proxy.proxy._forwarder.rules = None  # type: ignore[assignment]  # what no request should ever meet
        client.send(request())
        got = await client.message()
        assert_own_failure(got, 500)
        assert b"NoneType" not in got.body
        assert "a defect of this program" in caplog.text

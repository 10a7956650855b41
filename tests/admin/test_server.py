"""The admin port over loopback: what it answers, whom it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proxy.admin.server import AdminServer, ServerOptions
from proxy.admin.status import status
from proxy.errors import TokenRefused, TokenUnavailable, UnknownTenant
from tests.admin.fakes import FakeControl, busy, dead, report, tenant

_NewLoop = Callable[[], asyncio.AbstractEventLoop]
_LOOPS: list[_NewLoop] = [asyncio.new_event_loop]
with suppress(ImportError):  # not on every platform
    import uvloop

    _LOOPS.append(uvloop.new_event_loop)

_PATHS = ("/", "/healthz", "/startupz", "/readyz", "/status.json", "/metrics")
_CHANGES = ("/reload", "/tenants/acme/refresh")
_ERROR = {"message", "code", "status", "contextId", "details", "errors"}


async def _error(response: aiohttp.ClientResponse, status: int) -> dict[str, object]:
    assert response.status == status
    assert response.content_type == "application/json"
    body: dict[str, object] = await response.json()
    assert body.keys() >= _ERROR
    assert body["status"] == status
    return body


async def _raw(port: int, request: bytes) -> bytes:
    """The whole answer to bytes that no HTTP client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def _drained(stream: socket.socket) -> int:
    """How many bytes come until the end."""
    count = 0
    while some := await asyncio.get_running_loop().sock_recv(stream, 65536):
        count += len(some)
    return count


@pytest.mark.parametrize("path", _PATHS)
async def test_every_answer_is_uncached_unframed_and_tells_no_versions(
    client: aiohttp.ClientSession, path: str
) -> None:
    async with client.get(path) as response:
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Server"] == "genesys-auth-proxy"


async def test_health_answers_whatever_the_proxys_state(control: FakeControl, client: aiohttp.ClientSession) -> None:
    control.failure = RuntimeError("no report")
    async with client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_readiness_is_asked_of_all_or_of_one(control: FakeControl, client: aiohttp.ClientSession) -> None:
    control.shown = report(tenant(), dead("a b"))
    async with client.get("/readyz") as response:
        assert response.status == 200
        assert (await response.json())["tenants"] == {"acme": "fresh", "a b": "none"}
    async with client.get("/readyz?tenant=acme") as response:
        assert response.status == 200
    async with client.get("/readyz?tenant=a%20b") as response:
        assert (await _error(response, 503))["code"] == "no.token"
    async with client.get("/readyz?tenant=") as response:
        assert (await _error(response, 404))["code"] == "tenant.not.found"
    control.shown = replace(control.shown, draining=True)
    async with client.get("/readyz") as response:
        assert (await _error(response, 503))["code"] == "draining"


async def test_the_status_document_comes_as_json(client: aiohttp.ClientSession) -> None:
    async with client.get("/status.json") as response:
        assert response.content_type == "application/json"
        document = await response.json()
    assert document["version"] == 1
    assert [entry["name"] for entry in document["tenants"]] == ["acme"]


async def test_the_page_comes_as_html_under_its_own_policy(client: aiohttp.ClientSession) -> None:
    async with client.get("/") as response:
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "style-src 'sha256-" in response.headers["Content-Security-Policy"]
        assert "/events" in await response.text()


async def test_metrics_come_in_the_format_that_is_asked_for(
    control: FakeControl, client: aiohttp.ClientSession
) -> None:
    control.shown = report(tenant(tally=busy()))
    async with client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        text = await response.text()
        assert [*text_string_to_metric_families(text)]  # type: ignore[no-untyped-call]
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "# EOF" not in await response.text()


async def test_a_long_body_is_compressed_for_who_accepts_it(
    control: FakeControl, client: aiohttp.ClientSession
) -> None:
    control.shown = report(*(tenant(f"t{number}") for number in range(100)))
    async with client.get("/metrics", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert "t99" in await response.text()
    async with client.get("/metrics", headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers


async def test_a_scrape_of_ten_thousand_tenants_lets_others_be_answered(
    control: FakeControl, client: aiohttp.ClientSession
) -> None:
    control.shown = report(*(tenant(f"t{number}") for number in range(10_000)))
    order: list[str] = []

    async def get(path: str) -> None:
        async with client.get(path, headers={"Accept-Encoding": "identity"}) as response:
            order.append(path)
            assert response.status == 200
            await response.read()

    async with client.get("/healthz"):
        pass
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(get("/metrics"), name="scrape")
        await asyncio.sleep(0)
        tasks.create_task(get("/healthz"), name="probe")
    assert order == ["/healthz", "/metrics"]


async def test_scrapes_at_the_same_time_are_made_one_after_the_other(
    control: FakeControl, client: aiohttp.ClientSession
) -> None:
    control.shown = report(*(tenant(f"t{number}") for number in range(10_000)))

    async def get(path: str) -> int:
        """How many reports were made when the answer began."""
        async with client.get(path, headers={"Accept-Encoding": "identity"}) as response:
            made = control.reports
            await response.read()
        return made

    async with asyncio.TaskGroup() as tasks:
        scrapes = [tasks.create_task(get("/metrics"), name="scrape") for _ in range(2)]
        await asyncio.sleep(0)
        probe = tasks.create_task(get("/healthz"), name="probe")
    assert probe.result() == 1
    assert max(scrape.result() for scrape in scrapes) == 2


async def test_head_is_get_without_a_body(client: aiohttp.ClientSession) -> None:
    async with client.head("/status.json") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0
        assert await response.read() == b""


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/tenants//x", "/tenants/acme", "/Healthz"])
async def test_an_unknown_path_is_404(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        assert (await _error(response, 404))["code"] == "not.found"


@pytest.mark.parametrize("target", [b"//", b"//healthz", b"/x/../healthz", b"/%68ealthz", b"/healthz;a"])
async def test_a_path_is_compared_as_it_came(port: int, target: bytes) -> None:
    answer = await _raw(port, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "method, path, allow",
    [
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("OPTIONS", "/reload", "POST"),
        ("GET", "/reload", "POST"),
        ("HEAD", "/tenants/acme/refresh", "POST"),
        ("PUT", "/tenants/acme/refresh", "POST"),
    ],
)
async def test_another_method_is_405_and_says_which_is_allowed(
    control: FakeControl, client: aiohttp.ClientSession, method: str, path: str, allow: str
) -> None:
    async with client.request(method, path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == allow
    assert (control.reloads, control.refreshed) == (0, [])


# --- reload and refresh ---


async def test_reload_reloads(control: FakeControl, client: aiohttp.ClientSession) -> None:
    async with client.post("/reload") as response:
        assert (response.status, await response.json()) == (200, {"reloaded": True, "needs_restart": []})
    assert control.reloads == 1


async def test_a_reload_says_what_counts_from_the_next_start_on(
    control: FakeControl, client: aiohttp.ClientSession
) -> None:
    control.needs_restart = ("listen", "store")
    async with client.post("/reload") as response:
        answer = await response.json()
    assert (response.status, answer) == (200, {"reloaded": True, "needs_restart": ["listen", "store"]})


async def test_a_reload_with_problems_is_409_and_names_each(
    control: FakeControl, client: aiohttp.ClientSession
) -> None:
    control.problems = ["proxy.toml: listen.port: expected a number", "proxy.toml: tenants.a: unknown key x"]
    async with client.post("/reload") as response:
        body = await _error(response, 409)
    assert body["code"] == "configuration.invalid"
    assert isinstance(body["errors"], list)
    assert [error["message"] for error in body["errors"]] == control.problems


async def test_refresh_answers_with_the_tenants_new_state(control: FakeControl, client: aiohttp.ClientSession) -> None:
    control.shown = report(tenant("a/b"))
    async with client.post("/tenants/a%2Fb/refresh") as response:
        assert response.status == 200
        body = await response.json()
    assert control.refreshed == ["a/b"]
    assert body["version"] == 1
    assert (body["tenant"]["name"], body["tenant"]["age"]) == ("a/b", 0.0)


@pytest.mark.parametrize("failure", [None, UnknownTenant("No such tenant.")])
async def test_refreshing_a_tenant_that_is_not_there_is_404(
    control: FakeControl, client: aiohttp.ClientSession, failure: Exception | None
) -> None:
    control.failure = failure
    async with client.post("/tenants/nobody-at-all/refresh") as response:
        assert (await _error(response, 404))["code"] == "tenant.not.found"
        assert "nobody-at-all" not in await response.text()


async def test_a_refused_token_is_502_with_its_cause(control: FakeControl, client: aiohttp.ClientSession) -> None:
    control.failure = TokenRefused("acme: the client is unknown.", error="invalid_client")
    async with client.post("/tenants/acme/refresh") as response:
        body = await _error(response, 502)
        assert "Retry-After" not in response.headers
    assert (body["code"], body["message"]) == ("token.refused", "acme: the client is unknown.")
    assert body["details"] == [{"errorCode": "invalid_client"}]


@pytest.mark.parametrize("seconds, field", [(0.0, "1"), (4.0, "4"), (4.1, "5"), (None, None)])
async def test_an_unavailable_token_is_503_and_says_when_to_ask_again(
    control: FakeControl, client: aiohttp.ClientSession, seconds: float | None, field: str | None
) -> None:
    control.failure = TokenUnavailable("acme: throttled.", error="rate_limited", retry_after=seconds)
    async with client.post("/tenants/acme/refresh") as response:
        assert (await _error(response, 503))["code"] == "token.unavailable"
        assert response.headers.get("Retry-After") == field


async def test_an_unexpected_failure_tells_neither_caller_nor_log_what_it_says(
    control: FakeControl, client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    control.failure = RuntimeError("Bearer s3cret")
    with caplog.at_level(logging.DEBUG):
        async with client.get("/status.json?also=s3cret") as response:
            assert (await _error(response, 500))["code"] == "internal.server.error"
            assert "s3cret" not in await response.text()
    logged = [record.getMessage() for record in caplog.records if record.name == "proxy.admin.server"]
    assert len(logged) == 1
    assert "RuntimeError" in logged[0]
    assert "in survey" in logged[0]
    assert "s3cret" not in caplog.text


# --- refusals ---


@pytest.mark.parametrize("path", [*_PATHS, "/nothing"])
async def test_a_rebound_name_sees_nothing(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path, headers={"Host": "evil.example"}) as response:
        body = await _error(response, 403)
    assert body["code"] == "not.allowed"
    assert body["message"] == 'Host "evil.example" is not allowed here; name it in access.allowed_hosts.'


@pytest.mark.parametrize("host", ["localhost", "x.localhost:1", "[::1]", "admin.example"])
async def test_our_names_are_served(client: aiohttp.ClientSession, host: str) -> None:
    async with client.get("/readyz", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize("path", _CHANGES)
@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_another_sites_page_changes_nothing(
    control: FakeControl, client: aiohttp.ClientSession, path: str, fields: dict[str, str]
) -> None:
    async with client.post(path, headers=fields) as response:
        await _error(response, 403)
    assert (control.reloads, control.refreshed) == (0, [])


@pytest.mark.parametrize("path", _CHANGES)
async def test_our_own_page_may_ask_for_changes(client: aiohttp.ClientSession, port: int, path: str) -> None:
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    async with client.post(path, headers=own, data=b"a form") as response:
        assert response.status == 200


async def test_a_page_elsewhere_may_link_to_ours(client: aiohttp.ClientSession) -> None:
    async with client.get("/", headers={"Sec-Fetch-Site": "cross-site"}) as response:
        assert response.status == 200


async def test_a_request_without_a_host_is_refused(port: int) -> None:
    answer = await _raw(port, b"GET /status.json HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"acme" not in answer


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00\x01", b"<script> / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_what_is_not_http_is_refused_in_silence(
    port: int, caplog: pytest.LogCaptureFixture, rubbish: bytes
) -> None:
    with caplog.at_level(logging.INFO):
        answer = await _raw(port, rubbish + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.")
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert b"contextId" in answer
    assert b"aiohttp" not in answer
    assert b"script" not in answer
    assert caplog.records == []


async def test_requests_leave_no_line_in_the_log(
    client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for path in (*_PATHS, "/nothing"):
            async with client.get(path):
                pass
    assert caplog.records == []


# --- start and close ---


async def test_a_taken_port_is_the_starters_problem(port: int, control: FakeControl) -> None:
    server = AdminServer(control, ServerOptions(port=port))
    with pytest.raises(OSError, match="in use"):
        await server.start()
    await server.close()


async def test_a_closed_server_refuses_connections_and_starts_again(control: FakeControl) -> None:
    server = AdminServer(control, ServerOptions(port=0))
    port = await server.start()
    await server.close()
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert await server.start() > 0
    await server.close()


async def test_closing_ends_idle_connections_and_answers_under_way(control: FakeControl) -> None:
    before = asyncio.all_tasks()
    server = AdminServer(control, ServerOptions(port=0))
    port = await server.start()
    control.go.clear()
    idle = await asyncio.open_connection("127.0.0.1", port)
    busy_one = await asyncio.open_connection("127.0.0.1", port)
    busy_one[1].write(b"POST /tenants/acme/refresh HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await control.asked.wait()
    await server.close()
    assert await idle[0].read() == b""
    assert await busy_one[0].read() == b""
    for _, writer in (idle, busy_one):
        writer.close()
        await writer.wait_closed()
    assert asyncio.all_tasks() <= before


async def test_closing_lets_an_answer_under_way_finish(control: FakeControl) -> None:
    server = AdminServer(control, ServerOptions(port=0))
    port = await server.start()
    control.go.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /tenants/acme/refresh HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await control.asked.wait()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.close(), name="close")
        control.go.set()
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("new_loop", _LOOPS, ids=lambda new_loop: new_loop.__module__)
def test_closing_does_not_wait_for_a_client_that_reads_nothing(new_loop: _NewLoop) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_close_on_a_deaf_client())


async def _close_on_a_deaf_client() -> None:
    before = asyncio.all_tasks()
    control = FakeControl()
    control.shown = report(*(tenant(f"t{number}") for number in range(20_000)))
    size = sum(map(len, status(control.shown)))
    server = AdminServer(control, ServerOptions(port=0))
    port = await server.start()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", port))
        await loop.sock_sendall(deaf, b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await loop.sock_recv(deaf, 1) == b"H"
        await asyncio.wait_for(server.close(), 10)
        assert await _drained(deaf) < size
    assert asyncio.all_tasks() <= before

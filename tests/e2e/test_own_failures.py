"""What the proxy answers itself when it can't or won't pass a request on: never 401, and marked as its own."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from proxy.sandbox import Org
from tests.support.genesys import assert_own_failure
from tests.support.recorder import Recorder
from tests.support.stages import CONTACTS, ECHO, Stage, Tenant, make_orgs, open_stage, tenant_toml

pytestmark = pytest.mark.asyncio(loop_scope="module")

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: localhost\r\n"
WHERE = b"/t/acme/api/v2/echo"
LONG = b"a" * 70_000

REFUSED = {
    "unknown tenant in the path": (404, GET % b"/t/nobody/api/v2/echo" + b"\r\n"),
    "unknown tenant in the field": (404, GET % b"/api/v2/echo" + b"X-Genesys-Tenant: nobody\r\n\r\n"),
    "unknown tenant in the host": (404, b"GET /api/v2/echo HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n"),
    "no tenant": (404, GET % b"/api/v2/echo" + b"\r\n"),
    "empty tenant": (404, GET % b"/t//api/v2/echo" + b"\r\n"),
    "foreign host": (403, b"GET %b HTTP/1.1\r\nHost: rebound.example\r\n\r\n" % WHERE),
    "foreign page": (403, GET % WHERE + b"Origin: https://evil.example\r\n\r\n"),
    "foreign page's simple get": (403, GET % WHERE + b"Sec-Fetch-Site: cross-site\r\n\r\n"),
    "foreign page's form": (
        403,
        POST % b"/t/acme/oauth/token" + b"Origin: https://evil.example\r\nContent-Length: 0\r\n\r\n",
    ),
    "trace": (405, b"TRACE %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % WHERE),
    "connect": (405, b"CONNECT api.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "get at the login door": (405, GET % b"/t/acme/oauth/token" + b"\r\n"),
    "not in allow": (403, GET % b"/t/reader/api/v2/echo" + b"\r\n"),
    "in deny": (403, POST % b"/t/reader/api/v2/users/1" + b"Content-Length: 0\r\n\r\n"),
    "no request": (400, b"hello\r\n\r\n"),
    "no host": (400, b"GET %b HTTP/1.1\r\n\r\n" % WHERE),
    "two hosts": (400, GET % WHERE + b"Host: localhost\r\n\r\n"),
    "length and chunks": (400, POST % WHERE + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "broken chunk": (400, POST % WHERE + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "unknown coding": (501, POST % WHERE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "http/2": (505, b"GET %b HTTP/2.0\r\nHost: localhost\r\n\r\n" % WHERE),
    "long fields": (431, GET % WHERE + b"X: " + LONG + b"\r\n\r\n"),
    "long target": (431, GET % (WHERE + b"?" + LONG) + b"\r\n"),
    "long token request": (413, POST % b"/t/acme/oauth/token" + b"Content-Length: 70000\r\n\r\n" + LONG),
    "head that never ends": (408, GET % WHERE),
    "nobody listens": (502, GET % b"/t/gone/api/v2/echo" + b"\r\n"),
    "no name": (502, GET % b"/t/nameless/api/v2/echo" + b"\r\n"),
    "garbage from upstream": (502, GET % b"/t/garbled/api/v2/echo" + b"\r\n"),
    "no token endpoint": (503, GET % b"/t/tokenless/api/v2/echo" + b"\r\n"),
    "no token endpoint for the login door": (
        503,
        POST % b"/t/tokenless/oauth/token" + b"Content-Length: 29\r\n\r\ngrant_type=client_credentials",
    ),
}


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """A URL where nobody listens while the module runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorder() -> AsyncIterator[Recorder]:
    async with Recorder() as recorder:
        yield recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(nobody: str, recorder: Recorder) -> AsyncIterator[Stage]:
    odd: dict[str, dict[str, object]] = {
        "reader": {"allow": ["GET /api/v2/users/*", "POST /api/v2/users/*"], "deny": ["POST /api/v2/**"]},
        "gone": {"api_url": nobody},
        "nameless": {"api_url": "https://api.name-that-does-not-exist.invalid"},
        "garbled": {"api_url": recorder.url},
        "tokenless": {"login_url": nobody},
    }

    def section(org: Org) -> str:
        return tenant_toml(org, **odd.get(org.name, {}))

    orgs = make_orgs([*(f"org-{number}" for number in range(8)), "acme", *odd])
    configuration = "keep_warm = false\n[limits]\nrequest_timeout = 2\n"
    async with open_stage(orgs, configuration, tenants=section) as stage:
        yield stage


@pytest.mark.parametrize("status,request_", REFUSED.values(), ids=REFUSED)
async def test_it_answers_in_genesyss_shape_and_says_that_it_was_it(
    stage: Stage, recorder: Recorder, status: int, request_: bytes
) -> None:
    recorder.answers.append(b"what is this?\r\n\r\n")
    answer = await stage.raw(request_)
    assert answer.status == status
    assert_own_failure(answer)
    assert ("Retry-After" in answer.fields) == (status == 503), "the Python SDK sends any method again for it"
    assert ("Allow" in answer.fields) == (status == 405)


async def test_an_upstream_that_drops_the_request_is_a_502(tenant: Tenant) -> None:
    tenant.fault("api_drop", "before")
    answer = await tenant.get()
    assert answer.status == 502
    assert_own_failure(answer)


async def test_an_upstream_that_is_too_slow_is_a_504(tenant: Tenant) -> None:
    tenant.fault("api_latency", 30)
    answer = await tenant.get()
    assert answer.status == 504
    assert answer.seconds < 10
    assert_own_failure(answer)


async def test_a_token_endpoint_that_is_too_slow_is_a_503_whose_token_serves_the_next(tenant: Tenant) -> None:
    tenant.fault("token_latency", 3, count=1)
    answer = await tenant.get()
    assert answer.status == 503
    assert_own_failure(answer)
    assert (await tenant.get()).status == 200
    assert tenant.token_requests == {"ok": 1}


async def test_a_post_whose_answer_was_lost_is_not_sent_again(tenant: Tenant) -> None:
    await tenant.get()
    tenant.fault("api_drop", "after", count=1)
    answer = await tenant.call("POST", CONTACTS, json={"externalId": "lost"})
    assert answer.status == 502
    assert "Retry-After" not in answer.fields
    assert_own_failure(answer)
    assert tenant.stage.sandbox.ledger.contacts_created[tenant.name] == 1


async def test_a_get_on_a_connection_that_the_upstream_was_closing_is_sent_again(tenant: Tenant) -> None:
    await tenant.get()
    tenant.fault("api_drop", "before", count=1)
    assert (await tenant.get()).status == 200


@pytest.mark.parametrize(
    "status,fields",
    [(400, {}), (403, {}), (404, {}), (429, {"Retry-After": "42"}), (500, {}), (502, {}), (503, {}), (504, {})],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
async def test_an_upstreams_own_error_passes_as_it_is(stage: Stage, status: int, fields: dict[str, str]) -> None:
    tenant = Tenant(stage, next(org for org in stage.sandbox.options.orgs if org.name == "acme"))
    tenant.fault(*(("api_throttled", 42) if status == 429 else ("api_status", status)), count=1)
    answer = await tenant.call("POST", ECHO, data=b"x")
    assert answer.status == status
    assert answer.proxy_status == ""
    assert answer.fields.items() >= fields.items()
    assert answer.json["status"] == status
    assert tenant.token_requests == {"ok": 1}


@pytest.mark.parametrize(
    "target",
    [
        "/api/v2/tokens/me",
        "/api/v2/tokens/me/",
        "/api/v2/tokens/me?x",
        "/api/v2/tokens/%6De",
        "/api/v2/tokens/%256De",
        "/api/v2//tokens/me",
        "/api/v2/users/../tokens/me",
        "/api/v2/tokens/me;x=y",
        "/API/v2/Tokens/ME",
    ],
)
async def test_revoking_the_shared_token_is_refused_with_an_explanation(stage: Stage, target: str) -> None:
    tenant = Tenant(stage, next(org for org in stage.sandbox.options.orgs if org.name == "acme"))
    assert (await tenant.get()).status == 200
    answer = await tenant.call("DELETE", target)
    assert answer.status == 403
    assert_own_failure(answer)
    assert "everybody who shares it" in answer.json["message"]
    assert stage.sandbox.ledger.tokens_revoked == 0
    assert (await tenant.get("/api/v2/tokens/me")).status == 200

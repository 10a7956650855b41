"""What leaves the proxy: one credential, and in a replay nothing else that differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.recorder import REFUSED, Recorded, Recorder
from tests.support.stages import Stage, make_orgs, open_stage, tenant_toml

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORG = make_orgs(["raw"])[0]

HEAD = (
    b"POST /t/raw/api/v2/a%2Fb?c=d HTTP/1.1\r\nhost: localhost\r\n"
    b"Accept: */*\r\nX-One: 1\r\nx-TWO:   2 \r\nX-One: 3\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_recorder() -> AsyncIterator[Recorder]:
    async with Recorder() as recorder:
        yield recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(shared_recorder: Recorder) -> AsyncIterator[Stage]:
    async with open_stage((ORG,), tenants=lambda org: tenant_toml(org, api_url=shared_recorder.url)) as stage:
        yield stage


@pytest.fixture
def recorder(shared_recorder: Recorder) -> Recorder:
    shared_recorder.requests.clear()
    shared_recorder.answers.clear()
    return shared_recorder


async def send(stage: Stage, request: bytes) -> bytes:
    """The head of the answer to raw bytes."""
    reader, writer = await asyncio.open_connection(stage.proxy.host, stage.proxy.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


def issued(stage: Stage) -> list[bytes]:
    """The credentials for all tokens that the sandbox has issued."""
    return [b"Bearer " + token.value.encode() for token in stage.sandbox.tokens.issued()]


def without_credential(request: Recorded) -> tuple[bytes, tuple[bytes, ...], bytes]:
    fields = tuple(line for line in request.fields if not line.lower().startswith(b"authorization:"))
    return request.line, fields, request.body


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"Content-Length: 70000\r\n\r\n" + bytes(range(250)) * 280,
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n\r\n11170\r\n" + bytes(range(250)) * 280 + b"\r\n0\r\n\r\n",
    ],
    ids=["none", "sized", "chunked"],
)
async def test_a_replay_differs_in_nothing_but_the_token(stage: Stage, recorder: Recorder, body: bytes) -> None:
    recorder.answers.append(REFUSED)
    answer = await send(stage, HEAD + body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nProxy-Status: genesys-auth-proxy;" in answer
    first, second = recorder.requests
    assert without_credential(first) == without_credential(second)
    assert first.target == b"/api/v2/a%2Fb?c=d"
    assert [*first.authorization, *second.authorization] == issued(stage)[-2:]


@pytest.mark.parametrize(
    "credential",
    [
        b"",
        b"Authorization: Bearer \r\n",
        b"Authorization: [REDACTED]\r\n",
        b"authorization: Bearer somebody-elses-token\r\n",
        b"AUTHORIZATION: Basic YTpi\r\n",
        b"Authorization: Bearer a\r\nConnection: Authorization\r\n",
    ],
    ids=["none", "the Python SDK's empty one", "the old chat client's", "somebody else's", "basic", "named as a hop's"],
)
async def test_exactly_one_credential_leaves_and_it_is_the_tenants(
    stage: Stage, recorder: Recorder, credential: bytes
) -> None:
    answer = await send(stage, HEAD + credential + b"Content-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    (request,) = recorder.requests
    assert request.authorization == issued(stage)[-1:]


@pytest.mark.parametrize(
    "fields",
    [
        b"X-Genesys-Tenant: raw\r\n",
        b"X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-Host: x.invalid\r\n",
        b"Proxy-Authorization: Basic YTpi\r\nX-Proxy-Key: 0123456789abcdef\r\n",
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n",
    ],
    ids=["tenant", "forwarded", "proxy's own", "hop by hop"],
)
async def test_what_is_for_the_proxy_stays_here_and_the_rest_keeps_its_order(
    stage: Stage, recorder: Recorder, fields: bytes
) -> None:
    await send(stage, HEAD + fields + b"Content-Length: 0\r\n\r\n")
    (request,) = recorder.requests
    kept = [line for line in request.fields if not line.lower().startswith((b"host:", b"via:", b"authorization:"))]
    assert kept == [b"Accept: */*", b"X-One: 1", b"x-TWO:   2 ", b"X-One: 3", b"Content-Length: 0"]
    assert [line for line in request.fields if line.lower().startswith(b"host:")] == [
        b"Host: " + recorder.url.removeprefix("http://").encode()
    ]

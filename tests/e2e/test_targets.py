"""The target reaches the upstream byte for byte, whatever it is."""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.recorder import Recorder
from tests.support.stages import Stage, make_orgs, open_stage, tenant_toml

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORG = make_orgs(["raw"])[0]

TARGETS = [
    b"/api/v2/users/me",
    b"/api/v2/flows/datatables/1/rows/a%2Fb",
    b"/api/v2/flows/datatables/1/rows/a/b",
    b"/api/v2/a%2fb/%7Ec/%7e",
    b"/api/v2/a/%2e%2e/b",
    b"/api/v2/a/%2E%2E%2Fb",
    b"/api/v2/a/../b/./c",
    b"/api/v2//a///b//",
    b"//api/v2/a",
    b"/api/v2/a;version=1;x/b",
    b"/api/v2/a%3Bb%3Fc%23d",
    b"/api/v2/a%",
    b"/api/v2/a%zz%00",
    b"/api/v2/a?",
    b"/api/v2/a??b=?&&c=d&",
    b"/api/v2/a?b=c+d%20e%2Bf",
    b"/api/v2/a+b",
    b"/api/v2/a?next=https://x.invalid/t/globex/",
    b"/api/v2/t/globex/api/v2/a",
    b"/api/v2/a?pageSize=25&expand=a,b&expand=c[]",
    b"/api/v2/\xc3\xa4\xe2\x82\xac?q=\xf0\x9f\x8d\x8c",
    b"/api/v2/\xff\xfe\x80",
    b"/api/v2/a\\b",
    b"/api/v2/{a}|b^c`<d>\"e'",
    b"/api/v2/a:b@c!$&'()*,=~",
    b"/",
    b"/?",
    b"/a?/t/x",
    b"/oauth/tokens",
    b"/v1?deploymentId=1",
]

_BYTES = "!$%&'()*+,-./:;=?@_~[]\\|^`{}\"<>" + string.ascii_letters + string.digits
_PIECES = st.sampled_from(["/", "//", "/../", "/./", "%2F", "%2e%2e", "%", ";", "?", "+", "&", "/t/", "/k/"])
_TEXT = st.lists(_PIECES | st.text(_BYTES, max_size=4), max_size=12).map("".join).map(str.encode)
_HIGH = st.binary(max_size=4).map(lambda data: bytes(byte | 0x80 for byte in data))
ANY_REST = st.tuples(_TEXT, _HIGH, _TEXT).map(b"".join)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorder() -> AsyncIterator[Recorder]:
    async with Recorder() as recorder:
        yield recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(recorder: Recorder) -> AsyncIterator[Stage]:
    async with open_stage((ORG,), tenants=lambda org: tenant_toml(org, api_url=recorder.url)) as stage:
        yield stage


class Line:
    """A connection to the proxy on which one request goes out after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def status(self, target: bytes) -> int:
        self._writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b"\r\nContent-Length: 2\r\n" in head, head
        await self._reader.readexactly(2)
        return int(head[9:12])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(stage: Stage) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection(stage.proxy.host, stage.proxy.port)
    yield Line(reader, writer)
    writer.close()


@pytest.mark.parametrize("prefix", [b"", b"/t/raw"], ids=["default tenant", "named tenant"])
@pytest.mark.parametrize("target", TARGETS, ids=repr)
async def test_a_target_reaches_the_upstream_as_it_is(
    line: Line, recorder: Recorder, prefix: bytes, target: bytes
) -> None:
    assert await line.status(prefix + target) == 200
    assert recorder.requests[-1].target == target


@given(rest=ANY_REST)
@example(rest=b"")
@settings(max_examples=150, deadline=None)
async def test_any_target_reaches_the_upstream_as_it_is(line: Line, recorder: Recorder, rest: bytes) -> None:
    assert await line.status(b"/t/raw/api/v2/" + rest) == 200
    assert recorder.requests[-1].target == b"/api/v2/" + rest


async def test_a_url_as_target_goes_on_as_its_path_and_query(line: Line, recorder: Recorder) -> None:
    """As clients send it that take the proxy for a forward proxy (RFC 9112 3.2.2)."""
    assert await line.status(b"http://localhost/t/raw/api/v2/a%2Fb?c") == 200
    assert recorder.requests[-1].target == b"/api/v2/a%2Fb?c"

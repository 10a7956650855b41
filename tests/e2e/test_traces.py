"""Traces, as a collector gets them from the running program."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.sandbox import Sandbox, SandboxOptions
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import ECHO, make_orgs, ports_toml, tenant_toml, until

pytestmark = pytest.mark.asyncio(loop_scope="function")

ORGS = make_orgs(["acme"])
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"

SERVER, CLIENT = 2, 3
"""Kinds of spans (opentelemetry.proto.trace.v1.Span.SpanKind)."""


class Collector:
    """Takes OTLP over HTTP.

    :ivar spans: all that came, each with its attributes by name
    """

    def __init__(self) -> None:
        self.spans: list[tuple[Any, dict[str, Any]]] = []
        self.resource: dict[str, Any] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                self._take(gzip.decompress(body) if b"content-encoding: gzip" in head else body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    def _take(self, body: bytes) -> None:
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = _attributes(batch.resource)
            self.spans += [(span, _attributes(span)) for scope in batch.scope_spans for span in scope.spans]

    def of(self, kind: int, name: str) -> list[tuple[Any, dict[str, Any]]]:
        return [(span, attributes) for span, attributes in self.spans if (span.kind, span.name) == (kind, name)]


def _attributes(holder: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


@contextlib.asynccontextmanager
async def traced(**variables: str) -> AsyncIterator[tuple[Collector, Sandbox, RunningProxy]]:
    collector = Collector()
    async with (
        await asyncio.start_server(collector.serve, "127.0.0.1", 0) as server,
        Sandbox(SandboxOptions(orgs=ORGS)) as sandbox,
    ):
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        text = ports_toml(sandbox.base_url) + "keep_warm = false\n" + tenant_toml(ORGS[0])
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50", **variables}
        async with run_proxy(text, **environment) as proxy:
            yield collector, sandbox, proxy


async def call(proxy: RunningProxy, target: str, **fields: str) -> dict[str, Any]:
    """What the sandbox echoes of a request, the head that it got included."""
    async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/t/acme{target}", headers=fields) as answer:
        found: dict[str, Any] = await answer.json()
        return found


def hexed(identifier: bytes) -> str:
    return identifier.hex()


async def test_a_request_is_traced_from_the_client_to_the_upstream_and_again_when_it_is_replayed() -> None:
    async with traced() as (collector, sandbox, proxy):
        await call(proxy, ECHO)
        await until(lambda: len(collector.spans) >= 3)
        sandbox.revoke("acme")
        collector.spans.clear()
        named = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}
        echoed = await call(proxy, f"{ECHO}?secret=of-the-query", **named)
        await until(lambda: len(collector.spans) >= 4)
    [(own, about)] = collector.of(SERVER, "GET")
    first, second = sorted(collector.of(CLIENT, "GET"), key=lambda found: found[0].start_time_unix_nano)
    assert (hexed(own.trace_id), hexed(own.parent_span_id)) == (TRACE, PARENT)
    for hop, _ in (first, second):
        assert (hop.trace_id, hop.parent_span_id) == (own.trace_id, own.span_id)
    assert about["url.path"] == ECHO
    assert (about["genesys.tenant"], about["http.response.status_code"]) == ("acme", 200)
    assert about["genesys.replayed"] is True
    assert about["genesys.correlation_id"]
    assert [hop[1]["http.response.status_code"] for hop in (first, second)] == [401, 200]
    assert (first[0].status.code, second[0].status.code) == (2, 0)
    assert second[1]["http.request.resend_count"] == 1
    sent = {name.lower(): value for name, value in dict(echoed["fields"]).items()}
    assert sent["traceparent"] == f"00-{TRACE}-{hexed(second[0].span_id)}-01"
    assert sent["tracestate"] == "a=b"
    [(fetched, asked)] = collector.of(CLIENT, "token request")
    assert asked == {"genesys.tenant": "acme", "genesys.grant": "client_credentials"}
    assert hexed(fetched.trace_id) != TRACE, "it belongs to no caller"
    assert collector.resource["service.name"] == "genesys-auth-proxy"
    assert "of-the-query" not in repr(collector.spans)


async def test_what_fails_is_traced_as_a_failure() -> None:
    async with traced(OTEL_SERVICE_NAME="sidecar") as (collector, sandbox, proxy):
        sandbox.faults.set("api_drop", "before")
        sandbox.faults.set("token_status", 503, count=1)
        await call(proxy, ECHO)
        await until(lambda: len(collector.of(SERVER, "GET")) == 1)
    assert collector.of(SERVER, "GET")[0][1]["error.type"] == "upstream.failed"
    assert [about["error.type"] for _, about in collector.of(CLIENT, "GET")] == ["upstream.failed"]
    failed = [about.get("error.type") for _, about in collector.of(CLIENT, "token request")]
    assert len(failed) == 2
    assert failed[0] not in (None, "ok")
    assert failed[1] is None
    assert collector.resource["service.name"] == "sidecar"


@pytest.mark.parametrize(
    "variables", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}]
)
async def test_without_traces_the_clients_traceparent_passes_as_it_is(variables: dict[str, str]) -> None:
    async with traced(**variables) as (collector, _, proxy):
        echoed = await call(proxy, ECHO, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert {name.lower(): value for name, value in dict(echoed["fields"]).items()}["traceparent"] == (
        f"00-{TRACE}-{PARENT}-01"
    )
    assert collector.spans == []


async def test_a_collector_that_is_down_holds_neither_requests_nor_the_end() -> None:
    async with traced(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") as (_, _, proxy):
        for _ in range(3):
            assert (await call(proxy, ECHO))["fields"]

"""What it costs to tell of a request: in the metrics, in the log, as spans."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from proxy.cli.lines import Lines
from proxy.cli.logs import _json_request
from proxy.core.report import RequestRecord, Tally
from proxy.traces import Tracing
from tests.bench.heads import REQUEST

ROUNDS = 5
CALLS = 5_000

RECORD = RequestRecord(
    tenant="acme",
    method="GET",
    path="/api/v2/users/me",
    status=200,
    seconds=0.0123,
    received=0,
    sent=345,
    replayed=False,
    code=None,
    correlation_id="3f6c5d1e-0a0b-4c1d-9e2f-7a8b9c0d1e2f",
    caller=None,
)


def costs() -> Iterator[tuple[str, float]]:
    """What is done, and microseconds of this thread's CPU for one request; the least of some rounds."""
    tally = Tally()

    def counted() -> None:
        tally.count(200, RECORD.seconds)

    yield "counted in the metrics", _least(counted)
    yield "a line in the log, as JSON", asyncio.run(_line())
    tracing = Tracing(_Nowhere(), {})

    def traced() -> None:
        trace = tracing.begin(b"GET", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None)
        trace.leave(REQUEST, "127.0.0.1", 8080)
        trace.arrive(200)
        trace.end(RECORD)

    yield "traced, below the client's span", _least(traced)
    tracing.close()


async def _line() -> float:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    lines = Lines(descriptor, str)
    try:
        return _least(lambda: lines.put(_json_request(time.time(), RECORD)), lines.flush)
    finally:
        os.close(descriptor)


def _least(work: Callable[[], None], end: Callable[[], None] = lambda: None) -> float:
    found = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for _ in range(CALLS):
            work()
        end()
        found.append((time.thread_time() - began) / CALLS * 1e6)
    return min(found)


class _Nowhere(SpanExporter):
    """Takes spans, and leaves it at that."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS

"""Traces with OpenTelemetry, where it is installed and an endpoint is named in its own environment variables.

A request has a span of its own, below the client's if it came with ``traceparent``, and one below that for each
time it went to an upstream, which is the one that the upstream is told. A token request has a span too, of its own
trace, because it belongs to no caller. No span has a query, a token, or a field of a request.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy import __version__
from proxy.core.report import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

LAST_SPANS = 3.0
"""Seconds at the end for the spans that have not been sent yet."""

_NAMED = re.compile(rb"(?im)^trace(?:parent|state):.*\r\n")


def tracing(environ: Mapping[str, str]) -> Tracing | None:
    """What OpenTelemetry's environment variables ask for; None where that is nothing, or can't be done."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not any(map(environ.get, ENDPOINTS)):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning(
            "an OpenTelemetry endpoint is named, but its packages are not installed: "
            "pip install 'genesys-auth-proxy[traces]'",
            extra={"event": "traces.unavailable"},
        )
        return None
    return Tracing(OTLPSpanExporter(), environ)


class Tracing:
    """Makes spans and hands them to ``exporter``, on a thread of its own."""

    def __init__(self, exporter: SpanExporter, environ: Mapping[str, str]) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = environ.get("OTEL_SERVICE_NAME", "genesys-auth-proxy")
        resource = Resource.create({"service.name": name, "service.version": __version__})
        # Ended by close, which waits only for so long.
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("genesys-auth-proxy", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._api = trace

    def begin(self, method: bytes, traceparent: bytes | None, tracestate: bytes | None) -> RequestTrace:
        """Begins the span of a request that has arrived, below the client's if it names one."""
        carrier = {}
        if traceparent is not None:
            carrier["traceparent"] = traceparent.decode("latin-1")
            carrier["tracestate"] = (tracestate or b"").decode("latin-1")
        context = self._propagator.extract(carrier)
        verb = method.decode("latin-1")[:32]
        span = self._tracer.start_span(verb, context, self._api.SpanKind.SERVER, {"http.request.method": verb})
        return RequestTrace(self, verb, span)

    def token_request(self, tenant: str, grant: str, outcome: str, seconds: float) -> None:
        """A token request that has just ended.

        :param outcome: ok, or the error code
        """
        ended = time.time_ns()
        attributes = {"genesys.tenant": tenant, "genesys.grant": grant}
        if outcome != "ok":
            attributes["error.type"] = outcome
        span = self._tracer.start_span(
            "token request", None, self._api.SpanKind.CLIENT, attributes, start_time=ended - int(seconds * 1e9)
        )
        if outcome != "ok":
            span.set_status(self._api.StatusCode.ERROR)
        span.end(ended)

    def close(self) -> None:
        """Sends the last spans, for as long as ``LAST_SPANS``; blocks."""
        # A collector that is down must not hold the program's end: the exporter tries again for longer.
        sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(LAST_SPANS)


class RequestTrace:
    """A request's spans; what ``forward.trace.Trace`` asks for."""

    def __init__(self, tracing: Tracing, method: str, span: Span) -> None:
        self._tracing = tracing
        self._method = method
        self._span = span
        self._hop: Span | None = None
        self._hops = 0

    def leave(self, head: bytes, host: str, port: int) -> bytes:
        """Begins the span of a request that goes to an upstream; the head that names it."""
        api = self._tracing._api
        attributes: dict[str, str | int] = {
            "http.request.method": self._method,
            "server.address": host,
            "server.port": port,
        }
        if self._hops:
            attributes["http.request.resend_count"] = self._hops
        self._hops += 1
        context = api.set_span_in_context(self._span)
        self._hop = self._tracing._tracer.start_span(self._method, context, api.SpanKind.CLIENT, attributes)
        carrier: dict[str, str] = {}
        self._tracing._propagator.inject(carrier, api.set_span_in_context(self._hop))
        lines = "".join(f"{name}: {value}\r\n" for name, value in carrier.items())
        return _NAMED.sub(b"", head).removesuffix(b"\r\n") + lines.encode("latin-1") + b"\r\n"

    def arrive(self, status: int) -> None:
        """Ends that span with the status of the answer."""
        if self._hop is not None:
            self._hop.set_attribute("http.response.status_code", status)
            if status >= 400:
                self._fail(self._hop, str(status))
            self._hop.end()
            self._hop = None

    def end(self, record: RequestRecord) -> None:
        """Ends the request's own span, and one to an upstream that has got no answer."""
        if self._hop is not None:
            self._fail(self._hop, record.code or "cancelled")
            self._hop.end()
        known = {
            "genesys.tenant": record.tenant,
            "genesys.caller": record.caller,
            "url.path": record.path,
            "http.response.status_code": record.status,
            "genesys.replayed": record.replayed,
            "genesys.correlation_id": record.correlation_id,
        }
        self._span.set_attributes({name: value for name, value in known.items() if value is not None})
        if record.status >= 499:
            self._fail(self._span, record.code or str(record.status))
        self._span.end()

    def _fail(self, span: Span, kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._tracing._api.StatusCode.ERROR)

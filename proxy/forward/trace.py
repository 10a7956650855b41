"""What the data plane tells of a request to whoever traces it."""

from __future__ import annotations

from typing import Protocol

from proxy.core.report import RequestRecord


class Trace(Protocol):
    """One request's spans: its own, and one for each time that it goes to an upstream."""

    def leave(self, head: bytes, host: str, port: int) -> bytes:
        """Begins the span of a request that goes to an upstream.

        :param head: with its empty line
        :return: the head that names this span instead of the client's (W3C Trace Context)
        """

    def arrive(self, status: int) -> None:
        """Ends that span: this is the status of the answer."""

    def end(self, record: RequestRecord) -> None:
        """Ends the request's own span, and one to an upstream that has got no answer."""


class Tracer(Protocol):
    """Begins traces."""

    def begin(self, method: bytes, traceparent: bytes | None, tracestate: bytes | None) -> Trace:
        """Begins the span of a request that has arrived, below the client's if it names one."""

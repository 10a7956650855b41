"""The one place where an exception becomes a response, marked as ours (RFC 9209)."""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy import errors
from proxy.core.scrub import scrubbed

log = logging.getLogger(__name__)

NAME = b"genesys-auth-proxy"
"""Our pseudonym in Via and Proxy-Status."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a client is told when we, and not the upstream, answer."""

    status: int
    code: str
    """In the manner of Genesys's own error codes."""
    proxy_error: str
    """An error type of RFC 9209 2.3."""
    message: str
    retry_after: int | None = None
    """Seconds; only where sending the request again can't execute it twice."""
    allowed: tuple[bytes, ...] = ()
    """The methods that may be used, where this one may not."""
    context_id: str = field(default_factory=lambda: str(uuid.uuid4()), compare=False)
    """Names this one answer, in the log as well."""


def explain(error: Exception) -> Failure:
    """The response to an exception. Never 401: SDKs answer that with a storm of token requests.

    An exception that is none of ours is a defect of this program: it is logged with its traceback and told
    without details.
    """
    message = scrubbed(str(error))
    match error:
        case errors.BadRequest():
            return _bad_request(error)
        case errors.ClientTimeout():
            return Failure(408, "request.timeout", "http_request_error", message)
        case errors.NotAllowed():
            return Failure(403, "not.allowed", "http_request_denied", message)
        case errors.UnknownTenant():
            return Failure(404, "tenant.not.found", "destination_not_found", message)
        case errors.TooBusy():
            return Failure(503, "too.busy", "connection_limit_reached", message, 1)
        case errors.MethodNotAllowed():
            return Failure(405, "method.not.allowed", "http_request_denied", message, allowed=error.allowed)
        case errors.TokenRefused():
            return Failure(502, "token.refused", "proxy_configuration_error", message)
        case errors.TokenUnavailable():
            wait = max(1, math.ceil(error.retry_after or 0))
            return Failure(503, "token.unavailable", "destination_unavailable", message, wait)
        case errors.UpstreamTimeout():
            return Failure(504, "upstream.timeout", error.kind, message)
        case errors.UpstreamError():
            return Failure(502, "upstream.failed", error.kind, message)
    log.error("a defect of this program ended a request", exc_info=error, extra={"event": "request.defect"})
    return Failure(500, "internal.error", "proxy_internal_error", "A defect of the proxy; its log says more.")


def _bad_request(error: errors.BadRequest) -> Failure:
    message = scrubbed(str(error))
    match error:
        case errors.TargetTooLong():
            return Failure(414, "request.uri.too.long", "http_request_error", message)
        case errors.FieldsTooLarge():
            return Failure(431, "request.header.fields.too.large", "http_request_error", message)
        case errors.ContentTooLarge():
            return Failure(413, "request.entity.too.large", "http_request_error", message)
        case errors.VersionNotSupported():
            return Failure(505, "http.version.not.supported", "http_request_error", message)
        case errors.UnknownCoding():
            return Failure(501, "transfer.coding.not.implemented", "http_request_error", message)
    return Failure(400, "bad.request", "http_request_error", message)


def error_response(failure: Failure) -> tuple[bytes, bytes]:
    """The field section, framing included, and the body in Genesys's error shape."""
    body = json.dumps(
        {
            "message": failure.message,
            "code": failure.code,
            "status": failure.status,
            "contextId": failure.context_id,
            "details": [],
            "errors": [],
        }
    ).encode()
    lines = [
        b"Content-Type: application/json\r\n",
        b"Content-Length: %d\r\n" % len(body),
        b"Cache-Control: no-store\r\n",
        proxy_status(failure.message, error=failure.proxy_error),
    ]
    if failure.retry_after is not None:
        lines.append(b"Retry-After: %d\r\n" % failure.retry_after)
    if failure.allowed:
        lines.append(allow(failure.allowed))
    return b"".join(lines), body


def allow(methods: Iterable[bytes]) -> bytes:
    """The ``Allow`` line with its CRLF (RFC 9110 10.2.1)."""
    return b"Allow: %b\r\n" % b", ".join(sorted(methods))


def proxy_status(details: str, *, error: str | None = None) -> bytes:
    """The ``Proxy-Status`` line with its CRLF: what happened here (RFC 9209 2), in a quoted string (RFC 8941 3.3.3)."""
    quoted = "".join(c if " " <= c <= "~" else "?" for c in details).replace("\\", "\\\\").replace('"', '\\"')
    kind = f"; error={error}" if error is not None else ""
    return b'Proxy-Status: %b%b; details="%b"\r\n' % (NAME, kind.encode("ascii"), quoted.encode("ascii"))

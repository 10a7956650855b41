"""The one tree of errors, in the words of RFC 6749 and RFC 9110; ``forward.rescue`` maps it to responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

NO_SOURCES: Mapping[Path, None] = MappingProxyType({})


class ProxyError(Exception):
    """Anything this program raises on purpose.

    The message says what happened, for which tenant, and what to do; it holds no secret, and nothing that a caller
    sent (CWE-79) but a name that ``core.access.named`` lets pass.
    """


class ConfigurationError(ProxyError):
    """The configuration can't be used; each problem names file, key and what was expected.

    :ivar sources: the files that were read, or looked for, as ``Settings`` has them
    """

    def __init__(self, problems: list[str], sources: Mapping[Path, tuple[int, int, int] | None] = NO_SOURCES) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.sources = sources


# --- the request is refused (4xx) ---


class BadRequest(ProxyError):
    """The message breaks the grammar or the framing rules of RFC 9112; the connection ends with it: 400."""


class ContentTooLarge(BadRequest):
    """The content is longer than what is read here (RFC 9110 15.5.14): 413."""


class FieldsTooLarge(BadRequest):
    """The head is longer, or has more fields, than ``limits`` says (RFC 6585 5): 431."""


class TargetTooLong(BadRequest):
    """The request line exceeds ``limits.max_request_line_bytes`` (RFC 9110 15.5.15): 414."""


class VersionNotSupported(BadRequest):
    """The message is of another version than HTTP/1.0 and HTTP/1.1 (RFC 9110 15.6.6): 505."""


class UnknownCoding(BadRequest):
    """The content is coded for transfer in a way that is not implemented (RFC 9112 6.1): 501."""


class NotAllowed(ProxyError):
    """Host, Origin, caller or policy forbids the request: 403."""


class MethodNotAllowed(ProxyError):
    """CONNECT and TRACE are not for this proxy (RFC 9110 9.3.6, 9.3.8), others not for every path: 405.

    :param allowed: the methods that are
    """

    def __init__(self, message: str, *, allowed: Iterable[bytes]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class UnknownTenant(ProxyError):
    """The request names a tenant that is not configured, or none where one is needed: 404."""


class TooBusy(ProxyError):
    """As many connections, or requests of this tenant or caller, are under way as ``limits`` allows: 503."""


# --- no token (502, 503) ---


class TokenError(ProxyError):
    """No access token for a tenant.

    :ivar error: the OAuth error code (RFC 6749 5.2) or a word of ours such as ``unreachable``
    :ivar retry_after: seconds until the next attempt, or None where nothing can be said
    :ivar server_time: Unix time of the refusal by the token endpoint's own clock, if it said so
    """

    def __init__(
        self, message: str, *, error: str, retry_after: float | None = None, server_time: float | None = None
    ) -> None:
        super().__init__(message)
        self.error = error
        self.retry_after = retry_after
        self.server_time = server_time


class TokenRefused(TokenError):
    """The token endpoint refused us for a reason that asking again does not mend (``invalid_client``): 502."""


class TokenUnavailable(TokenError):
    """No token for now: endpoint down, throttling, or late; asking again later may help: 503."""


class StoreError(ProxyError):
    """The token store can't be used now, or holds what can't be read; clients are told of a ``TokenUnavailable``."""


class LoginFailed(ProxyError):
    """A person's login has brought no code; the message is the reason, as half a sentence.

    :ivar final: the login is over; otherwise the answer is none of its own, and it goes on
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


# --- the upstream (502, 504) ---


class UpstreamError(ProxyError):
    """The upstream could not be asked or gave no usable answer: 502.

    :ivar kind: the error type of RFC 9209 2.3, such as ``connection_refused``
    """

    kind = "proxy_internal_error"

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind


class UpstreamUnreachable(UpstreamError):
    """No connection: name not found, refused, TLS not verified. Nothing of the request was sent."""

    kind = "destination_unavailable"


class UpstreamClosed(UpstreamError):
    """The upstream closed or reset the connection before its answer was complete."""

    kind = "connection_terminated"


class UpstreamSilent(UpstreamClosed):
    """The upstream closed the connection before the first byte of its answer; it may have acted or not."""


class UpstreamProtocolError(UpstreamError):
    """The upstream's answer breaks RFC 9112."""

    kind = "http_protocol_error"


class UpstreamTimeout(UpstreamError):
    """The upstream took longer than a limit: 504."""

    kind = "http_response_timeout"


# --- the client ---


class ClientClosed(ProxyError):
    """The client is gone, or gave up in the middle of its request; there is nobody to answer."""


class ClientTimeout(ProxyError):
    """The client took longer than a limit to send its request (RFC 9110 15.5.9): 408."""


class WorkerGone(Exception):
    """A worker process ended, does not answer, or could not start."""

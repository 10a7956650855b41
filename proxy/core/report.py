"""What the data and token planes tell about themselves, as plain values that the control plane shows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)
"""Upper bounds in seconds, of request and of token refresh durations; a last bucket without bound follows."""

HISTORY = 24
"""Happenings that are remembered of each tenant."""


class TokenState(StrEnum):
    """What can be done with a tenant's token; ``NONE`` before the first."""

    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"
    NONE = "none"


@dataclass(slots=True)
class Histogram:
    """Counts per bucket of ``DURATION_BUCKETS``, not cumulative, and the sum of what was observed in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.total += seconds


class Happening(NamedTuple):
    """Something that happened to a tenant's token."""

    at: float
    """Unix time."""
    what: Literal["token", "replay"]
    """A token request, or a request that the upstream refused the token of."""
    outcome: str
    """As ``Tally`` counts it."""


@dataclass(slots=True)
class Tally:
    """One tenant's running counts, added to in place by the planes (one thread, no lock)."""

    requests: dict[int, int] = field(default_factory=dict)
    """Answers by status code, ours and the upstream's."""
    replays: dict[str, int] = field(default_factory=dict)
    """By outcome: ``accepted``, ``refused`` (401 again), ``failed``, ``body_too_long``, ``cooling_down``,
    ``no_newer_token``."""
    token_requests: dict[tuple[str, str], int] = field(default_factory=dict)
    """By grant and outcome: ``ok`` or the error code."""
    limited: dict[str, int] = field(default_factory=dict)
    """Answers 429 by what became of them: ``passed_on``, ``waited`` or ``other_token`` (and then sent
    again)."""
    durations: Histogram = field(default_factory=Histogram)
    """From the request's head to the answer's last byte, of a WebSocket to its opening, in seconds."""
    refreshes: Histogram = field(default_factory=Histogram)
    """From asking the token endpoint to its whole answer, in seconds."""
    at_once: int = 0
    """Requests under way now; a WebSocket is none once it is open."""
    websockets: int = 0
    """Open now."""
    websocket_received: int = 0
    """Bytes from clients on WebSockets, frames and all."""
    websocket_sent: int = 0
    """Bytes to clients on WebSockets, frames and all."""
    observed: int = 0
    """Requests that passed although the policy would refuse them, because it only observes."""
    rate_limit: tuple[bytes, bytes, bytes, float] | None = None
    """What the upstream last said of this token's limit, as it came: ``inin-ratelimit-allowed``, ``-count`` and
    ``-reset``, and when, as a Unix time. ``headroom`` reads it."""
    history: tuple[Happening, ...] = ()
    """What happened last to the tenant's token, oldest first; at most ``HISTORY``."""

    def count_replay(self, outcome: str, at: float) -> None:
        """Counts a 401 by what became of it.

        :param at: Unix time
        """
        self.replays[outcome] = self.replays.get(outcome, 0) + 1
        self._note(Happening(at, "replay", outcome))

    def count_limited(self, outcome: str) -> None:
        """Counts a 429 by what became of it."""
        self.limited[outcome] = self.limited.get(outcome, 0) + 1

    def count_token_request(self, grant: str, outcome: str, seconds: float, at: float) -> None:
        """Counts a token request that is over.

        :param at: Unix time
        """
        self.token_requests[grant, outcome] = self.token_requests.get((grant, outcome), 0) + 1
        self.refreshes.observe(seconds)
        self._note(Happening(at, "token", outcome))

    def _note(self, happening: Happening) -> None:
        self.history = (*self.history, happening)[-HISTORY:]


class Headroom(NamedTuple):
    """How much of a token's rate limit is left in its current minute."""

    remaining: int
    allowed: int


def headroom(tally: Tally, now: float) -> Headroom | None:
    """What is left now; None where the upstream has said nothing usable.

    The minute that it spoke of is over after ``reset`` seconds: then all is left again, which nobody says.

    :param now: Unix time
    """
    if tally.rate_limit is None:
        return None
    *said, at = tally.rate_limit
    if not all(number.isdigit() and len(number) < 10 for number in said):
        return None
    allowed, count, reset = map(int, said)
    return Headroom(allowed if now >= at + reset else max(0, allowed - count), allowed)


@dataclass(slots=True)
class CallerTally:
    """The running counts of those who show a key of one name."""

    requests: dict[int, int] = field(default_factory=dict)
    """Answers by status code, ours and the upstream's."""
    at_once: int = 0
    """Requests under way now; a WebSocket is none once it is open."""
    websockets: int = 0
    """Open now."""


class RequestRecord(NamedTuple):
    """A request that is over, as the log tells it. Nothing here is a secret, and all of it is printable ASCII."""

    tenant: str | None
    """None where it belongs to none."""
    caller: str | None
    """The name of the key that it shows; None where none is shown, or it has no name."""
    method: str
    path: str | None
    """What follows the tenant, without caller key and query; None without a tenant."""
    status: int
    """Of the answer; 499 where the client left before it."""
    seconds: float
    """From the request's head to the answer's last byte; of a WebSocket to its end."""
    received: int
    """Bytes of the request's body that were read, or of the WebSocket's frames."""
    sent: int
    """Bytes of the answer's body, or of the WebSocket's frames."""
    replayed: bool
    code: str | None
    """The error code of an answer of our own, None where the upstream answered."""
    correlation_id: str | None
    """The upstream's ``ININ-Correlation-Id``, or the ``contextId`` of an answer of our own."""


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant's state at one moment. Times are seconds; nothing here is a secret."""

    name: str
    state: TokenState
    expires_in: float | None
    """Until the token expires; None without a token."""
    lifetime: float | None
    refresh_in: float | None
    """Until the refresh ahead, negative once it is due."""
    expires_at: float | None
    """The same as a Unix time, for ``token_expiry_timestamp_seconds``."""
    age: float | None
    """Since the token was asked for."""
    error: str | None
    """Why the last token request failed: an OAuth error code or a word of ours; None when it succeeded."""
    diagnosis: str | None
    """The same as a sentence that says what to do."""
    retry_in: float | None
    """Until the next token request is allowed after a failure."""
    headroom: Headroom | None
    tally: Tally


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One of several processes that serve the port."""

    number: int
    pid: int | None
    """Of the process that serves now; None while there is none."""
    started: int
    """Processes started in its place so far; more than one: so many less one have ended."""


@dataclass(frozen=True, slots=True)
class ProxyReport:
    """The whole program's state at one moment."""

    version: str
    started_at: float
    """Unix time."""
    listening: tuple[str, ...]
    """URLs that accept connections; empty before the port is open and while draining."""
    draining: bool
    started: bool
    """Every tenant that is kept warm has been asked for its first token, well or not, or was waited for long enough."""
    client_connections: int
    upstream_connections: int
    refused: Mapping[int, int]
    """Answers by status code to requests that belong to no tenant: malformed, for another Host, no such tenant."""
    tenants: tuple[TenantReport, ...]
    callers: Mapping[str, CallerTally]
    """By the name of their keys; empty for keys that have none."""
    workers: tuple[WorkerReport, ...] = ()
    """None where one process does everything."""

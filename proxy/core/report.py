"""What the data and token planes tell about themselves, as plain values that the control plane shows."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    Row = array[float]
else:
    Row = array  # which Python 3.11 can't subscript

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


_STATUSES = (200, 201, 202, 204, 206, 304, 400, 401, 403, 404, 409, 429, 499, 500, 502, 503, 504)
"""That have a place in the row; the others come too seldom."""

# A tally's row: what was said of the rate limit (four numbers), answers by status, seconds in all, and per bucket.
_SAID = struct.Struct("4d")
_say = _SAID.pack_into
_PLACES = {status: place for place, status in enumerate(_STATUSES, 4)}
_TOTAL = 4 + len(_STATUSES)
_BUCKETS = _TOTAL + 1
_NOTHING = array("d", bytes(8 * (_BUCKETS + len(DURATION_BUCKETS) + 1)))


@dataclass(slots=True)
class Tally:
    """One tenant's running counts, added to in place by the planes (one thread, no lock)."""

    answers: Row = field(default_factory=lambda: array("d", _NOTHING))
    """What changes with each answer, in one row of numbers: where thousands of tenants take turns, a request waits for
    the memory of every single object that it touches (``make bench-scale``). See ``requests``, ``durations`` and
    ``headroom``."""
    at_once: int = 0
    """Requests under way now; a WebSocket is none once it is open."""
    rare: dict[int, int] = field(default_factory=dict)
    """Answers by status codes that have no place in the row."""
    replays: dict[str, int] = field(default_factory=dict)
    """By outcome: ``accepted``, ``refused`` (401 again), ``failed``, ``body_too_long``, ``cooling_down``,
    ``no_newer_token``."""
    token_requests: dict[tuple[str, str], int] = field(default_factory=dict)
    """By grant and outcome: ``ok`` or the error code."""
    limited: dict[str, int] = field(default_factory=dict)
    """Answers 429 by what became of them: ``passed_on``, ``waited`` or ``other_token`` (and then sent
    again)."""
    refreshes: Histogram = field(default_factory=Histogram)
    """From asking the token endpoint to its whole answer, in seconds."""
    websockets: int = 0
    """Open now."""
    websocket_received: int = 0
    """Bytes from clients on WebSockets, frames and all."""
    websocket_sent: int = 0
    """Bytes to clients on WebSockets, frames and all."""
    observed: int = 0
    """Requests that passed although the policy would refuse them, because it only observes."""
    history: tuple[Happening, ...] = ()
    """What happened last to the tenant's token, oldest first; at most ``HISTORY``."""

    @property
    def requests(self) -> dict[int, int]:
        """Answers by status code, ours and the upstream's."""
        counted = {status: int(self.answers[place]) for status, place in _PLACES.items() if self.answers[place]}
        return dict(sorted((counted | self.rare).items()))

    @property
    def upgraded(self) -> bool:
        """Some request has become a WebSocket."""
        return 101 in self.rare

    @property
    def durations(self) -> Histogram:
        """From the request's head to the answer's last byte, of a WebSocket to its opening, in seconds."""
        return Histogram([int(count) for count in self.answers[_BUCKETS:]], self.answers[_TOTAL])

    def count(self, status: int, seconds: float) -> None:
        """Counts an answer, and how long it took."""
        answers = self.answers
        try:
            answers[_PLACES[status]] += 1.0
        except KeyError:
            self.rare[status] = self.rare.get(status, 0) + 1
        answers[_BUCKETS + bisect_left(DURATION_BUCKETS, seconds)] += 1.0
        answers[_TOTAL] += seconds

    def add(self, other: Tally) -> None:
        """Counts the answers that another has counted; a rate limit is no sum, and stays what it is."""
        for place in range(_SAID.size // 8, len(self.answers)):
            self.answers[place] += other.answers[place]
        for status, count in other.rare.items():
            self.rare[status] = self.rare.get(status, 0) + count

    def hear(self, allowed: bytes, count: bytes, reset: bytes, at: float) -> None:
        """Takes what the upstream says of the token's limit, as it came.

        :param allowed: ``inin-ratelimit-allowed``, and so on
        :param at: Unix time
        """
        try:
            _say(self.answers, 0, _NUMBERS[allowed], _NUMBERS[count], _NUMBERS[reset], at)
        except KeyError:
            _say(self.answers, 0, _number(allowed), _number(count), _number(reset), at)

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
    allowed, count, reset, at = _SAID.unpack_from(tally.answers)
    if not at or min(allowed, count, reset) < 0:
        return None
    return Headroom(int(allowed if now >= at + reset else max(0, allowed - count)), int(allowed))


def _number(digits: bytes) -> int:
    """What digits mean; -1 if they are none, or too many."""
    return int(digits) if digits.isdigit() and len(digits) < 10 else -1


_NUMBERS = {b"%d" % number: float(number) for number in range(512)}
"""Those that nearly every answer has, which so need not be read each time."""


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
    needs_restart: tuple[str, ...] = ()
    """Sections of the configuration that have changed and count from the next start on."""

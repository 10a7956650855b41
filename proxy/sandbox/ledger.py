"""What the sandbox saw: token requests, calls it accepted and calls it refused, and why."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

NO_ORG = "-"
"""Stands for the org of a request whose client or token nobody knows."""
_LATEST = 1_000
_DISTINCT_POSTS = 65_536


class Outcome(StrEnum):
    """How a call to the API ended."""

    ACCEPTED = "accepted"
    EXPIRED = "expired"
    IDLE = "idle"
    """Nobody used the token for the idle timeout."""
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """Never issued here, or by now forgotten."""
    MALFORMED = "malformed"
    """Another scheme, several Authorization fields, or no JWT where a guest must show one."""
    MISSING = "missing"
    """No Authorization, or an empty bearer token."""
    ORG_TOKEN = "org_token"
    """An org's token where a guest's own JWT belongs."""
    FAULT_UNAUTHORIZED = "fault_unauthorized"
    """401 because the fault ``api_unauthorized`` says so."""
    RATE_LIMITED = "rate_limited"
    BAD_REQUEST = "bad_request"
    """The body is too long, or badly framed."""
    CLIENT_GONE = "client_gone"
    """The client hung up before it was answered; nothing was carried out."""
    FAULT = "fault"
    """Another fault: an error status, or the connection was dropped."""


REFUSALS = frozenset(
    {
        Outcome.EXPIRED,
        Outcome.IDLE,
        Outcome.REVOKED,
        Outcome.UNKNOWN,
        Outcome.MALFORMED,
        Outcome.MISSING,
        Outcome.ORG_TOKEN,
        Outcome.FAULT_UNAUTHORIZED,
    }
)
"""The outcomes that are answered with 401."""


@dataclass(frozen=True, slots=True)
class SeenTokenRequest:
    """One request to the token endpoint, without its secrets."""

    at: float
    org: str
    client_id: str
    client_auth: str
    """``client_secret_basic``, ``client_secret_post``, ``private_key_jwt`` or ``none``."""
    grant: str
    scope: tuple[str, ...]
    resource_server: str | None
    """The form parameter ``resourceServer``."""
    parameters: dict[str, str]
    """All form parameters but secrets, codes, tokens and assertions."""
    fields: tuple[tuple[str, str], ...]
    """The header fields but Authorization and Cookie, in their order."""
    outcome: str
    """``ok``, an OAuth error code, the name of the fault that it met, or ``client_gone``."""
    serial: int | None
    """Of the access token it got."""


@dataclass(frozen=True, slots=True)
class SeenCall:
    """One call to the API, by an org's client or by a guest."""

    at: float
    org: str
    method: str
    target: str
    outcome: Outcome
    status: int | None
    """None: the connection was dropped without an answer."""
    serial: int | None
    """Of the access token it showed; None for a guest's and for an unknown one."""
    correlation_id: str


@dataclass(slots=True)
class Ledger:
    """Running counts, and the latest requests in full; it never grows without bound."""

    token_requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By org, grant and outcome."""
    calls: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    """Of org tokens, by org and outcome."""
    guest_calls: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    latest_token_requests: deque[SeenTokenRequest] = field(default_factory=lambda: deque(maxlen=_LATEST))
    latest_calls: deque[SeenCall] = field(default_factory=lambda: deque(maxlen=_LATEST))
    contacts_created: Counter[str] = field(default_factory=Counter)
    """Executions of ``POST /api/v2/messaging/contacts``, by org."""
    double_executions: int = 0
    """How many of them repeated an ``externalId`` of that org."""
    refresh_token_reuses: int = 0
    tokens_revoked: int = 0
    sockets_opened: int = 0
    sockets_open: int = 0
    frames: int = 0
    """Received on web messaging sockets."""
    _posts: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict, repr=False)

    def saw_token_request(self, seen: SeenTokenRequest) -> None:
        self.token_requests[seen.org, seen.grant, seen.outcome] += 1
        self.latest_token_requests.append(seen)

    def saw_call(self, seen: SeenCall, *, guest: bool) -> None:
        (self.guest_calls if guest else self.calls)[seen.org, seen.outcome] += 1
        self.latest_calls.append(seen)

    def saw_contact(self, org: str, external_id: str | None) -> None:
        """Only contacts that name an ``externalId`` can be told apart from a repetition."""
        self.contacts_created[org] += 1
        if external_id is None:
            return
        if (org, external_id) in self._posts:
            self.double_executions += 1
            return
        self._posts[org, external_id] = None
        if len(self._posts) > _DISTINCT_POSTS:
            self._posts.popitem(last=False)

    def refused(self, org: str | None = None) -> dict[str, int]:
        """Calls answered with 401, guests' included, by reason; empty when there was none."""
        total: Counter[str] = Counter()
        for counts in (self.calls, self.guest_calls):
            for (name, outcome), count in counts.items():
                if outcome in REFUSALS and org in (None, name):
                    total[outcome.value] += count
        return dict(total)

    def accepted(self, org: str | None = None) -> int:
        """Calls that org tokens carried out."""
        return sum(
            count
            for (name, outcome), count in self.calls.items()
            if outcome is Outcome.ACCEPTED and org in (None, name)
        )

    def tokens_issued(self, org: str | None = None, grant: str | None = None) -> int:
        """Token requests that were answered with a token."""
        return sum(
            count
            for (name, granted, outcome), count in self.token_requests.items()
            if outcome == "ok" and org in (None, name) and grant in (None, granted)
        )

    def as_json(self, latest: int = 20) -> dict[str, Any]:
        """Everything, with the last ``latest`` requests of each sort."""
        return {
            "tokenRequests": [
                {"org": org, "grant": grant, "outcome": outcome, "count": count}
                for (org, grant, outcome), count in self.token_requests.items()
            ],
            "calls": _by_org(self.calls),
            "guestCalls": _by_org(self.guest_calls),
            "refused": self.refused(),
            "contactsCreated": dict(self.contacts_created),
            "doubleExecutions": self.double_executions,
            "refreshTokenReuses": self.refresh_token_reuses,
            "tokensRevoked": self.tokens_revoked,
            "socketsOpened": self.sockets_opened,
            "socketsOpen": self.sockets_open,
            "frames": self.frames,
            "latestTokenRequests": [asdict(seen) for seen in _tail(self.latest_token_requests, latest)],
            "latestCalls": [asdict(seen) for seen in _tail(self.latest_calls, latest)],
        }

    def reset(self) -> None:
        """Begin anew; open sockets stay counted."""
        fresh = Ledger(sockets_open=self.sockets_open)
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(fresh, name))


def _by_org(counts: Mapping[tuple[str, Outcome], int]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (org, outcome), count in counts.items():
        table.setdefault(org, {})[outcome.value] = count
    return table


_Seen = TypeVar("_Seen", SeenTokenRequest, SeenCall)


def _tail(seen: deque[_Seen], latest: int) -> list[_Seen]:
    return list(seen)[len(seen) - min(len(seen), latest) :]

"""Faults on demand: what goes wrong, for which org and grant, and how many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong until it was met ``count`` times, or until it is cleared."""

    name: str
    value: Any = None
    count: int | None = None
    org: str | None = None
    """An org's name; None: all."""
    grant: str | None = None
    """A ``grant_type``, for token faults only; None: all."""


def _any(_: object) -> bool:
    return True


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _status(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599


def _moment(value: object) -> bool:
    return value in ("before", "after")


def _description(value: object) -> bool:
    return value in ("client not found", "authentication failed")


@dataclass(frozen=True, slots=True)
class _Kind:
    default: Any
    accepts: Callable[[object], bool]
    expected: str


KINDS = {
    "token_latency": _Kind(1.0, _seconds, "seconds before the token endpoint answers"),
    "token_late": _Kind(1.0, _seconds, "seconds between what the token endpoint does and its answer"),
    "token_hang": _Kind(None, _any, "nothing: the token endpoint never answers"),
    "token_drop": _Kind("before", _moment, '"before" or "after" the request was carried out'),
    "token_status": _Kind(500, _status, "a status from 400 to 599"),
    "token_throttled": _Kind(60, _seconds, "seconds named in the description (HTTP 400 invalid_request)"),
    "token_invalid_client": _Kind("client not found", _description, '"client not found" or "authentication failed"'),
    "token_invalid_grant": _Kind(None, _any, "nothing"),
    "token_empty": _Kind(None, _any, "nothing: 200 without a body"),
    "token_html": _Kind(None, _any, "nothing: 200 with a page of HTML"),
    "token_expires_in": _Kind(None, _any, "what stands in expires_in; null leaves the field out"),
    "api_latency": _Kind(1.0, _seconds, "seconds before the API looks at a request"),
    "api_drop": _Kind("before", _moment, '"before" or "after" the request was carried out'),
    "api_status": _Kind(503, _status, "a status from 400 to 599"),
    "api_unauthorized": _Kind(None, _any, "nothing: 401 whatever the token"),
    "api_revoked": _Kind(None, _any, "nothing: the token that is shown is revoked first"),
    "api_throttled": _Kind(42, _seconds, "seconds in Retry-After (429)"),
    "clock_ahead": _Kind(60.0, _number, "seconds that the API's clock is ahead of the login's"),
}


class Faults:
    """The faults in force; at most one for each name and org."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, str | None], Fault] = {}

    def set(
        self,
        name: str,
        value: Any = None,
        *,
        count: int | None = None,
        org: str | None = None,
        grant: str | None = None,
    ) -> Fault:
        """Put a fault in force, in place of one with the same name and org; the names stand in ``KINDS``.

        :param value: None takes the kind's default
        :raises ValueError: an unknown name, or a value that this kind doesn't take
        """
        kind = KINDS.get(name)
        if kind is None:
            raise ValueError(f"no fault is called {name!r}; there are {', '.join(KINDS)}")
        if value is None:
            value = kind.default
        if not kind.accepts(value):
            raise ValueError(f"{name}: expected {kind.expected}")
        if count is not None and count < 1:
            raise ValueError(f"{name}: expected a count of at least 1")
        if grant is not None and not name.startswith("token_"):
            raise ValueError(f"{name}: only token faults can be for one grant")
        fault = Fault(name, value, count, org, grant)
        self._faults[name, org] = fault
        return fault

    def clear(self, name: str | None = None) -> None:
        """End one fault for all orgs, or all faults."""
        self._faults = {} if name is None else {key: f for key, f in self._faults.items() if key[0] != name}

    def replace(self, others: Faults) -> None:
        """Put other faults in force in place of all these."""
        self._faults = dict(others._faults)

    def take(self, name: str, *, org: str | None = None, grant: str | None = None) -> Fault | None:
        """The fault that this request meets, if any; its count goes down by one."""
        if not self._faults:
            return None
        for key in ((name, org), (name, None)):
            fault = self._faults.get(key)
            if fault is not None and fault.grant in (None, grant):
                self._use(key, fault)
                return fault
        return None

    def _use(self, key: tuple[str, str | None], fault: Fault) -> None:
        if fault.count is None:
            return
        if fault.count == 1:
            del self._faults[key]
            return
        self._faults[key] = Fault(fault.name, fault.value, fault.count - 1, fault.org, fault.grant)

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._faults.values()]

"""What several processes report, as if they were one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from proxy.core.report import (
    HISTORY,
    CallerTally,
    Happening,
    Headroom,
    Histogram,
    ProxyReport,
    Tally,
    TenantReport,
    TokenState,
)

K = TypeVar("K")

SAME = 2.0
"""Seconds; tokens that expire within them are one token, seen by two processes."""


@dataclass(slots=True)
class Departed:
    """What was counted by processes that are no more: a sum without it would fall, which counters never do."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    callers: dict[str, dict[int, int]] = field(default_factory=dict)
    """Answers by status code, by the name of the caller's key."""

    def add(self, report: ProxyReport) -> None:
        """Takes in a process's last report."""
        for tenant in report.tenants:
            before = self.tallies.get(tenant.name)
            total = self.tallies[tenant.name] = tally_of([before or Tally(), tenant.tally])
            total.at_once = total.websockets = 0  # what was under way there is over
        _add(self.refused, report.refused)
        for name, caller in report.callers.items():
            _add(self.callers.setdefault(name, {}), caller.requests)

    def keep(self, names: Collection[str]) -> None:
        """Forgets all tenants but these."""
        self.tallies = {name: tally for name, tally in self.tallies.items() if name in names}


def program_of(
    own: ProxyReport, reports: Sequence[ProxyReport], departed: Departed, names: Iterable[str]
) -> ProxyReport:
    """The report of a program of several processes.

    :param own: what is not the processes' to say: since when, where it listens
    :param names: of the tenants, in order
    """
    seen: dict[str, list[TenantReport]] = {name: [] for name in names}
    refused = dict(departed.refused)
    callers = {name: CallerTally(dict(counts)) for name, counts in departed.callers.items()}
    for report in reports:
        _add(refused, report.refused)
        for name, caller in report.callers.items():
            total = callers.setdefault(name, CallerTally())
            _add(total.requests, caller.requests)
            total.at_once += caller.at_once
            total.websockets += caller.websockets
        for tenant in report.tenants:
            if tenant.name in seen:
                seen[tenant.name].append(tenant)
    nothing = Tally()
    return replace(
        own,
        started=bool(reports) and all(report.started for report in reports),
        client_connections=sum(report.client_connections for report in reports),
        upstream_connections=sum(report.upstream_connections for report in reports),
        refused=refused,
        callers=callers,
        tenants=tuple(tenant_of(name, each, departed.tallies.get(name, nothing)) for name, each in seen.items()),
    )


def tenant_of(name: str, reports: Sequence[TenantReport], departed: Tally) -> TenantReport:
    """One tenant as all processes see it: the longest-lived of their tokens, and what they counted together.

    A failure shows where nobody has a better token than the process that failed, which is about to use that too.

    :param reports: of this tenant; with none it has no token
    :param departed: what processes counted that are no more
    """
    tally = tally_of([*(report.tally for report in reports), departed])
    if not reports:
        return TenantReport(name, TokenState.NONE, None, None, None, None, None, None, None, None, None, tally)
    best = max(reports, key=_left)
    failing = [report for report in reports if report.error is not None and _left(report) > _left(best) - SAME]
    if best.error is None and failing:
        worst = min(failing, key=lambda report: report.retry_in or 0.0)
        best = replace(best, error=worst.error, diagnosis=worst.diagnosis, retry_in=worst.retry_in)
    return replace(best, headroom=_least(report.headroom for report in reports), tally=tally)


def tally_of(tallies: Iterable[Tally]) -> Tally:
    """All that was counted, and what happened last; a rate limit is no sum, and stands in the reports."""
    total = Tally()
    history: list[Happening] = []
    for tally in tallies:
        total.add(tally)
        _add(total.replays, tally.replays)
        _add(total.token_requests, tally.token_requests)
        _add(total.limited, tally.limited)
        _observe(total.refreshes, tally.refreshes)
        total.at_once += tally.at_once
        total.websockets += tally.websockets
        total.websocket_received += tally.websocket_received
        total.websocket_sent += tally.websocket_sent
        total.observed += tally.observed
        history += tally.history
    total.history = tuple(sorted(history)[-HISTORY:])
    return total


def _least(each: Iterable[Headroom | None]) -> Headroom | None:
    """What is left of a token's limit: processes share the token, and each knows of its last answer."""
    return min((known for known in each if known is not None), default=None)


def _left(report: TenantReport) -> float:
    usable = report.state in (TokenState.FRESH, TokenState.STALE)
    return report.expires_in if usable and report.expires_in is not None else 0.0


def _add(total: dict[K, int], more: Mapping[K, int]) -> None:
    for key, count in more.items():
        total[key] = total.get(key, 0) + count


def _observe(total: Histogram, more: Histogram) -> None:
    total.counts = [old + new for old, new in zip(total.counts, more.counts, strict=True)]
    total.total += more.total

"""What the demo saw, as plain values: the rows of its table, the summary, and the verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.core.report import ProxyReport, TenantReport
    from proxy.sandbox import Ledger


@dataclass(slots=True)
class ClientCounts:
    """What the clients of one org saw, counted by themselves."""

    answered: int = 0
    """Requests that were answered as they should be."""
    failures: Counter[str] = field(default_factory=Counter)
    """All others, by status code or by the name of the client's error."""
    posts: int = 0
    """POSTs among the answered."""

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def requests(self) -> int:
        return self.answered + self.failed

    @property
    def unauthorized(self) -> int:
        return self.failures["401"]


@dataclass(frozen=True, slots=True)
class OrgFigures:
    """One org so far: its clients' counts, the sandbox's ledger and the proxy's report beside each other."""

    name: str
    requests: int
    failures: dict[str, int]
    posts: int
    executed: int
    """POSTs that the sandbox carried out."""
    refused: int
    """Calls that the sandbox answered with 401."""
    expired: int
    """Those of them that showed an expired token."""
    token_requests: int
    replays: int
    age: float | None
    """Seconds since the token was asked for; None without a token."""
    lifetime: float | None

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def unauthorized(self) -> int:
        return self.failures.get("401", 0)


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything at one moment."""

    orgs: tuple[OrgFigures, ...]
    revoked: int
    repeated: int
    """POSTs that the sandbox carried out a second time."""

    def total(self, name: str) -> int:
        """The sum of one number over the orgs."""
        return sum(int(getattr(org, name)) for org in self.orgs)


def figures(clients: dict[str, ClientCounts], ledger: Ledger, report: ProxyReport) -> Figures:
    """The three views joined; nothing in it is assumed."""
    tenants = {tenant.name: tenant for tenant in report.tenants}
    orgs = tuple(_org(name, counts, ledger, tenants[name]) for name, counts in clients.items())
    return Figures(orgs, ledger.tokens_revoked, ledger.double_executions)


def _org(name: str, counts: ClientCounts, ledger: Ledger, tenant: TenantReport) -> OrgFigures:
    refused = ledger.refused(name)
    return OrgFigures(
        name=name,
        requests=counts.requests,
        failures=dict(counts.failures),
        posts=counts.posts,
        executed=ledger.contacts_created[name],
        refused=sum(refused.values()),
        expired=refused.get("expired", 0),
        token_requests=sum(count for (org, *_), count in ledger.token_requests.items() if org == name),
        replays=sum(tenant.tally.replays.get(outcome, 0) for outcome in ("accepted", "refused", "failed")),
        age=tenant.age,
        lifetime=tenant.lifetime,
    )


def summary(seen: Figures) -> str:
    """One line that tells it all."""
    return "; ".join(
        (
            f"{_count(seen.total('requests'), 'request')}, {seen.total('failed'):,} failed",
            f"clients saw {seen.total('unauthorized'):,} x 401",
            f"{_count(seen.revoked, 'token')} {_was(seen.revoked)} revoked, {_count(seen.total('replays'), 'replay')}",
            f"{_count(seen.total('expired'), 'call')} with an expired token",
            _count(seen.total("token_requests"), "token request"),
            _posts(seen),
        )
    )


def problems(seen: Figures) -> list[str]:
    """What is not as the proxy promises; empty if all is well."""
    found = []
    failures: Counter[str] = Counter()
    for org in seen.orgs:
        failures.update(org.failures)
    if failures:
        kinds = ", ".join(f"{count:,} x {kind}" for kind, count in failures.most_common())
        found.append(f"{failures.total():,} of {_count(seen.total('requests'), 'request')} failed: {kinds}")
    if not _each_once(seen):
        found.append(f"not every POST was carried out exactly once: {_posts(seen)}, {seen.repeated:,} repeated")
    idle = [org.name for org in seen.orgs if org.requests == 0]
    if idle:
        found.append(f"no request was made for {' and '.join(idle)}")
    return found


def _each_once(seen: Figures) -> bool:
    return seen.repeated == 0 and all(org.posts == org.executed for org in seen.orgs)


def _posts(seen: Figures) -> str:
    answered, executed = seen.total("posts"), seen.total("executed")
    posts = _count(answered, "POST")
    if answered and _each_once(seen):
        return f"{posts}, each executed once"
    return f"{posts}, {executed:,} executed"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"

"""What ``status`` shows: the admin port's ``/status.json`` in words and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_BAR = 10
"""Cells of the bar that a token's life fills."""

_TOLD = 3
"""Troubles that a terminal is told at a time."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's entry in ``/status.json``."""

    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @property
    def troubled(self) -> bool:
        return self.entry["error"] is not None

    @property
    def trouble(self) -> str:
        """What failed, what to do, and when it is tried again; empty where nothing did."""
        if not self.troubled:
            return ""
        told = str(self.entry["diagnosis"] or self.entry["error"]).removeprefix(f"Tenant {self.name}: ")
        wait = self.entry["retry_in"]
        return f"{told} Next attempt in {duration(wait)}." if wait else told

    @property
    def requests(self) -> int:
        return sum(self.entry["requests"].values())

    @property
    def rank(self) -> tuple[int, str]:
        """Those without a token first, then those that can't renew theirs."""
        return (2 if not self.troubled else 1 if self.entry["usable"] else 0), self.name


@dataclass(frozen=True, slots=True)
class Outlook:
    """The state at one moment, and what there was before.

    :param document: ``/status.json``
    :param at: when it was asked for, in seconds of any clock
    :param wanted: names of tenants; none: all
    :raises click.BadParameter: there is no such tenant
    """

    document: Mapping[str, Any]
    at: float
    wanted: tuple[str, ...] = ()
    before: Outlook | None = field(default=None, repr=False)
    tenants: tuple[Tenant, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = {entry["name"]: Tenant(entry) for entry in self.document["tenants"]}
        if missing := next((name for name in self.wanted if name not in found), None):
            raise click.BadParameter(f"the proxy has no tenant called {missing!r}", param_hint="TENANT")
        chosen = [found[name] for name in self.wanted] or list(found.values())
        object.__setattr__(self, "tenants", tuple(sorted(chosen, key=lambda tenant: tenant.rank)))
        if self.before is not None:
            object.__setattr__(self.before, "before", None)  # of the past, the last look is enough

    @property
    def troubled(self) -> list[Tenant]:
        return [tenant for tenant in self.tenants if tenant.troubled]

    @property
    def state(self) -> str:
        if self.document["draining"]:
            return "draining"
        return "ready" if self.document["ready"] else "not ready"

    @property
    def summary(self) -> str:
        """The whole in one line."""
        count, troubled = len(self.tenants), len(self.troubled)
        usable = sum(tenant.entry["usable"] for tenant in self.tenants)
        clients = self.document["connections"]["client"]
        parts = [
            self.state,
            f"{usable:,} of {count:,} tokens usable",
            f"{troubled:,} in trouble",
            f"{clients:,} client connections",
            f"{sum(tenant.requests for tenant in self.tenants):,} requests",
            f"{sum(tenant.entry['replays'].get('accepted', 0) for tenant in self.tenants):,} replayed",
        ]
        rates = [rate for tenant in self.tenants if (rate := self.rate(tenant)) is not None]
        if rates:
            parts.append(f"{sum(rates):,.1f} a second")
        if changed := self.document.get("needs_restart"):
            parts.append(f"to be restarted for changes of {', '.join(changed)}")
        return ", ".join(parts)

    def rate(self, tenant: Tenant) -> float | None:
        """Requests a second since the last look; None where there was none."""
        if self.before is None:
            return None
        then = next((other for other in self.before.tenants if other.name == tenant.name), None)
        if then is None or then.requests > tenant.requests or self.at <= self.before.at:
            return None
        return (tenant.requests - then.requests) / (self.at - self.before.at)

    def news(self, before: Outlook) -> Iterator[str]:
        """A line for each tenant that has got into trouble since, or out of it."""
        then = {tenant.name: tenant.troubled for tenant in before.tenants}
        for tenant in self.tenants:
            if tenant.troubled and not then.get(tenant.name):
                yield f"{tenant.name}: {tenant.trouble}"
            elif not tenant.troubled and then.get(tenant.name):
                yield f"{tenant.name}: has a new token"
        if self.state != before.state:
            yield self.state


def drawing(seen: Outlook, height: int | None = None) -> RenderableType:
    """The table, what is wrong below it, and as many tenants as there is room for.

    :param height: lines of the terminal; None: no end
    """
    from rich.console import Group
    from rich.text import Text

    told = seen.troubled if height is None else seen.troubled[:_TOLD]
    # Around the rows stand eight lines, and a sentence takes two.
    room = len(seen.tenants) if height is None else max(1, height - 10 - 2 * len(told))
    shown = seen.tenants[:room]
    document = seen.document
    heading = Text.assemble(
        (f"genesys-auth-proxy {document['proxy']['version']}", "bold"),
        "  ",
        (seen.state, "green" if seen.state == "ready" else "bold red"),
        f"  {' '.join(document['listening'])}",
    )
    parts: list[RenderableType] = [heading, _table(seen, shown)]
    if left := len(seen.tenants) - len(shown):
        parts.append(Text(f"and {left:,} more; name those that you want to see", "dim"))
    parts += [Text.assemble((f"{tenant.name}: ", "bold red"), tenant.trouble) for tenant in told]
    if left := len(seen.troubled) - len(told):
        parts.append(Text(f"and {left:,} more in trouble", "bold red"))
    return Group(*parts, Text(seen.summary, "dim"))


def _table(seen: Outlook, shown: tuple[Tenant, ...]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    widest = max((len(tenant.name) for tenant in shown), default=0)
    table.add_column("\nTenant", overflow="fold", min_width=min(widest, 12))
    table.add_column("\nToken", no_wrap=True, min_width=_BAR)
    headings = ("Expires\nin", "Refresh\nin", "\nRequests", "A\nsecond", "Limit\nleft")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for tenant in shown:
        entry = tenant.entry
        rate = seen.rate(tenant)
        remaining, allowed = entry["rate_limit_remaining"], entry["rate_limit_allowed"]
        table.add_row(
            Text(tenant.name, "bold red" if tenant.troubled else ""),
            _bar(tenant),
            "-" if entry["expires_in"] is None else duration(entry["expires_in"]),
            "-" if entry["refresh_in"] is None else duration(entry["refresh_in"]),
            f"{tenant.requests:,}",
            "-" if rate is None else f"{rate:,.1f}",
            "-" if allowed is None else f"{remaining:,}/{allowed:,}",
        )
    return table


def _bar(tenant: Tenant) -> Text:
    """What is left of a token's life; the part in which it is refreshed is drawn thinner."""
    from rich.text import Text

    entry = tenant.entry
    if entry["expires_in"] is None or not entry["lifetime"]:
        return Text("none" if tenant.troubled else "unused", "bold red" if tenant.troubled else "dim")
    share = min(1.0, max(0.0, entry["expires_in"] / entry["lifetime"]))
    window = min(1.0, max(0.0, (entry["expires_in"] - entry["refresh_in"]) / entry["lifetime"]))
    cells, thin = round(share * _BAR), min(round(share * _BAR), max(1, round(window * _BAR)))
    color = "yellow" if tenant.troubled else "green" if entry["usable"] else "red"
    return Text("─" * thin + "━" * (cells - thin), color)


def duration(seconds: float) -> str:
    """Seconds in the largest unit that leaves no small number."""
    if seconds < 0:
        return "over" if seconds < -1 else "0 s"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

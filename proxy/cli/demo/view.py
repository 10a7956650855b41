"""The demo as it goes on: a live table on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from typing import Protocol

import click

from proxy.cli.demo.figures import Figures, OrgFigures

_BAR = 10
"""Cells of the bar that a token's age fills."""


class View(Protocol):
    """Shows how the demo goes on."""

    every: float
    """Seconds between two showings."""

    def show(self, seen: Figures, elapsed: float) -> None:
        """Shows what was seen so far."""

    def tell(self, elapsed: float, event: str) -> None:
        """Tells of something that was done on purpose."""

    def end(self, summary: str) -> None:
        """Tells how it went, once it is over."""


def view(title: str, duration: float) -> AbstractContextManager[View]:
    """The view that suits the place where stdout goes."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return _live(title, duration)
    return _Lines(title, duration)


class _Lines(AbstractContextManager["View"]):
    """Plain lines, for logs and pipes."""

    def __init__(self, title: str, duration: float) -> None:
        self.every = min(5.0, max(1.0, duration / 4))
        click.echo(title)

    def show(self, seen: Figures, elapsed: float) -> None:
        ages = ", ".join(f"{org.name}'s token {_age(org)}" for org in seen.orgs)
        counts = (
            f"{seen.total('requests'):,} requests, {seen.total('failed'):,} failed",
            f"401: {seen.total('refused'):,} by the sandbox, {seen.total('unauthorized'):,} at clients",
            ages,
        )
        click.echo(f"{elapsed:5.1f} s  {'; '.join(counts)}")

    def tell(self, elapsed: float, event: str) -> None:
        click.echo(f"{elapsed:5.1f} s  {event}")

    def end(self, summary: str) -> None:
        click.echo(summary)

    def __exit__(self, *_: object) -> None:
        return None


def _live(title: str, duration: float) -> AbstractContextManager[View]:
    from rich import box
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    console = Console()

    class Screen(AbstractContextManager["View"]):
        every = 0.2

        def __init__(self) -> None:
            self._full, self._empty = ("#", ".") if console.options.ascii_only else ("█", "░")
            self._events: list[str] = []
            # Log lines go above the table where both are on the terminal, and to their own file elsewhere.
            self._live = Live(console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty())

        def __enter__(self) -> View:
            self._live.__enter__()
            return self

        def __exit__(self, *_: object) -> None:
            self._live.__exit__(None, None, None)

        def tell(self, elapsed: float, event: str) -> None:
            self._events.append(f"{elapsed:5.1f} s  {event}")

        def show(self, seen: Figures, elapsed: float) -> None:
            so_far = Text(f"{min(elapsed, duration):.0f} of {duration:.0f} s")
            told = map(Text, [*self._events, ""])  # the last line is for the ^C that a terminal writes
            self._live.update(Group(Text(title, "bold"), so_far, self._table(seen), *told), refresh=True)

        def end(self, summary: str) -> None:
            console.print(summary, markup=False, highlight=False)

        def _table(self, seen: Figures) -> Table:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            table.add_column("\nOrg")
            for heading in ("\nRequests", "Sandbox\nsaid 401", "Clients\nsaw 401", "\nFailed", "Token\nrequests"):
                table.add_column(heading, justify="right")
            table.add_column("\nThe token's age", no_wrap=True)
            for org in seen.orgs:
                table.add_row(
                    org.name,
                    f"{org.requests:,}",
                    Text(f"{org.refused:,}", "bold" if org.refused else ""),
                    _good(org.unauthorized),
                    _good(org.failed),
                    f"{org.token_requests:,}",
                    self._bar(org),
                )
            return table

        def _bar(self, org: OrgFigures) -> Text:
            if org.age is None or not org.lifetime:
                return Text(f"{self._empty * _BAR}   none")
            cells = min(_BAR, round(_BAR * org.age / org.lifetime))
            color = "green" if org.age < org.lifetime else "red"
            return Text.assemble((self._full * cells, color), self._empty * (_BAR - cells), f" {org.age:4.1f} s")

    def _good(number: int) -> Text:
        return Text(f"{number:,}", "bold red" if number else "green")

    return Screen()


def _age(org: OrgFigures) -> str:
    if org.age is None or org.lifetime is None:
        return "none"
    return f"{org.age:.1f} of {org.lifetime:.0f} s"

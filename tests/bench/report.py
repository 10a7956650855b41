"""The run of ``make bench`` that the README shows: kept beside this file, as figures, a table and a plot."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

OURS = "genesys-auth-proxy"
DIRECT = "no proxy"

FIGURES = Path(__file__).with_name("last.json")
PLOT = Path(__file__).with_name("last.svg")


class Cost(NamedTuple):
    """Of one round."""

    microseconds: float
    """CPU time for one request."""
    rate: float
    """Requests a second."""


@dataclass
class Figures:
    """What one run found; by name, one number for each round. Empty where it was not measured."""

    machine: str
    python: str
    when: str
    rounds: int
    plain: dict[str, list[Cost]] = field(default_factory=dict)
    tls: dict[str, list[Cost]] = field(default_factory=dict)
    latency: dict[str, list[float]] = field(default_factory=dict)
    """Seconds."""
    downloads: dict[str, list[float]] = field(default_factory=dict)
    """Bytes a second."""
    idle: int = 0
    """Bytes in memory with 10,000 idle connections."""


def ratio(found: dict[str, list[Cost]], name: str) -> float:
    """How much a request costs there for what it costs here: of each round by itself, because what slows the
    machine for a while slows both.
    """
    pairs = zip(found[name], found[OURS], strict=True)
    return statistics.median(other.microseconds / ours.microseconds for other, ours in pairs)


def save(figures: Figures) -> None:
    """Keeps a run, and draws it."""
    FIGURES.write_text(json.dumps(asdict(figures), indent=1, default=list) + "\n", "utf-8")
    PLOT.write_text(plot(load()), "utf-8")


def load() -> Figures:
    """The run that was kept."""
    read = json.loads(FIGURES.read_text("utf-8"))
    for part in ("plain", "tls"):
        read[part] = {name: [Cost(*cost) for cost in costs] for name, costs in read[part].items()}
    return Figures(**read)


# --- the table ---


def table(figures: Figures) -> str:
    """The figures as Markdown, with what they were measured on."""
    direct = statistics.median(figures.latency[DIRECT])
    lines = [
        "| | CPU for a request, ratio | with TLS to the upstream | added latency | 100 MB answer |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in figures.plain:
        added = statistics.median(figures.latency[name]) - direct if name in figures.latency else None
        cells = [
            name,
            _cost(figures.plain, name),
            _cost(figures.tls, name),
            "" if added is None else f"{added * 1e6:.0f} µs",
            f"{statistics.median(figures.downloads[name]) / 1e6:,.0f} MB/s" if name in figures.downloads else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines.append(
        f"10,000 idle connections: {figures.idle / 1e6:.0f} MB in all. Measured {figures.when} on {figures.machine}, "
        f"with Python {figures.python}, medians of {figures.rounds} rounds."
    )
    return "\n".join(lines)


def _cost(found: dict[str, list[Cost]], name: str) -> str:
    if name not in found:
        return ""
    return f"{_middle(found[name]):.0f} µs, {ratio(found, name):.2f}"


def _middle(seen: list[Cost]) -> float:
    return statistics.median(cost.microseconds for cost in seen)


# --- the plot ---

_BAR, _GAP, _LEFT, _WIDTH = 14, 8, 240, 760


def plot(figures: Figures) -> str:
    """CPU for a request as bars, plain and with TLS, readable on light and dark pages."""
    names = list(figures.plain)
    most = max(_middle(seen) for part in (figures.plain, figures.tls) for seen in part.values())
    scale = (_WIDTH - _LEFT - 80) / most
    parts = [_text(_LEFT, 16, "CPU time for one request, µs; lighter: with TLS to the upstream", "start")]
    y = 30
    for name in names:
        ours = name.startswith(OURS)
        parts.append(_text(_LEFT - 8, y + _BAR, name, "end"))
        for part, opacity in ((figures.plain, 1.0), (figures.tls, 0.45)):
            if name not in part:
                continue
            value = _middle(part[name])
            colour = "#d9480f" if ours else "#4c6ef5"
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{value * scale:.0f}" height="{_BAR}" fill="{colour}" '
                f'opacity="{opacity}"/>'
            )
            parts.append(_text(int(_LEFT + value * scale + 6), y + _BAR - 3, f"{value:.0f}", "start"))
            y += _BAR + 1
        y += _GAP
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}">\n{body}\n</svg>\n'


def _text(x: int, y: int, text: str, anchor: str) -> str:
    style = 'font-family="sans-serif" font-size="12" fill="#868e96"'
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {style}>{text}</text>'

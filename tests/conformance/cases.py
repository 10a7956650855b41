"""The cases of ``cases.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance import script
from tests.conformance.expectations import Expectation

_FILE = Path(__file__).with_name("cases.json")


@dataclass(frozen=True, slots=True)
class Names:
    """What the placeholders in a case's texts stand for."""

    authority: str
    """``${H}``: the proxy's host and port."""
    prefix: str
    """``${P}``: goes before each path and names the tenant."""
    extra_fields: str = ""
    """``${X}``: field lines for every request, each with its CRLF."""

    def fill(self, text: str) -> str:
        text = text.replace("${H}", self.authority).replace("${P}", self.prefix).replace("${X}", self.extra_fields)
        return text.replace("${PORT}", self.authority.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Case:
    """One case, ready to be played."""

    id: str
    client: tuple[script.ClientStep, ...]
    upstream: tuple[script.Reply, ...]
    """One for each request, the last again and again; empty: the usual 200."""
    expect: tuple[Expectation, ...]
    """Any of these will do."""
    methods: tuple[str, ...] = ("GET",)
    answers: int = 1
    """The client waits for so many."""
    limit: float = 4.0
    """Seconds for the client's whole part."""
    linger: float = 0.0
    """Seconds for which the client stays after the last answer."""
    settle: float = 0.08
    """Seconds after the client has gone in which something can still reach the upstream."""

    @property
    def needs_an_end(self) -> bool:
        """Whether it is about the connection's end after the answers."""
        return any(expectation.needs_an_end for expectation in self.expect)

    @property
    def watches_upstream(self) -> bool:
        """Whether it is about the upstream connection's end after the client has left."""
        return any(expectation.upstream.closed_within is not None for expectation in self.expect)


@dataclass(frozen=True, slots=True)
class Entry:
    """One case as the file has it."""

    id: str
    title: str
    source: str
    tenant: str
    """``any``; ``own``: of this case alone; ``default``: the one for requests that name none; ``guarded``: at
    the proxy that wants a caller key."""
    form: dict[str, Any]

    def case(self, names: Names) -> Case:
        """The case with its placeholders filled."""
        form = _filled(self.form, names)
        client = tuple(map(script.read_client_step, form["client"]))
        sent = next(step.data.decode("latin-1") for step in client if isinstance(step, script.Send))
        return Case(
            self.id,
            client,
            tuple(map(script.read_reply, form.get("upstream", ()))),
            tuple(map(Expectation.read, form["expect"])),
            tuple(form.get("methods") or [sent.split(" ")[0]]),
            **{key: form[key] for key in ("answers", "limit", "linger", "settle") if key in form},
        )


def entries() -> Iterator[Entry]:
    """All cases of the file, in its order."""
    content = json.loads(_FILE.read_text(encoding="ascii"))
    for form in content["cases"]:
        form["expect"] = [content["named"][each] if isinstance(each, str) else each for each in form["expect"]]
        yield Entry(form["id"], form["title"], form["source"], form.get("tenant", "any"), form)


def _filled(value: Any, names: Names) -> Any:
    match value:
        case str():
            return names.fill(value)
        case list():
            return [_filled(each, names) for each in value]
        case dict():
            return {key: _filled(each, names) for key, each in value.items()}
        case _:
            return value

"""Puts cases together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.conformance.cases import Entry

Entries = Iterator[Entry]
Demands = dict[str, Any]
Steps = list[Any]
"""As in ``cases.json``: texts to send, and what is done between them."""

OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NEXT = "GET ${P}/next HTTP/1.1\r\nHost: ${H}\r\n${X}\r\n"
"""A request that shows the state in which another one left its connections."""
AFTER = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"
"""The answer to it."""
EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
"""An answer that no client may see."""
CLOSE = {"close": True}
RESET = {"reset": True}


def request(
    *lines: str,
    method: str = "GET",
    target: str = "${P}/x",
    version: str = "HTTP/1.1",
    host: str = "${H}",
    body: str = "",
) -> str:
    """A request with these field lines behind Host, and a body sent as it is."""
    section = "".join(f"{line}\r\n" for line in lines)
    return f"{method} {target} {version}\r\nHost: {host}\r\n${{X}}{section}\r\n{body}"


def answer(*lines: str, status: str = "200 OK", body: str = "ok", version: str = "HTTP/1.1") -> str:
    """An answer with Content-Length."""
    return unframed(*lines, f"Content-Length: {len(body)}", status=status, body=body, version=version)


def coded(*lines: str, body: str, version: str = "HTTP/1.1") -> str:
    """An answer with Transfer-Encoding, and a body sent as it is."""
    return unframed("Transfer-Encoding: chunked", *lines, body=body, version=version)


def unframed(*lines: str, status: str = "200 OK", body: str = "", version: str = "HTTP/1.1") -> str:
    """An answer with these field lines and no other."""
    section = "".join(f"{line}\r\n" for line in lines)
    return f"{version} {status}\r\n{section}\r\n{body}"


def chunked(*pieces: str, trailers: Sequence[str] = ()) -> str:
    """A body in chunks."""
    data = "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces)
    return f"{data}0\r\n" + "".join(f"{line}\r\n" for line in trailers) + "\r\n"


def field(line: str) -> tuple[str, str]:
    """Name and value of a field line."""
    name, _, value = line.partition(":")
    return name, value.strip(" \t")


def got(**demands: Any) -> Demands:
    """What the client must see; see ``ClientDemands``."""
    return {"client": demands}


def seen(**demands: Any) -> Demands:
    """What the upstream must see; see ``UpstreamDemands``."""
    return {"upstream": demands}


RELAYED = got(status=[200], body="ok")


def refused(status: int = 400) -> Demands:
    """Our own answer; nothing reaches the upstream, and nothing behind it is read."""
    return got(status=[status], closed=True, max_answers=1) | seen(requests=0)


class Family:
    """Cases of one rule.

    :param name: begins the cases' ids
    :param source: of the rule
    """

    def __init__(self, name: str, source: str, *, level: str = "MUST", tenant: str = "any") -> None:
        self._name = name
        self._source = source
        self._level = level
        self._tenant = tenant

    def case(
        self,
        variant: str,
        client: str | Steps,
        *expect: Demands,
        upstream: str | Sequence[str | Steps] = (),
        **further: Any,
    ) -> Entry:
        """One of them.

        :param client: one request, or its steps
        :param expect: any of these will do
        :param upstream: one answer, or a list of answers or of their steps
        :param further: see ``Case``
        """
        answers = [upstream] if isinstance(upstream, str) else upstream
        name = f"{self._name}: {variant}"
        form = {
            "id": name,
            "area": self._name,
            "level": self._level,
            "title": variant,
            "source": self._source,
            "client": [client] if isinstance(client, str) else client,
            "upstream": [[each] if isinstance(each, str) else each for each in answers],
            "expect": list(expect),
            **further,
        }
        return Entry(name, variant, self._source, self._tenant, form)

    def two(self, variant: str, first: str, expect: Demands, *answers: str | Steps, **further: Any) -> Entry:
        """One with two requests, the second once the first is answered; both get 200, unless ``expect`` says else."""
        expect = {"client": {"statuses": [200, 200]}} | expect
        return self.case(variant, [first, {"await_answers": 1}, NEXT], expect, upstream=answers, answers=2, **further)

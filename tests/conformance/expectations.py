"""What a case demands of both ends, and where an observation falls short of it.

An expectation that a case leaves out demands nothing. Texts in ``has_field`` and ``line`` that begin with ``~`` are
regular expressions; a status such as ``4xx`` stands for its class, ``none`` for a connection that ended without
an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.messages import NO_STATUS, Answer, Field, values
from tests.conformance.observation import Observation, Request

Status = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDemands:
    """Demands on header fields, by name."""

    has_field: Mapping[str, str] = field(default_factory=dict)
    """One of the field's values is like this."""
    field_absent: Sequence[str] = ()
    field_count: Mapping[str, int] = field(default_factory=dict)
    field_values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Exactly these, in this order."""
    field_without: Mapping[str, str] = field(default_factory=dict)
    """No value contains this, whatever its case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDemands(FieldDemands):
    """Demands on what the client got; fields and body are the first answer's."""

    status: Sequence[Status] | None = None
    statuses: Sequence[Status] | None = None
    """Of all answers."""
    bodies: Sequence[str] | None = None
    body: str | None = None
    body_length: int | None = None
    max_answers: int | None = None
    interim: Sequence[int] | None = None
    framing: Sequence[str] | None = None
    raw_absent: Sequence[str] = ()
    tunnel_contains: Sequence[str] = ()
    in_time: Mapping[str, float] = field(default_factory=dict)
    """Awaited text, and the seconds within which it had to come."""
    complete: bool = False
    truncated: bool = False
    """The client can tell that the body is not whole (RFC 9112 8)."""
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamDemands(FieldDemands):
    """Demands on what reached the upstream; fields, line and body are the first request's."""

    requests: int | None = None
    connections: int | None = None
    complete: int | None = None
    """So many of the requests are whole."""
    line: Sequence[str] | None = None
    line_absent: Sequence[str] = ()
    """In no request's line."""
    body: str | None = None
    body_length: int | None = None
    framing: Sequence[str] | None = None
    raw_absent: Sequence[str] = ()
    reached: Sequence[str] = ()
    """Awaited texts that came in time."""
    closed_within: float | None = None
    """Seconds from the client's leaving to the end of each connection."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One acceptable outcome."""

    client: ClientDemands = ClientDemands()
    upstream: UpstreamDemands = UpstreamDemands()

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Expectation:
        """From its form in ``cases.json``. Raises TypeError for a demand that nothing here checks."""
        unknown = set(entry) - {"client", "upstream"}
        if unknown:
            raise TypeError(f"no end of the proxy: {unknown}")
        return cls(ClientDemands(**entry.get("client", {})), UpstreamDemands(**entry.get("upstream", {})))

    @property
    def needs_an_end(self) -> bool:
        """Whether it can only be judged once connections had time to close."""
        return self.client.closed or self.upstream.closed_within is not None


def shortcomings(alternatives: Iterable[Expectation], seen: Observation) -> list[str]:
    """Why the observation meets none of the alternatives, told for the nearest; empty where it meets one."""
    return min((_shortcomings(each, seen) for each in alternatives), key=len)


def _shortcomings(expected: Expectation, seen: Observation) -> list[str]:
    at_client = [problem for check in _CLIENT_CHECKS for problem in check(expected.client, seen)]
    at_upstream = [problem for check in _UPSTREAM_CHECKS for problem in check(expected.upstream, seen)]
    return [f"client: {problem}" for problem in at_client] + [f"upstream: {problem}" for problem in at_upstream]


def _check_statuses(want: ClientDemands, seen: Observation) -> Iterator[str]:
    if want.status is not None and not _is_one_of(want.status, _status(_first(seen.answers))):
        yield f"status {_status(_first(seen.answers))}, want {want.status}"
    statuses = [_status(answer) for answer in seen.answers]
    if want.statuses is not None and not _are_alike(want.statuses, statuses):
        yield f"statuses {statuses}, want {want.statuses}"
    # Bytes that are no answer don't count as one here; what they are shows in `status`.
    answers = sum(1 for answer in seen.answers if answer.status is not None and answer.status > 0)
    if want.max_answers is not None and answers > want.max_answers:
        yield f"{answers} answers, want at most {want.max_answers}"
    interim = _first(seen.answers).interim
    if want.interim is not None and interim != list(want.interim):
        yield f"interim answers {interim}, want {want.interim}"


def _check_bodies(want: ClientDemands, seen: Observation) -> Iterator[str]:
    answer = _first(seen.answers)
    yield from _check_body(want.body, want.body_length, answer.body)
    bodies = [each.body.decode("latin-1") for each in seen.answers]
    if want.bodies is not None and bodies != list(want.bodies):
        yield f"bodies {bodies!r:.120}, want {want.bodies!r}"
    if want.framing is not None and answer.framing not in want.framing:
        yield f"framing {answer.framing}, want {want.framing}"
    if want.complete and not answer.complete:
        yield "the answer is not complete"
    yield from _contained("got", want.raw_absent, seen.raw)
    yield from _missing("the tunnel lacks", want.tunnel_contains, seen.tunnel)


def _check_ends(want: ClientDemands, seen: Observation) -> Iterator[str]:
    answer = _first(seen.answers)
    if want.truncated and answer.complete and answer.framing != "eof":
        yield "a body that broke off looks complete"
    if want.truncated and answer.framing == "eof" and not seen.reset:
        yield "a body without length that broke off ends in a clean close"
    if want.closed and not seen.ended:
        yield "the connection stays open"
    for text, seconds in want.in_time.items():
        if seen.arrived.get(text.encode("latin-1"), seconds + 1) > seconds:
            yield f"{text!r} not within {seconds} s"


def _check_requests(want: UpstreamDemands, seen: Observation) -> Iterator[str]:
    requests = seen.upstream.requests
    complete = sum(request.complete for request in requests)
    if want.connections is not None and len(seen.upstream.raw) != want.connections:
        yield f"{len(seen.upstream.raw)} connections, want {want.connections}"
    if want.requests is not None and len(requests) != want.requests:
        yield f"{len(requests)} requests, want {want.requests}: {[request.line[:50] for request in requests]}"
    if want.complete is not None and complete != want.complete:
        yield f"{complete} complete requests, want {want.complete}"
    line = _first_request(seen).line
    if want.line is not None and not any(_is_like(each, line) for each in want.line):
        yield f"line {line[:90]!r}, want {want.line!r}"
    for text in want.line_absent:
        if any(text in request.line for request in requests):
            yield f"a request line has {text!r}"


def _check_content(want: UpstreamDemands, seen: Observation) -> Iterator[str]:
    request = _first_request(seen)
    yield from _check_body(want.body, want.body_length, request.body)
    if want.framing is not None and seen.upstream.requests and request.framing not in want.framing:
        yield f"framing {request.framing}, want {want.framing}"
    yield from _contained("got", want.raw_absent, b"\0".join(seen.upstream.raw))
    for text in want.reached:
        if text.encode("latin-1") not in seen.reached:
            yield f"{text!r} did not arrive in time"


def _check_leaving(want: UpstreamDemands, seen: Observation) -> Iterator[str]:
    if want.closed_within is None:
        return
    left_at = seen.started if seen.left_at is None else seen.left_at
    late = any(ended - left_at > want.closed_within for ended in seen.upstream.ended.values())
    if late or len(seen.upstream.ended) < len(seen.upstream.raw):
        yield f"a connection is still open {want.closed_within} s after the client has left"


def _check_answer_fields(want: ClientDemands, seen: Observation) -> Iterator[str]:
    return _check_fields(want, _first(seen.answers).fields)


def _check_request_fields(want: UpstreamDemands, seen: Observation) -> Iterator[str]:
    return _check_fields(want, _first_request(seen).fields)


_CLIENT_CHECKS: tuple[Callable[[ClientDemands, Observation], Iterator[str]], ...] = (
    _check_statuses,
    _check_answer_fields,
    _check_bodies,
    _check_ends,
)
_UPSTREAM_CHECKS: tuple[Callable[[UpstreamDemands, Observation], Iterator[str]], ...] = (
    _check_requests,
    _check_request_fields,
    _check_content,
    _check_leaving,
)


def _check_fields(want: FieldDemands, fields: Sequence[Field]) -> Iterator[str]:
    for name, text in want.has_field.items():
        got = values(fields, name)
        if not any(_is_like(text, value) for value in got):
            yield f"{name}={got!r}, want {text!r}"
    for name in want.field_absent:
        if got := values(fields, name):
            yield f"{name}={got!r}, want none"
    for name, count in want.field_count.items():
        if (number := len(values(fields, name))) != count:
            yield f"{number} x {name}, want {count}"
    for name, texts in want.field_values.items():
        if (got := values(fields, name)) != list(texts):
            yield f"{name}={got!r}, want {texts!r}"
    for name, text in want.field_without.items():
        if any(text.lower() in value.lower() for value in values(fields, name)):
            yield f"{name} contains {text!r}"


def _check_body(want: str | None, length: int | None, body: bytes | bytearray) -> Iterator[str]:
    if want is not None and body != want.encode("latin-1"):
        yield f"body {bytes(body[:80])!r} ({len(body)} bytes), want {want[:80]!r}"
    if length is not None and len(body) != length:
        yield f"body of {len(body)} bytes, want {length}"


def _contained(verb: str, texts: Sequence[str], data: bytes | bytearray) -> Iterator[str]:
    return (f"{verb} {text!r}" for text in texts if text.encode("latin-1") in data)


def _missing(verb: str, texts: Sequence[str], data: bytes) -> Iterator[str]:
    return (f"{verb} {text!r}, has {data[:60]!r}" for text in texts if text.encode("latin-1") not in data)


def _first(answers: Sequence[Answer]) -> Answer:
    return answers[0] if answers else Answer()


def _first_request(seen: Observation) -> Request:
    return seen.upstream.requests[0] if seen.upstream.requests else Request()


def _status(answer: Answer) -> Status:
    if answer.status is None or answer.status == NO_STATUS:
        return "none"
    return answer.status


def _are_alike(wanted: Sequence[Status], statuses: Sequence[Status]) -> bool:
    return len(wanted) == len(statuses) and all(
        _is_one_of([want], status) for want, status in zip(wanted, statuses, strict=True)
    )


def _is_one_of(wanted: Sequence[Status], status: Status) -> bool:
    classes = [want[0] for want in wanted if isinstance(want, str) and want.endswith("xx")]
    return status in wanted or str(status)[0] in classes


def _is_like(want: str, text: str) -> bool:
    if want.startswith("~"):
        return re.search(want[1:], text, re.DOTALL) is not None
    return want == text

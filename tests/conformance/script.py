"""What the two ends of a case do, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes, so many times."""

    data: bytes
    times: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds that pass before the next step: the case is about their passing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Await:
    """The client waits until it has received these bytes."""

    data: bytes
    within: float


@dataclass(frozen=True, slots=True)
class AwaitAnswers:
    """The client waits until it has so many complete answers."""

    count: int
    within: float


@dataclass(frozen=True, slots=True)
class AwaitRequest:
    """The client waits until the upstream has a request's head."""

    within: float


@dataclass(frozen=True, slots=True)
class AwaitUpstream:
    """The client waits until the upstream has received these bytes."""

    data: bytes
    within: float


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection in both directions."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Send FIN and go on reading."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Send RST."""


@dataclass(frozen=True, slots=True)
class SwitchToWebSocket:
    """The upstream answers 101 with the right accept value for the key that came (RFC 6455 4.2.2)."""


@dataclass(frozen=True, slots=True)
class Read:
    """The upstream reads so many bytes of the tunnel."""

    count: int


ClientStep = Send | Pause | Await | AwaitAnswers | AwaitRequest | AwaitUpstream | Close | HalfClose | Reset
UpstreamStep = Send | Pause | Close | Reset | SwitchToWebSocket | Read


@dataclass(frozen=True, slots=True)
class Reply:
    """What the upstream does with one request."""

    steps: tuple[UpstreamStep, ...]
    before_body: bool = False
    """Begin as soon as the request's head is there, and read its content afterwards."""


def read_client_step(step: str | dict[str, Any]) -> ClientStep:
    """A client's step from its form in ``cases.json``."""
    match step:
        case {"await": str(text), **rest}:
            return Await(_bytes(text), **_within(rest))
        case {"await_answers": int(count), **rest}:
            return AwaitAnswers(count, **_within(rest))
        case {"await_request": True, **rest}:
            return AwaitRequest(**_within(rest))
        case {"await_upstream": str(text), **rest}:
            return AwaitUpstream(_bytes(text), **_within(rest))
        case {"half_close": True}:
            return HalfClose()
    common = _read_common_step(step)
    if common is None:
        raise ValueError(f"no step of a client: {step!r}")
    return common


def read_reply(steps: list[str | dict[str, Any]]) -> Reply:
    """The upstream's part in one exchange from its form in ``cases.json``."""
    before_body = steps[:1] == [{"before_body": True}]
    return Reply(tuple(_read_upstream_step(step) for step in steps[before_body:]), before_body)


def _read_upstream_step(step: str | dict[str, Any]) -> UpstreamStep:
    match step:
        case {"switch_to_websocket": True}:
            return SwitchToWebSocket()
        case {"read": int(count)}:
            return Read(count)
    common = _read_common_step(step)
    if common is None:
        raise ValueError(f"no step of an upstream: {step!r}")
    return common


def _read_common_step(step: str | dict[str, Any]) -> Send | Pause | Close | Reset | None:
    match step:
        case str(text):
            return Send(_bytes(text))
        case {"send": str(text), "times": int(times)}:
            return Send(_bytes(text), times)
        case {"pause": int(seconds) | float(seconds)}:
            return Pause(seconds)
        case {"close": True}:
            return Close()
        case {"reset": True}:
            return Reset()
    return None


def _within(rest: dict[Any, Any]) -> dict[str, float]:
    return {"within": 3.0, **rest}


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")

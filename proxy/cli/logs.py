"""The log, on stderr: lines for people, or JSON objects for programs, one a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Literal

from proxy.cli.lines import Lines
from proxy.core.scrub import scrubbed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from proxy.core.report import RequestRecord

log = logging.getLogger(__name__)

Style = Literal["auto", "text", "json"]
"""``auto`` is text on a terminal and JSON elsewhere."""

_KNOWN = ("event", "tenant")
"""What log calls may add to a message (``extra``)."""


class Log:
    """What ``start_log`` sets up.

    :ivar request: takes a request that is over, and returns at once
    """

    def __init__(self, lines: Lines, request: Callable[[RequestRecord], None]) -> None:
        self.request = request
        self._lines = lines

    def close(self) -> None:
        """Writes what is still to be written, if its reader takes it."""
        self._lines.close()


def log_to_stderr() -> None:
    """Logs warnings as text, for commands that are run by people."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(_text_line))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def start_log(level: str, style: Style) -> Log:
    """Logs this program from ``level`` on; libraries from ``warning`` on, whose talk may repeat what was sent."""
    as_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    line = _json_line if as_json else _text_line
    lines = Lines(sys.stderr.fileno(), lambda lost: line(time.time(), "warning", _left_out(lost)))
    handler = logging.StreamHandler(lines)
    handler.setFormatter(_Formatter(line))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("proxy").setLevel(level.upper())
    sys.excepthook = _told_of_the_end
    if level in ("warning", "error"):
        return Log(lines, lambda _: None)
    put = lines.put
    told = _json_request if as_json else _text_request
    return Log(lines, lambda record: put(told(time.time(), record)))


def _told_of_the_end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Tells what ends the program as the log tells it; Python itself would quote what the error quotes."""
    log.critical("a defect ended the program", exc_info=(kind, error, traceback), extra={"event": "proxy.defect"})


class _Formatter(logging.Formatter):
    def __init__(self, line: Callable[[float, str, Mapping[str, object]], str]) -> None:
        super().__init__()
        self._line = line

    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, object] = {name: getattr(record, name) for name in _KNOWN if hasattr(record, name)}
        members["message"] = scrubbed(record.getMessage())
        if record.exc_info:
            members["traceback"] = scrubbed(self.formatException(record.exc_info))
        return self._line(record.created, record.levelname.lower(), members)


def _json_line(at: float, level: str, members: Mapping[str, object]) -> str:
    return json.dumps({"time": _utc(at), "level": level, **members}, ensure_ascii=False)


def _text_line(at: float, level: str, members: Mapping[str, object]) -> str:
    traceback = members.get("traceback")
    return f"{_utc(at)} {level:7} {members['message']}" + (f"\n{traceback}" if traceback else "")


def _utc(at: float) -> str:
    """RFC 3339, to the millisecond."""
    return f"{_second(int(at))}.{int(at * 1000) % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _left_out(lost: int) -> dict[str, object]:
    return {"event": "log.left_out", "message": f"{lost} lines of the log are missing here: nobody took them in time"}


def _json_request(at: float, record: RequestRecord) -> str:
    # Written out: for a line that every request may have, the encoder for any object takes four times as long.
    return (
        f'{{"time": "{_utc(at)}", "level": "info", "event": "request", "tenant": {_quoted(record.tenant)}, '
        f'"caller": {_quoted(record.caller)}, "method": {_quoted(record.method)}, "path": {_quoted(record.path)}, '
        f'"status": {record.status}, '
        f'"duration": {record.seconds:.6f}, "received": {record.received}, "sent": {record.sent}, '
        f'"replayed": {"true" if record.replayed else "false"}, "code": {_quoted(record.code)}, '
        f'"correlation_id": {_quoted(record.correlation_id)}}}'
    )


def _quoted(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _text_request(at: float, record: RequestRecord) -> str:
    asked = f"{record.tenant or '-'}: {record.method} {record.path or '-'}"
    took = f"{record.seconds * 1000:.1f} ms"
    parts = [f"{asked}: {record.status} in {took}", f"{record.received} B in", f"{record.sent} B out"]
    if record.caller is not None:
        parts.append(f"caller {record.caller}")
    if record.replayed:
        parts.append("replayed")
    if record.code is not None:
        parts.append(record.code)
    if record.correlation_id is not None:
        parts.append(f"id {record.correlation_id}")
    return _text_line(at, "info", {"message": ", ".join(parts)})

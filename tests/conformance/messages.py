"""HTTP/1.1 messages as they lie on the wire, read so that a proxy's mistakes stay visible."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

Field = tuple[str, str | None]
"""Name and value; the value is None for a line without a colon."""

NO_STATUS = 0
"""There were bytes, but never a whole head."""
MALFORMED = -1
BAD_CHUNK = -2

TRAILER = "(trailer) "
"""Goes before a trailer field's name, so that no trailer passes for a header field."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: .*)?", re.DOTALL)


@dataclass(slots=True)
class Answer:
    """What one request got: the final answer and the status codes of the interim ones before it."""

    status: int | None = None
    """One of the constants above where the bytes were no answer; None where nothing came."""
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    interim: list[int] = field(default_factory=list)
    framing: str = "none"
    """``te``, ``cl``, ``both``, ``eof`` (ended by the connection's end) or ``none``."""


def read_fields(block: bytes) -> list[Field]:
    """The field lines of a head, nothing checked, names as they stand."""
    fields: list[Field] = []
    for line in filter(None, block.split(b"\r\n")):
        name, colon, value = line.partition(b":")
        fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1") if colon else None))
    return fields


def values(fields: Sequence[Field], name: str) -> list[str]:
    """The values of a field. Blanks around its name don't hide it: a careless peer would see it as well."""
    return [value for key, value in fields if value is not None and key.strip().lower() == name.lower()]


def framing(fields: Sequence[Field]) -> str:
    """``te``, ``cl``, ``both`` or ``none``, by the fields alone (RFC 9112 6.3)."""
    match bool(values(fields, "transfer-encoding")), bool(values(fields, "content-length")):
        case True, True:
            return "both"
        case True, False:
            return "te"
        case False, True:
            return "cl"
        case _:
            return "none"


def read_answers(data: bytes, methods: Sequence[str], *, ended: bool) -> tuple[list[Answer], bytes]:
    """The answers in what a client received, the last perhaps incomplete, and the bytes that follow them.

    :param methods: of the requests in their order; the last stands for all further ones
    :param ended: the connection is at its end
    """
    answers: list[Answer] = []
    while data:
        method = methods[min(len(answers), len(methods) - 1)]
        answer, data = _read_answer(data, method, ended=ended)
        if answer is None:
            break
        answers.append(answer)
        if answer.status == 101 or not answer.complete:
            break
    return answers, data


def _read_answer(data: bytes, method: str, *, ended: bool) -> tuple[Answer | None, bytes]:
    interim: list[int] = []
    while True:
        head, blank_line, rest = data.partition(b"\r\n\r\n")
        if not blank_line:
            begun = data.strip() and (ended or interim)
            return (Answer(NO_STATUS, body=data, interim=interim) if begun else None), data
        line, _, block = head.partition(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(line)
        if status_line is None:
            return Answer(MALFORMED, body=data), b""
        status = int(status_line[1])
        if not 100 <= status < 200 or status == 101:
            break
        interim.append(status)
        data = rest
    answer = Answer(status, read_fields(block), interim=interim)
    return answer, _read_body(answer, rest, method, ended=ended)


def _read_body(answer: Answer, data: bytes, method: str, *, ended: bool) -> bytes:
    """Fill in body, framing and completeness; what follows the answer, empty where it is incomplete."""
    answer.framing = framing(answer.fields)
    if answer.status == 101:
        answer.framing, answer.complete = "none", True
        return data
    if method == "HEAD" or answer.status in (204, 304):
        answer.complete = True
        return data
    match answer.framing:
        case "te" | "both":
            return _read_chunked(answer, data)
        case "cl":
            length = values(answer.fields, "content-length")[0]
            size = int(length) if length.isdigit() else 0
            answer.body, answer.complete = data[:size], len(data) >= size
            return data[size:]
        case _:
            answer.framing, answer.body, answer.complete = "eof", data, ended
            return b""


def _read_chunked(answer: Answer, data: bytes) -> bytes:
    chunks: list[bytes] = []
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        try:
            size = int(data[at:end].split(b";")[0], 16)
        except ValueError:
            answer.status = BAD_CHUNK
            break
        at = end + 2
        if size == 0:
            at = _read_trailers(answer, data, at)
            break
        chunks.append(data[at : at + size])
        if len(data) < at + size + 2:
            break
        at += size + 2
    answer.body = b"".join(chunks)
    return data[at:] if answer.complete else b""


def _read_trailers(answer: Answer, data: bytes, at: int) -> int:
    while (end := data.find(b"\r\n", at)) >= 0:
        line = data[at:end].decode("latin-1")
        at = end + 2
        if not line:
            answer.complete = True
            break
        answer.fields.append((TRAILER + line.split(":")[0], line))
    return at

"""How the admin port answers: never cached, never framed, and with Genesys's error shape when it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from uuid import uuid4

from aiohttp import web

JSON = "application/json"

_TURN = 0.002
"""Seconds of work after which the event loop gets a turn, so that thousands of tenants delay no traffic."""

_COMPRESSED_FROM = 4096
"""Bytes from which a body is worth compressing for a client that accepts it."""

_FIELDS = {
    # aiohttp adds its own name and versions where no Server field is.
    "Server": "genesys-auth-proxy",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def stream_fields(content_type: str) -> dict[str, str]:
    """The fields of any answer."""
    return {**_FIELDS, "Content-Type": content_type}


def answer(
    body: bytes, content_type: str = JSON, *, status: int = 200, fields: Mapping[str, str] | None = None
) -> web.Response:
    """A complete answer; ``fields`` go over those that every answer has."""
    response = web.Response(body=body, status=status, headers={**stream_fields(content_type), **(fields or {})})
    if len(body) >= _COMPRESSED_FROM:
        response.enable_compression()
    return response


def json_answer(
    value: Mapping[str, object], *, status: int = 200, fields: Mapping[str, str] | None = None
) -> web.Response:
    """``value`` as JSON on one line."""
    return answer(json.dumps(value).encode() + b"\n", status=status, fields=fields)


def error_body(
    status: int,
    code: str,
    message: str,
    *,
    details: Sequence[Mapping[str, object]] = (),
    errors: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """The six members of a Genesys error; ``message`` holds nothing that the caller sent (CWE-79)."""
    return {
        "message": message,
        "code": code,
        "status": status,
        "contextId": str(uuid4()),
        "details": list(details),
        "errors": list(errors),
    }


def error_answer(
    status: int,
    code: str | None = None,
    message: str | None = None,
    *,
    fields: Mapping[str, str] | None = None,
) -> web.Response:
    """An error without details; code and message are the status's own unless given."""
    phrase = HTTPStatus(status).phrase
    body = error_body(status, code or phrase.lower().replace(" ", "."), message or f"{phrase}.")
    return json_answer(body, status=status, fields=fields)


async def whole(pieces: Iterable[bytes]) -> bytes:
    """All pieces in one, made on the event loop with turns for the others in between.

    A thread would not do: it holds the interpreter for 5 ms at a time, once for each callback of the traffic.
    """
    loop = asyncio.get_running_loop()
    made = []
    turn = loop.time()
    for piece in pieces:
        made.append(piece)
        if loop.time() - turn >= _TURN:
            await asyncio.sleep(0)
            turn = loop.time()
    return b"".join(made)

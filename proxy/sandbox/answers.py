"""Answers in Genesys Cloud's shape, with the fields that each of them carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

from aiohttp import web

from proxy.sandbox.ledger import Outcome

_MESSAGES = {
    "bad.request": "The request could not be understood by the server due to malformed syntax.",
    "authentication.required": "No authentication bearer token specified in authorization header.",
    "bad.credentials": "Invalid login credentials.",
    "credentials.expired": "The supplied credentials are expired and cannot be used.",
    "not.authorized": "You are not authorized to perform the requested action.",
    "not.found": "The requested resource was not found.",
    "request.entity.too.large": "The request is over the size limit. Maximum bytes: 512000",
    "too.many.requests.retry.after": ("Rate limit exceeded the maximum. Retry the request in [{retry_after}] seconds"),
    "internal.server.error": (
        "The server encountered an unexpected condition which prevented it from fulfilling the request."
    ),
    "service.unavailable": (
        "Service Unavailable - The server is currently unavailable (because it is overloaded or down for maintenance)."
    ),
    "request.timeout": "The request timed out.",
}
_CODES = {
    400: "bad.request",
    401: "bad.credentials",
    403: "not.authorized",
    404: "not.found",
    413: "request.entity.too.large",
    429: "too.many.requests.retry.after",
    503: "service.unavailable",
    504: "request.timeout",
}


class ApiError(Exception):
    """Ends a call with an error in Genesys Cloud's shape.

    :param code: None takes the one that goes with the status
    :param outcome: what the ledger says of the call
    """

    def __init__(
        self,
        status: int,
        code: str | None = None,
        message: str | None = None,
        *,
        retry_after: int | None = None,
        outcome: Outcome = Outcome.ACCEPTED,
    ) -> None:
        self.status = status
        self.outcome = outcome
        self.code = code or _CODES.get(status, "internal.server.error" if status >= 500 else "bad.request")
        self.message = message or _MESSAGES[self.code].format(retry_after=retry_after)
        self.retry_after = retry_after
        super().__init__(f"{status} {self.code}")

    def response(self, context_id: str) -> web.Response:
        body = {
            "message": self.message,
            "code": self.code,
            "status": self.status,
            "contextId": context_id,
            "details": [],
            "errors": [],
        }
        fields = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return json_response(body, status=self.status, fields=fields)


def json_response(body: object, *, status: int = 200, fields: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=json.dumps(body, separators=(",", ":")).encode(),
        status=status,
        content_type="application/json",
        headers=fields,
    )


def complete(response: web.StreamResponse, correlation_id: str, now: float) -> None:
    """What every answer carries; its Date is by the sandbox's clock."""
    response.headers["ININ-Correlation-Id"] = correlation_id
    response.headers["Date"] = formatdate(now, usegmt=True)


def hang_up(request: web.BaseRequest) -> web.Response:
    """Drop the connection at once. The answer that is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def timestamp(now: float) -> str:
    """A Unix time as the API writes it: ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(entities: list[Any], query: Mapping[str, str], path: str) -> dict[str, Any]:
    """One page of a listing (``pageSize`` up to 500, ``pageNumber`` from 1); the URIs are relative.

    :raises ApiError: 400, a number is none
    """
    try:
        size = min(max(int(query.get("pageSize", "25")), 1), 500)
        number = max(int(query.get("pageNumber", "1")), 1)
    except ValueError:
        raise ApiError(400) from None
    count = -(-len(entities) // size)
    answer = {
        "entities": entities[(number - 1) * size : number * size],
        "pageSize": size,
        "pageNumber": number,
        "total": len(entities),
        "pageCount": count,
        "selfUri": f"{path}?pageSize={size}&pageNumber={number}",
    }
    if number < count:
        answer["nextUri"] = f"{path}?pageSize={size}&pageNumber={number + 1}"
    return answer

"""What a token endpoint's answers mean (RFC 6749 5), as plain values and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from proxy.core.advice import refusal
from proxy.core.grants import Client
from proxy.errors import TokenError, TokenRefused, TokenUnavailable

LONGEST_ANSWER = 262_144
"""Bytes; a token endpoint's answer is a small JSON object, SAML-backed JWTs included."""

_SENDABLE = re.compile(r"[\x21-\x7e]+")
_VSCHAR = re.compile(r"[ -~]+")  # RFC 6749 A.17
_RATE_LIMITED = re.compile(r"rate limit|too many requests|throttl", re.IGNORECASE)
_WORDS = ("error", "error_description", "description", "message", "code")
"""Of OAuth's error shape (RFC 6749 5.2), and of Genesys's."""

_CODE = re.compile(r"(?=.{1,60}\Z)[a-z]+(?:\.[a-z]+)*")
_BUSY = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a token endpoint issued (RFC 6749 5.1)."""

    access_token: str = field(repr=False)
    expires_in: object
    """As it came; ``core.tokens.lifetime`` gives it a meaning."""
    server_time: float | None
    """Unix time of the answer by the endpoint's own clock (RFC 9110 6.6.1), if it said so."""
    refresh_token: str | None = field(default=None, repr=False)
    """The next one; None: the one that was shown stays (RFC 6749 6)."""


def read_answer(client: Client, status: int, headers: Mapping[str, str], body: bytes, now: float) -> TokenAnswer:
    """The token in a token endpoint's answer.

    :param headers: case-insensitive
    :param now: Unix time here, to read a ``Retry-After`` date
    :raises TokenUnavailable: down, busy or throttling, or an answer that no token endpoint gives: ask again later
    :raises TokenRefused: a reason in the request or the configuration: asking again does not mend it
    """
    if status != 200:
        _refuse(client, status, headers, body, now)
    answer = _json_object(body)
    if answer is None:
        kind = headers.get("Content-Type", "").partition(";")[0].strip() or "no media type"
        what = f"{len(body)} bytes of {kind}" if body else "nothing"
        raise TokenUnavailable(
            f"Tenant {client.tenant}: the token endpoint answered 200 with {what} instead of a JSON object; "
            "look for a captive portal or a gateway between here and login_url.",
            error="no_json",
        )
    token = answer.get("access_token")
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token):
        raise TokenUnavailable(
            f"Tenant {client.tenant}: the token endpoint answered 200 without a usable access_token.",
            error="no_access_token",
        )
    token_type = answer.get("token_type", "bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise TokenRefused(
            f"Tenant {client.tenant}: the token endpoint issued a token that is not a bearer token (RFC 6750).",
            error="unsupported_token_type",
        )
    refresh_token = answer.get("refresh_token")
    if not (isinstance(refresh_token, str) and _VSCHAR.fullmatch(refresh_token)):
        refresh_token = None
    return TokenAnswer(token, answer.get("expires_in"), http_date(headers.get("Date")), refresh_token)


def _refuse(client: Client, status: int, headers: Mapping[str, str], body: bytes, now: float) -> NoReturn:
    answer = _json_object(body) or {}
    error = _word(answer.get("error")) or f"http_{status}"
    described = " ".join(str(answer.get(name, "")) for name in _WORDS)
    wait = retry_after(headers.get("Retry-After"), now)
    # Genesys throttles its token endpoint with 400 invalid_request (rate limit exceeded ...).
    throttled = status == 429 or (status == 400 and _RATE_LIMITED.search(described) is not None)
    if throttled:
        message = "the token endpoint is throttling this client; ask again later."
        raise TokenUnavailable(f"Tenant {client.tenant}: {message}", error="rate_limited", retry_after=wait)
    if status >= 500 or status in _BUSY:
        message = f"the token endpoint answered {status}; ask again later."
        raise TokenUnavailable(f"Tenant {client.tenant}: {message}", error=f"http_{status}", retry_after=wait)
    server_time = http_date(headers.get("Date"))
    code = answer.get("code")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
    message = f"Tenant {client.tenant}: {refusal(client, error, status, described, code)}"
    raise TokenRefused(message, error=error, retry_after=wait, server_time=server_time)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds in a ``Retry-After`` (RFC 9110 10.2.3), a number or a date; None where it says nothing usable."""
    if value is None:
        return None
    seconds = value.strip()
    if seconds.isascii() and seconds.isdigit():
        return float(seconds[:12])
    date = http_date(value)
    return None if date is None else max(0.0, date - now)


def unreachable(client: Client, reason: str) -> TokenError:
    """The error for a token endpoint that gave no answer at all."""
    return TokenUnavailable(
        f"Tenant {client.tenant}: the token endpoint gave no answer ({reason}); check region, login_url and network.",
        error="unreachable",
    )


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _word(value: object) -> str | None:
    # What the endpoint sends ends in logs and metrics: an error code is a short word or it is nothing.
    return value if isinstance(value, str) and re.fullmatch(r"[a-z_]{1,40}", value) else None


def http_date(value: str | None) -> float | None:
    """Unix time of an HTTP date (RFC 9110 5.6.7); None where it is none."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        # The oldest form names no zone, and every HTTP date is in GMT (RFC 9110 5.6.7).
        return (date.replace(tzinfo=UTC) if date.tzinfo is None else date).timestamp()
    except (ValueError, OverflowError):
        return None

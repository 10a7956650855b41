"""Whose a token is: what the API says of the organization that it opens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.core.answers import http_date, retry_after
from proxy.errors import TokenRefused, TokenUnavailable

RESOURCES = ("/api/v2/tokens/me", "/api/v2/organizations/me")
"""Each tells a token's organization; an org may have closed the first to its clients, or the second."""

UNCONFIRMED = "unconfirmed"
"""The error of a token whose organization the API does not tell."""

REJECTED = "token_rejected"
"""The error of a token that the API does not take: it has expired, was revoked, or is of another region."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the API says of a token; what it does not say is None."""

    id: str | None = None
    name: str | None = None
    scope: tuple[str, ...] | None = None
    server_time: float | None = None
    """Unix time by the API's own clock (RFC 9110 6.6.1)."""


def read(tenant: str, status: int, headers: Mapping[str, str], body: bytes, now: float) -> Told | None:
    """What a resource says of a token; None where this client may not ask it.

    :param headers: case-insensitive
    :param now: Unix time here, to read a ``Retry-After`` date
    :raises TokenUnavailable: it can't be told for now
    :raises TokenRefused: the API does not take the token
    """
    if status in (403, 404):
        return None
    answer = _json_object(body)
    server_time = http_date(headers.get("Date"))
    if status == 200:
        if answer is None:
            what = "the API answers with no JSON object; look for a gateway or a portal."
            raise TokenUnavailable(f"Tenant {tenant}: {what}", error=UNCONFIRMED)
        entity = answer.get("organization", answer)
        scope = answer.get("authorizedScope")
        told = tuple(map(str, scope)) if isinstance(scope, list) else None
        return Told(_text(entity, "id"), _text(entity, "name"), told, server_time)
    what = f"{status} {_word((answer or {}).get('code'))}".strip()
    if status == 401:
        message = (
            f"the API refuses the token that login has just issued ({what}); api_url and login_url must be of the "
            "same region."
        )
        raise TokenRefused(f"Tenant {tenant}: {message}", error=REJECTED, server_time=server_time)
    if 300 <= status < 400:
        message = f"the API redirects ({what}), and a token never follows; check region and api_url."
    else:
        message = f"the API answers {what} where it should tell the token's organization."
        if status == 429:
            message = f"the API is throttling this client ({what}); ask again later."
        wait = retry_after(headers.get("Retry-After"), now)
        raise TokenUnavailable(f"Tenant {tenant}: {message}", error=UNCONFIRMED, retry_after=wait)
    raise TokenRefused(f"Tenant {tenant}: {message}", error=UNCONFIRMED, server_time=server_time)


def closed(tenant: str, api_url: str, statuses: Sequence[int]) -> Told:
    """What is told where this client may ask none of the resources: nothing.

    :param statuses: what they were answered with
    :raises TokenRefused: they don't even exist there
    """
    if all(status == 404 for status in statuses):
        message = f"{api_url} knows neither {RESOURCES[0]} nor {RESOURCES[1]} (404); check api_url."
        raise TokenRefused(f"Tenant {tenant}: {message}", error=UNCONFIRMED)
    return Told()


def mismatch(expected: str, told: Told) -> str | None:
    """Why a token is not known to be of the organization that it should be, as a sentence; None if it is."""
    if told.id == expected:
        return None
    if told.id is None:
        return "the API does not tell this client its organization (403), so that org_id can't be compared."
    found = told.id if told.name is None else f"{told.id} ({told.name})"
    advice = "use that org's own client and login, or correct org_id."
    return f"the token belongs to organization {found}, and org_id says {expected}; {advice}"


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _text(entity: object, key: str) -> str | None:
    """A text that may stand in a log and on a terminal."""
    value = entity.get(key) if isinstance(entity, dict) else None
    return value if isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200 else None


def _word(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,80}", value) else ""

"""Whose a token is: what the API says of the organization that it opens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from proxy.core.answers import http_date, retry_after
from proxy.core.grants import Client
from proxy.errors import TokenRefused, TokenUnavailable

RESOURCES = ("/api/v2/tokens/me", "/api/v2/organizations/me")
"""Each tells a token's organization; an org may have closed the first to its clients, or the second."""

UNCONFIRMED = "unconfirmed"
"""The error of a token whose organization the API does not tell."""

REJECTED = "token_rejected"
"""The error of a token that the API does not take: it has expired, was revoked, or is of another region."""

_ADDRESS = re.compile(r"\bip\b.*(?:address|\ballow|\bwhite)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Told:
    """What the API says of a token; what it does not say is None."""

    id: str | None = None
    name: str | None = None
    scope: tuple[str, ...] | None = None
    server_time: float | None = None
    """Unix time by the API's own clock (RFC 9110 6.6.1)."""
    withheld: str | None = None
    """What the API answers in place of all that: statuses with their error codes."""


def read(client: Client, status: int, headers: Mapping[str, str], body: bytes, now: float) -> Told | None:
    """What a resource says of a token; None where this client may not ask it.

    :param headers: case-insensitive
    :param now: Unix time here, to read a ``Retry-After`` date
    :raises TokenUnavailable: it can't be told for now
    :raises TokenRefused: the API does not take the token
    """
    answer = _json_object(body)
    server_time = http_date(headers.get("Date"))
    if status == 200:
        return _told(client, answer, server_time)
    what, error = answered(status, body), UNCONFIRMED
    if status in (401, 403) and _is_of_address(answer or {}):
        message = (
            f"the API does not let this machine's IP address in ({what}); add it to the addresses that the org "
            "allows, in its admin pages."
        )
    elif status in (403, 404):
        return None
    elif status == 401:
        message, error = f"the API refuses the token that login has just issued ({what}); {_advice(client)}.", REJECTED
    elif 300 <= status < 400:
        message = f"the API redirects ({what}), and a token never follows; check region and api_url."
    else:
        message = f"the API answers {what} where it should tell the token's organization."
        if status == 429:
            message = f"the API is throttling this client ({what}); ask again later."
        wait = retry_after(headers.get("Retry-After"), now)
        raise TokenUnavailable(f"Tenant {client.tenant}: {message}", error=error, retry_after=wait)
    raise TokenRefused(f"Tenant {client.tenant}: {message}", error=error, server_time=server_time)


def _told(client: Client, answer: dict[str, Any] | None, server_time: float | None) -> Told:
    if answer is None:
        message = "the API answers with no JSON object; look for a gateway or a portal."
        raise TokenUnavailable(f"Tenant {client.tenant}: {message}", error=UNCONFIRMED)
    entity = answer.get("organization", answer)
    scope = answer.get("authorizedScope")
    told = tuple(map(str, scope)) if isinstance(scope, list) else None
    return Told(_text(entity, "id"), _text(entity, "name"), told, server_time)


def _is_of_address(answer: Mapping[str, Any]) -> bool:
    said = (answer.get("message"), answer.get("code"))
    return any(isinstance(words, str) and _ADDRESS.search(words) for words in said)


def _advice(client: Client) -> str:
    """What to do about an API that refuses a new token."""
    api, login = urlsplit(client.api_url).hostname or "", urlsplit(client.token_url).hostname or ""
    domain = api.removeprefix("api.")
    if domain != api and login == f"login.{domain}":
        return f"both are of {domain}: look for a gateway in between, and at the IP addresses that the org allows"
    return "api_url and login_url must be of the same region"


def answered(status: int, body: bytes) -> str:
    """A status, and the error code with it if there is one."""
    return f"{status} {_word((_json_object(body) or {}).get('code'))}".strip()


def closed(client: Client, answers: Sequence[str], date: str | None) -> Told:
    """What is told where this client may ask none of the resources: nothing but the time.

    :param answers: to them, as ``answered`` tells them
    :param date: of the last
    :raises TokenRefused: they don't even exist there
    """
    if all(answer.startswith("404") for answer in answers):
        message = f"{client.api_url} knows neither {RESOURCES[0]} nor {RESOURCES[1]} (404); check api_url."
        raise TokenRefused(f"Tenant {client.tenant}: {message}", error=UNCONFIRMED)
    return Told(server_time=http_date(date), withheld=", ".join(dict.fromkeys(answers)))


def mismatch(expected: str, told: Told) -> str | None:
    """Why a token is not known to be of the organization that it should be, as a sentence; None if it is."""
    if told.id == expected:
        return None
    if told.id is None:
        answer = "" if told.withheld is None else f" ({told.withheld})"
        return f"the API does not tell this client its organization{answer}, so that org_id can't be compared."
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

"""The login door: what an SDK that logs in is told, so that it goes on without ever holding a token."""

from __future__ import annotations

import json
import math
from urllib.parse import parse_qsl

from proxy.core.routing import PLACEHOLDER

LONGEST_FORM = 65_536
"""Bytes of a token request; a SAML assertion fits."""

_WITH_REFRESH_TOKEN = frozenset({"authorization_code", "refresh_token"})
_PEOPLES_OWN = frozenset({"authorization_code", "urn:ietf:params:oauth:grant-type:saml2-bearer", "password"})

_SECTION = b"Content-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\nPragma: no-cache\r\n"

Form = dict[str, str]


def read_form(body: bytes) -> Form:
    """The parameters of a token request (RFC 6749 3.2); what is no form has none."""
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=64))
    except ValueError:
        return {}


def is_own_login(form: Form) -> bool:
    """Whether a person logs in, or renews a login of their own, rather than the tenant's program."""
    if form.get("grant_type") == "refresh_token":
        return form.get("refresh_token") != PLACEHOLDER
    return form.get("grant_type") in _PEOPLES_OWN


def renews_placeholder(form: Form) -> bool:
    """Whether an SDK asks for another placeholder, as they do when they have seen a 401."""
    return form.get("grant_type") == "refresh_token" and not is_own_login(form)


def no_use() -> tuple[bytes, bytes]:
    """The field section and the body that end an SDK's renewing, with 400 (RFC 6749 5.2).

    A 401 that another token does not mend must not send it round: the Python SDK renewed 970 times in 2 s.
    """
    why = "the API refuses a new token as well; see its own answer"
    body = json.dumps({"error": "invalid_grant", "description": why, "error_description": why}).encode()
    return _SECTION % len(body), body


def placeholder(form: Form, seconds_left: float) -> tuple[bytes, bytes]:
    """The field section and the body of a token answer (RFC 6749 5.1) that gives no token away.

    :param seconds_left: of the tenant's real token; SDKs that renew by time come back then
    """
    answer: dict[str, object] = {
        "access_token": PLACEHOLDER,
        "token_type": "bearer",
        "expires_in": max(1, math.floor(seconds_left)),
    }
    if form.get("grant_type") in _WITH_REFRESH_TOKEN:
        answer["refresh_token"] = PLACEHOLDER
    body = json.dumps(answer).encode()
    return _SECTION % len(body), body

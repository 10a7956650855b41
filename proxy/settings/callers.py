"""Caller keys: a secret, or a table that gives it a name and the tenants it is for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from proxy.core.routing import TENANT_NAME
from proxy.core.secret import Secret
from proxy.settings.problems import kind, quoted
from proxy.settings.values import SECRET_SCHEMA, place_of, secret

_VISIBLE = re.compile(r"[!-~]{16,}")


@dataclass(frozen=True, slots=True)
class CallerKeySettings:
    """One key; several of one name are one caller's, so that a new one can come into use before the old one goes."""

    key: Secret
    name: str = ""
    """In metrics and logs; empty for keys without one."""
    tenants: tuple[str, ...] | None = None
    """The only ones that it is for; None for all."""


NO_KEY = CallerKeySettings(Secret(""))
"""Stands where one was refused, while the others are checked."""


def _caller_key(value: object, info: ValidationInfo) -> CallerKeySettings:
    match value:
        case CallerKeySettings():
            return value
        case {"key": key, **rest}:
            unknown = rest.keys() - {"name", "tenants"}
            if unknown:
                raise ValueError(f"expected no other keys than key, name and tenants (got {len(unknown)} more)")
            return CallerKeySettings(_key(key, info), _name(rest.get("name", "")), _tenants(rest.get("tenants")))
    return CallerKeySettings(_key(value, info))


def _key(value: object, info: ValidationInfo) -> Secret:
    key = secret(value, place_of(info))
    if not _VISIBLE.fullmatch(key.reveal()):
        raise ValueError("expected at least 16 visible ASCII characters, such as openssl rand -hex 16 makes")
    return key


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"name: expected a string (got {kind(value)})")
    if value and not TENANT_NAME.fullmatch(value.encode("utf-8", "replace")):
        # Not shown: the key may stand there.
        raise ValueError("name: expected 1 to 63 lower-case letters, digits, - and _")
    return value


def _tenants(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value or not all(isinstance(name, str) for name in value):
        raise ValueError("tenants: expected a list of tenants' names, at least one")
    for name in value:
        if not TENANT_NAME.fullmatch(name.encode("utf-8", "replace")):
            raise ValueError(f"tenants: expected the name of a tenant (got {quoted(name)})")
    return tuple(value)


_NAME: dict[str, Any] = {"type": "string", "pattern": f"^(?:{TENANT_NAME.pattern.decode()})?$"}
_SCHEMA: dict[str, Any] = {
    "anyOf": [
        *SECRET_SCHEMA["anyOf"],
        {
            "type": "object",
            "properties": {
                "key": SECRET_SCHEMA,
                "name": {**_NAME, "description": "Of the caller, in metrics and logs."},
                "tenants": {
                    "type": "array",
                    "items": _NAME,
                    "minItems": 1,
                    "description": "The only ones that the key is for; without it, all.",
                },
            },
            "required": ["key"],
            "additionalProperties": False,
        },
    ]
}

CallerKey = Annotated[CallerKeySettings, PlainValidator(_caller_key), WithJsonSchema(_SCHEMA)]

"""Where tokens are kept: the values of ``[store]``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from proxy.core.secret import Secret
from proxy.settings.placeholders import whole
from proxy.settings.values import SECRET_SCHEMA, Place, place_of, secret

DEFAULT_FILE = "tokens.db"

_EXPECTED = 'expected "sqlite:FILE", "memory:" or "redis://HOST:PORT/DATABASE"'


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Where tokens are kept; the address of a Redis server may hold its password."""

    kind: Literal["memory", "sqlite", "redis"]
    path: Path | None = None
    """Of the file, absolute."""
    url: Secret | None = None
    chosen: bool = True
    """The configuration names it; otherwise it is the default."""


def default_place(place: Place) -> StorePlace:
    """Where tokens are kept if the configuration does not say."""
    return StorePlace("sqlite", _state_folder(place) / DEFAULT_FILE, chosen=False)


def _state_folder(place: Place) -> Path:
    """The folder that the service manager gives for state (systemd.exec(5)), or else the configuration's own."""
    first = place.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return place.path(first)


def _store(value: object, info: ValidationInfo) -> StorePlace:
    if isinstance(value, StorePlace):
        return value
    place = place_of(info)
    url = secret(value, place)
    scheme, colon, rest = whole(url.reveal()).partition(":")
    match scheme.lower():
        case "memory" if colon and not rest:
            return StorePlace("memory")
        case "sqlite" if rest and not rest.startswith("//"):
            return StorePlace("sqlite", _state_folder(place) / rest)
        case "redis" | "rediss" | "unix" if rest.startswith("//") and _is_address(url.reveal()):
            return StorePlace("redis", url=url)
    # Not shown: it may hold a password.
    raise ValueError(_EXPECTED)


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.port != 0 and bool(parts.path if parts.scheme == "unix" else parts.hostname)
    except ValueError:
        return False


def _encryption_key(value: object, info: ValidationInfo) -> Secret:
    key = secret(value, place_of(info))
    if len(key.reveal()) < 32 or not (key.reveal().isascii() and key.reveal().isprintable()):
        raise ValueError("expected at least 32 printable ASCII characters, such as openssl rand -base64 32 makes")
    return key


StoreUrl = Annotated[StorePlace, PlainValidator(_store), WithJsonSchema(SECRET_SCHEMA)]
EncryptionKey = Annotated[Secret, PlainValidator(_encryption_key), WithJsonSchema(SECRET_SCHEMA)]

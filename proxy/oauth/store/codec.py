"""A record as bytes: JSON, with the shape's number first."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, TypeVar

from proxy.core.lineage import Access, Journal, Lease, Record, Setback, Verdict
from proxy.core.secret import Secret
from proxy.errors import StoreError

SHAPE = 2
PLAIN = 1
"""The shape of a record that leads nowhere else: versions that know of no other write and read it."""

_PARTS = {"access": Access, "lease": Lease, "journal": Journal, "setback": Setback, "verdict": Verdict}
_SECRETS = frozenset({"token"})

T = TypeVar("T")


def encode(record: Record) -> bytes:
    """The record as it is stored; what it does not have is left out."""
    content: dict[str, Any] = {"shape": PLAIN, "generation": record.generation}
    if record.kept_at is not None:
        content |= {"shape": SHAPE, "kept_at": record.kept_at}
    if record.refresh_token is not None:
        content["refresh_token"] = record.refresh_token.reveal()
    if record.seeds:
        content["seeds"] = record.seeds
    if record.organization is not None:
        content["organization"] = record.organization
    for name in _PARTS:
        if (part := getattr(record, name)) is not None:
            content[name] = {field.name: _plain(getattr(part, field.name)) for field in fields(part)}
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def decode(data: bytes) -> Record:
    """The record in stored bytes.

    :raises StoreError: it is none, or of a later version of this program
    """
    try:
        content = json.loads(data)
        if content["shape"] not in (PLAIN, SHAPE):
            raise StoreError("The token store was written by a later version of this program; use that one.")
        refresh_token = content.get("refresh_token")
        parts = {name: _part(kind, content.get(name)) for name, kind in _PARTS.items()}
        return Record(
            refresh_token=None if refresh_token is None else Secret(refresh_token),
            generation=content["generation"],
            seeds=tuple(content.get("seeds", ())),
            organization=content.get("organization"),
            kept_at=content.get("kept_at"),
            **parts,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Without the cause: it may quote what was read.
        raise StoreError("An entry of the token store is not readable; it was not written by this program.") from None


def _plain(value: object) -> object:
    return value.reveal() if isinstance(value, Secret) else value


def _part(kind: type[T], content: dict[str, Any] | None) -> T | None:
    if content is None:
        return None
    return kind(**{name: Secret(value) if name in _SECRETS else value for name, value in content.items()})

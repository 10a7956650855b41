"""What crosses the channel: reports as JSON, which a supervisor reads of its workers, and settings as a pickle."""

from __future__ import annotations

import dataclasses
import io
import pickle
import types
import typing
from array import array
from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, cast

from proxy.core.secret import Secret
from proxy.settings import Settings

T = TypeVar("T")


def pack(value: object) -> Any:
    """A value as JSON can say it; ``unpack`` needs its type to read it.

    Dataclasses are lists of their fields and mappings lists of pairs: both ends run the same version.
    """
    match value:
        case bytes():
            return value.decode("latin-1")
        case Mapping():
            return [[pack(key), pack(inner)] for key, inner in value.items()]
        case list() | tuple() | array():
            return [pack(inner) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            return [pack(getattr(value, name)) for name in _names(cast(Hashable, type(value)))]
    return value


def unpack(kind: type[T], value: Any) -> T:
    """What ``pack`` was given.

    :raises TypeError, ValueError: it is no such value
    """
    return cast(T, _reader(cast(Hashable, kind))(value))


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes a value of this type of a packed one."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (_reader(argument) for argument in arguments if argument is not type(None))
        return lambda value: None if value is None else inner(value)
    if origin in (dict, Mapping):
        key, held = map(_reader, arguments)
        return lambda value: {key(name): held(inner) for name, inner in value}
    if kind is array:
        return lambda value: array("d", value)
    if origin is list or (origin is tuple and arguments[1:] == (...,)):
        item = _reader(arguments[0])
        return lambda value: origin(map(item, value))
    if origin is tuple:
        items = tuple(map(_reader, arguments))
        return lambda value: tuple(read(inner) for read, inner in zip(items, value, strict=True))
    if isinstance(kind, type) and issubclass(kind, tuple):  # a NamedTuple
        members = tuple(_reader(hint) for hint in typing.get_type_hints(kind).values())
        return lambda value: kind(*(read(inner) for read, inner in zip(members, value, strict=True)))
    if kind is bytes:
        return lambda value: value.encode("latin-1")
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(cast(type, kind))
    return lambda value: value


def _dataclass_reader(kind: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    readers = tuple(_reader(hints[name]) for name in _names(kind))
    return lambda value: kind(*(read(inner) for read, inner in zip(readers, value, strict=True)))


def pack_settings(settings: Settings) -> bytes:
    """Settings with their secrets, for a worker's own channel and nothing else."""
    packed = io.BytesIO()
    _Pickler(packed).dump(settings)
    return packed.getvalue()


def unpack_settings(packed: bytes) -> Settings:
    """What ``pack_settings`` was given; for bytes of one's own supervisor alone, since a pickle can do anything."""
    settings: Settings = pickle.loads(packed)  # noqa: S301 - of the process that started this one
    return settings


class _Pickler(pickle.Pickler):
    """Knows the two types that nobody else may, or can, pickle."""

    def reducer_override(self, value: object) -> Any:
        match value:
            case Secret():
                return Secret, (value.reveal(),)
            case MappingProxyType():
                return _read_only, (dict(value),)
        return NotImplemented


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)  # which pickle can't name itself

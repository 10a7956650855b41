"""What is wrong with a configuration, one line each: ``FILE: KEY: what was expected (got …)``."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]
"""Keys and list positions from the top of a file down to a value."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def line(file: str, location: Location, message: str) -> str:
    """One problem as one line, whatever the key and the message hold."""
    where = f"{file}: {dotted(location)}" if location else file
    return " ".join(f"{where}: {message}".splitlines())


def dotted(location: Location) -> str:
    """A location as TOML writes it; a position in a list in brackets, from 0."""
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else json.dumps(part)
            key += f".{name}" if key else name
    return key


def kind(value: object) -> str:
    """What a value is, without the value: it may be a secret in the wrong place."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case dt.date() | dt.time():
            return "a date or time"
    return "something else"


def quoted(text: str, longest: int = 80) -> str:
    """A value that is no secret, for a message: on one line, and not too long."""
    return json.dumps(text if len(text) <= longest else f"{text[: longest - 1]}…", ensure_ascii=False)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` for the nearest of the known names, or nothing."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def expectation(error: ErrorDetails) -> str:
    """One finding of pydantic in the words of a configuration file.

    A value is shown where it is a number out of its range or one of a few words; never another string, which
    may be a secret that stands under the wrong key.
    """
    context: dict[str, Any] = error.get("ctx", {})
    got = kind(error["input"])
    match error["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            shown = quoted(error["input"]) if isinstance(error["input"], str) else got
            return f"expected {context['expected'].replace(chr(39), chr(34))} (got {shown})"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"expected {_bound(context)} (got {_number(error['input'])})"
        case "finite_number":
            return "expected a finite number"
    return f"expected {_EXPECTED.get(error['type'], 'another value')} (got {got})"


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _bound(context: Mapping[str, Any]) -> str:
    for key, words in (("gt", "more than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        if key in context:
            return f"{words} {context[key]:.15g}"
    return "another number"


def _number(value: object) -> str:
    # A number of more than 4,300 digits can't even be printed.
    return f"{value}" if isinstance(value, int | float) and abs(value) < 10**18 else "a very large number"

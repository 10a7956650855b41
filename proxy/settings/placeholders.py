"""``${NAME}``: what shells and Compose fill in, and nothing here does; left in a value, it is always a mistake."""

from __future__ import annotations

import re

USUAL_VARIABLE = re.compile(r"(?:[A-Z]+[0-9]{0,3}|[0-9]{1,3})(?:_(?:[A-Z]+[0-9]{0,3}|[0-9]{1,3}))*")
"""How the names of environment variables are usually spelled, and secrets are not."""

_PLACEHOLDER = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::?[-?+][^}]*)?\}")


def placeholder(text: str) -> str | None:
    """The variable of the ``${NAME}`` that is all of a text; None where it is something else."""
    found = _PLACEHOLDER.fullmatch(text)
    return None if found is None else _told(found)


def filled(text: str) -> str:
    """The text, which is no ``${NAME}``.

    :raises ValueError: it is one
    """
    if (name := placeholder(text)) is not None:
        raise ValueError(f"expected the text itself: nothing fills in ${{{name}}} here")
    return text


def whole(address: str) -> str:
    """The address, which may hold a password; there is no ``${NAME}`` anywhere in it.

    :raises ValueError: there is one
    """
    if (found := _PLACEHOLDER.search(address)) is not None:
        expected = 'the whole address, for instance as { env = "…" }'
        raise ValueError(f"expected {expected}: nothing fills in ${{{_told(found)}}} here")
    return address


def _told(found: re.Match[str]) -> str:
    """The variable's name, or NAME unless it is spelled like one: it may be the secret itself."""
    return found["name"] if USUAL_VARIABLE.fullmatch(found["name"]) else "NAME"

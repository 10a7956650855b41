"""A text that no repr, log, comparison or pickle gives away."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """A client secret, a key or a token; ``reveal`` is the only way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        """Takes the same time wherever two texts of one length differ."""
        if not isinstance(other, Secret):
            return NotImplemented
        # surrogatepass: an environment variable that is not UTF-8 arrives with lone surrogates (PEP 383).
        mine, theirs = (secret._text.encode("utf-8", "surrogatepass") for secret in (self, other))
        return hmac.compare_digest(mine, theirs)

    def __hash__(self) -> NoReturn:
        # A set or a dict would find a secret by its hash, and its time would tell of the text.
        raise TypeError("a secret is not hashable")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")

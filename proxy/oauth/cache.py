"""The tokens that outlive their sources, as at a reload: bounded, each kept for as long as it lives."""

from __future__ import annotations

from cachetools import TLRUCache

from proxy.core.tokens import Token, age
from proxy.oauth.clock import Clock


class TokenCache:
    """Tokens by ``core.grants.Client.key``; what is expired or least used goes first.

    A token that is dropped is asked for again, so the bound costs a token request and never an answer.

    :param size: the most tokens kept
    """

    def __init__(self, clock: Clock, size: int = 65_536) -> None:
        self._clock = clock
        self._tokens: TLRUCache[str, Token] = TLRUCache(size, self._time_to_use, timer=self._now)

    def _now(self) -> float:
        return self._clock().elapsed

    def _time_to_use(self, _key: str, token: Token, now: float) -> float:
        # The token's age may be larger by the wall clock; what is left counts from now.
        return now + token.lifetime - age(token, self._clock())

    def get(self, key: str) -> Token | None:
        return self._tokens.get(key)

    def put(self, key: str, token: Token) -> None:
        self._tokens[key] = token

    def discard(self, key: str) -> None:
        self._tokens.pop(key, None)

    def __len__(self) -> int:
        return len(self._tokens)

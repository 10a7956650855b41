"""How requests are spread over several tokens, each with a rate limit of its own."""

from __future__ import annotations

from dataclasses import dataclass

ALLOWED = 300
"""Requests a minute that Genesys Cloud allows each token, until its answers say otherwise."""

MINUTE = 60.0
"""Seconds after which a token's requests are counted anew."""


@dataclass(slots=True)
class Share:
    """One token's part: what is left of its limit, as far as is known here. Times are seconds on one clock."""

    allowed: int = ALLOWED
    left: int = ALLOWED
    """Counted down with each request that is sent; answers, which come later, put it right."""
    renewed_at: float = 0.0
    """When all is left again, once ``now`` is past it."""

    def available(self, now: float) -> int:
        """Requests that are left; negative where more were sent than are allowed."""
        if now >= self.renewed_at:
            self.left, self.renewed_at = self.allowed, now + MINUTE
        return self.left

    def hear(self, said: tuple[bytes, bytes, bytes], now: float) -> None:
        """Takes what an answer said, ``inin-ratelimit-allowed``, ``-count``, ``-reset``; nonsense changes nothing."""
        if all(number.isdigit() and len(number) < 7 for number in said):
            self.allowed, count, reset = map(int, said)
            self.left, self.renewed_at = self.allowed - count, now + reset

    def exhaust(self, seconds: float, now: float) -> None:
        """Notes that the limit was met: nothing is left for so long."""
        self.left, self.renewed_at = min(self.left, 0), max(self.renewed_at, now + seconds)

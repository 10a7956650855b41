"""Rate limits: how many calls a token, or an org, has left in the current window."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(slots=True)
class RateWindow:
    """Counts calls in windows of ``length`` seconds, each of which begins with a call."""

    limit: int | None
    """None: no limit."""
    length: float = 60
    count: int = 0
    started: float = float("-inf")

    def take(self, now: float) -> bool:
        """One call at ``now``: True if it is within the limit; one that isn't does not count."""
        if now >= self.started + self.length:
            self.started = now
            self.count = 0
        if self.limit is not None and self.count >= self.limit:
            return False
        self.count += 1
        return True

    def spent(self, now: float) -> tuple[int, int]:
        """Calls that count at ``now``, and whole seconds until none of them does any more, rounded up."""
        if now >= self.started + self.length:
            return 0, ceil(self.length)
        return self.count, ceil(self.started + self.length - now)

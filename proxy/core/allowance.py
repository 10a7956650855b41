"""How often somebody may do what costs others something: some times in a row, and then at a steady pace."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Allowance:
    """``most`` times in ``seconds``, in a row if need be; what was used comes back evenly."""

    most: int
    seconds: float
    _whole_at: float = -math.inf

    def take(self, now: float) -> float:
        """Uses it once: 0; or, where it is used up, uses nothing: the seconds until it is not."""
        whole_at = max(self._whole_at, now) + self.seconds / self.most
        if (wait := whole_at - now - self.seconds) > 0:
            return wait
        self._whole_at = whole_at
        return 0.0

"""How long to leave alone what failed: a token endpoint, or a process that does not live."""

from __future__ import annotations

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds; recovery is noticed within this, at two requests a minute for each tenant that is called."""

FIRST_REFUSAL = 10.0
LONGEST_REFUSAL = 60.0
"""Seconds for which an answer that asking again does not mend (``invalid_client``) is given from memory."""

LONGEST_RETRY_AFTER = 300.0
"""Seconds; a ``Retry-After`` beyond it is not believed."""


def pause(failures: int, *, final: bool, retry_after: float | None, jitter: float) -> float:
    """Seconds until the next token request: doubling with each failure in a row, jittered, capped.

    :param failures: in a row, this one included; at least 1
    :param final: the endpoint refused us, rather than being down or busy
    :param retry_after: what the endpoint asked for (RFC 9110 10.2.3); never undercut
    :param jitter: in [0, 1); shortens the pause by up to a quarter
    """
    first, longest = (FIRST_REFUSAL, LONGEST_REFUSAL) if final else (FIRST_PAUSE, LONGEST_PAUSE)
    doubled = min(longest, first * 2.0 ** min(failures - 1, 16)) * (1 - jitter / 4)
    return max(doubled, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


STEADY = 10.0
"""Seconds after which a process that ends has not failed to start."""

LONGEST_GAP = 1.0
"""Seconds without a process that did serve before it died: what kills it is not its start, and clients wait."""


def restart_pause(deaths: int, *, served: bool) -> float:
    """Seconds until a process that died is replaced: at once the first time, then doubling, capped.

    :param deaths: in a row, each within ``STEADY`` seconds of its start, this one included; at least 1
    :param served: it had got so far as to serve
    """
    longest = LONGEST_GAP if served else LONGEST_PAUSE
    return 0.0 if deaths == 1 else min(longest, FIRST_PAUSE * 2.0 ** min(deaths - 2, 16))

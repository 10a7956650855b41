"""Whether a request that was refused is sent once more: with another token, or after a while."""

from __future__ import annotations

from enum import StrEnum

COOL_DOWN = 5.0
"""Seconds in which refusals are passed on after a brand-new token was refused: the token is not the cause,
and seconds, not minutes, because a real revocation in that time must heal soon."""


class Verdict(StrEnum):
    """What to do with the upstream's answer."""

    PASS = "pass"
    """Give it to the client as it is."""
    REPLAY = "replay"
    """Throw the token away and send the request once more."""
    REFUSED_AGAIN = "refused"
    """A replay was refused as well: give it to the client, and begin a cool-down."""
    TOO_LONG = "body_too_long"
    """The token is thrown away, but the body is no longer there to be sent again: give it to the client."""
    COOLING_DOWN = "cooling_down"
    """Refused while cooling down: give it to the client, keep the token."""
    NO_NEWER = "no_newer_token"
    """There is no other token to send it with: pass it on to a guest, whose own it is; others are told that."""


def decide(*, replayed: bool, body_kept: bool, cooling_down: bool) -> Verdict:
    """The verdict on a 401 to a request that carried our token; a caller's own token is the caller's affair.

    :param replayed: this answers the second attempt
    :param body_kept: all of the body that was sent is still here
    :param cooling_down: a brand-new token was refused within the last ``COOL_DOWN`` seconds
    """
    if replayed:
        return Verdict.REFUSED_AGAIN
    if cooling_down:
        return Verdict.COOLING_DOWN
    return Verdict.REPLAY if body_kept else Verdict.TOO_LONG


def pause(
    retry_after: bytes | None, *, body_kept: bool, waited: float, longest: float, patience: float
) -> float | None:
    """Seconds after which a request that met a rate limit (429) is sent again; None: the client is told.

    An upstream that does not say how long, or says it with a date, is not waited for: the waits that are meant here
    are shorter than clocks differ.

    :param retry_after: the field's value, in seconds (RFC 9110 10.2.3)
    :param body_kept: all of the body that was sent is still here
    :param waited: seconds that this request has been made to wait already
    :param longest: seconds that a request may be made to wait in all, ``limits.retry_after_max``
    :param patience: seconds that are left to begin its answer
    """
    wait = seconds(retry_after)
    if longest == 0 or not body_kept or wait is None:
        return None
    return wait if waited + wait <= longest and wait < patience else None


def seconds(retry_after: bytes | None) -> float | None:
    """What ``Retry-After`` says, None for a date; at least 1, so that an upstream that says 0 ends all waiting too."""
    if retry_after is None or not retry_after.isdigit() or len(retry_after) > 6:
        return None
    return max(1.0, float(retry_after))

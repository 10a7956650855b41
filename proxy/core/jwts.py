"""What is read of tokens that are JWTs (RFC 7519); their signatures are for others to verify."""

from __future__ import annotations

import math


def expiry(token: str) -> float | None:
    """The ``exp`` of a token that is a JWT (RFC 7519 4.1.4), Unix time; None for any other.

    Nothing is verified, so it opens no door: it only decides how soon another token is asked for.
    """
    if token.count(".") != 2:
        return None
    import jwt  # only guests' and other issuers' tokens are JWTs; the import is dear at start

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        found = claims.get("exp")
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            return None
        return float(found)
    except (jwt.PyJWTError, ValueError, OverflowError):
        return None

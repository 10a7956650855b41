"""What can be chosen when a sandbox starts."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.errors import ConfigurationError
from proxy.sandbox.orgs import DEFAULT_ORGS, Org


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Lifetimes are seconds and may be fractions; the defaults are Genesys Cloud's.

    :raises ConfigurationError: a value that the sandbox can't play
    """

    orgs: tuple[Org, ...] = DEFAULT_ORGS
    token_lifetime: float = 86_400
    idle_timeout: float | None = None
    """A token that nobody uses for so long is refused."""
    jwt_tokens: bool = False
    """Access tokens are JWTs with ``iat`` and ``exp``, not opaque strings."""
    rotate_refresh_tokens: bool = True
    """Each refresh brings a new refresh token; the old one's reuse revokes all that came of that login."""
    rate_limit: int | None = 300
    """API calls for each token and ``rate_window``; None: no limit, and no ``inin-ratelimit`` fields."""
    org_rate_limit: int | None = 3_000
    rate_window: float = 60
    guest_token_lifetime: float = 900
    guest_refresh_lifetime: float = 86_400
    allowed_origins: tuple[str, ...] = ()
    """Origins that may open a web messaging socket; empty: all."""

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected a number greater than 0, got {value:g}"
            for name, value in self._positive()
            if value is not None and not value > 0
        ]
        if not self.orgs:
            problems.append("orgs: expected at least one")
        if problems:
            raise ConfigurationError(problems)

    def _positive(self) -> list[tuple[str, float | None]]:
        return [
            ("token_lifetime", self.token_lifetime),
            ("idle_timeout", self.idle_timeout),
            ("rate_limit", self.rate_limit),
            ("org_rate_limit", self.org_rate_limit),
            ("rate_window", self.rate_window),
            ("guest_token_lifetime", self.guest_token_lifetime),
            ("guest_refresh_lifetime", self.guest_refresh_lifetime),
        ]

"""What the data plane needs of a tenant, and of the token plane behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy.core.access import Callers, Policy
from proxy.core.report import Tally
from proxy.core.tokens import Token
from proxy.wire.upstream import Upstream


class Tokens(Protocol):
    """A tenant's tokens, as ``oauth.source.TokenSource`` and ``oauth.pool.TokenPool`` give them."""

    def current(self) -> Token | None:
        """The token if it can be used without waiting."""

    async def token(self, patience: float) -> Token:
        """A usable token within ``patience`` seconds; a rejected one, if that lives and there is no newer one.

        :raises TokenError: there is none
        """

    async def instead_of(self, refused: Token, patience: float) -> Token:
        """Another token than one that the upstream refused; of a guest the same, where there is no other.

        :raises TokenError: there is none within ``patience`` seconds
        """

    def reject(self, token: Token) -> None:
        """Takes this token out of use, and no newer one."""

    @property
    def cooling_down(self) -> bool:
        """There is no use in rejecting a token just now."""

    def cool_down(self) -> None:
        """Notes that a brand-new token was refused."""

    def seconds_left(self, token: Token) -> float:
        """Until the token expires."""


class Pool(Protocol):
    """What is special of several tokens, as ``oauth.pool.TokenPool`` keeps them."""

    def heard(self, token: Token, said: tuple[bytes, bytes, bytes]) -> None:
        """Takes what an answer said of this token's rate limit: allowed, count and reset, as they came."""

    def limited(self, token: Token, seconds: float) -> bool:
        """Notes that this token's rate limit was met for so long; whether another token can be used now."""


class Guests(Protocol):
    """A tenant's web messaging guests, as ``oauth.guests.Guests`` keeps them."""

    def find(self, credential: bytes | None) -> Tokens | None:
        """The tokens of the guest who shows this ``Authorization``, where they are known."""

    def learn(self, jwt: str, refresh_token: str, server_time: float | None) -> None:
        """Remembers a JWT that a guest was given."""

    def forget(self, credential: bytes | None) -> None:
        """Forgets the guest who shows this ``Authorization``."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One org as the data plane sees it."""

    name: str
    tokens: Tokens
    pool: Pool | None
    """The same, where there are several."""
    guests: Guests | None
    """None: guests' tokens pass as they are (``guest_refresh``)."""
    tally: Tally
    api: Upstream
    login: Upstream
    webmessaging: Upstream
    cdn: Upstream
    policy: Policy
    most_at_once: int
    """Requests under way at the same time."""
    fill: bool
    """``authorization = "fill"``: a caller's own real bearer token is kept."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a request may be, as far as its head tells."""

    longest_line: int
    """Bytes of the request line."""
    most_fields: int
    longest_body: int


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything a request is judged and routed by; replaced whole at a reload."""

    callers: Callers
    tenants: Mapping[bytes, Tenant]
    default_tenant: bytes | None
    tenant_header: bytes
    """In lower case."""
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class Timing:
    """Limits of one exchange, in seconds where they are not bytes."""

    request_timeout: float
    idle_timeout: float
    body_timeout: float
    """That a client has for a body, and one more for each ``LEAST_RATE`` bytes of it."""
    tunnel_idle_timeout: float
    retry_after_max: float
    replay_buffer: int
    """Bytes."""
    max_header_bytes: int
    longest_body: int
    """Bytes."""

"""The orgs, OAuth clients and deployments that the sandbox plays, and the two that it starts with."""

from __future__ import annotations

from dataclasses import dataclass, field

CLIENT_CREDENTIALS = "client_credentials"
AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"
SAML2_BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GRANTS = frozenset({CLIENT_CREDENTIALS, AUTHORIZATION_CODE, REFRESH_TOKEN, SAML2_BEARER, JWT_BEARER})
USER_GRANTS = frozenset({AUTHORIZATION_CODE, REFRESH_TOKEN, SAML2_BEARER})
"""Their tokens act for a person, so that ``/api/v2/users/me`` answers."""

ACME_ORG_ID = "00000000-0000-4000-8000-0000000000a1"
ACME_CLIENT_ID = "acme-sandbox-client"
ACME_CLIENT_SECRET = "acme-sandbox-secret"
ACME_PUBLIC_CLIENT_ID = "acme-sandbox-public-client"
ACME_REFRESH_TOKEN = "acme-sandbox-refresh-token"
ACME_DEPLOYMENT_ID = "00000000-0000-4000-8000-0000000000ad"

GLOBEX_ORG_ID = "00000000-0000-4000-8000-0000000000b1"
GLOBEX_CLIENT_ID = "globex-sandbox-client"
GLOBEX_CLIENT_SECRET = "globex-sandbox-secret"
GLOBEX_PUBLIC_CLIENT_ID = "globex-sandbox-public-client"
GLOBEX_REFRESH_TOKEN = "globex-sandbox-refresh-token"
GLOBEX_DEPLOYMENT_ID = "00000000-0000-4000-8000-0000000000bd"


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client of one org."""

    id: str
    secret: str | None = field(default=None, repr=False)
    """None: a public client, which shows no secret and must use PKCE (RFC 7636)."""
    grants: frozenset[str] = GRANTS
    scope: tuple[str, ...] | None = None
    """All that its tokens can have; None: whatever is asked for."""
    redirect_uris: tuple[str, ...] = ()
    """Beside loopback ones, which are always accepted, on any port (RFC 8252 7.3)."""
    refresh_token: str | None = field(default=None, repr=False)
    """A first refresh token, known from the start."""


@dataclass(frozen=True, slots=True)
class Org:
    """One Genesys Cloud org."""

    id: str
    name: str
    clients: tuple[Client, ...]
    deployments: tuple[str, ...] = ()


ACME = Org(
    id=ACME_ORG_ID,
    name="acme",
    clients=(
        Client(ACME_CLIENT_ID, ACME_CLIENT_SECRET, refresh_token=ACME_REFRESH_TOKEN),
        Client(ACME_PUBLIC_CLIENT_ID, grants=frozenset({AUTHORIZATION_CODE, REFRESH_TOKEN})),
    ),
    deployments=(ACME_DEPLOYMENT_ID,),
)
GLOBEX = Org(
    id=GLOBEX_ORG_ID,
    name="globex",
    clients=(
        Client(GLOBEX_CLIENT_ID, GLOBEX_CLIENT_SECRET, refresh_token=GLOBEX_REFRESH_TOKEN),
        Client(GLOBEX_PUBLIC_CLIENT_ID, grants=frozenset({AUTHORIZATION_CODE, REFRESH_TOKEN})),
    ),
    deployments=(GLOBEX_DEPLOYMENT_ID,),
)
DEFAULT_ORGS = (ACME, GLOBEX)

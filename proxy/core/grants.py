"""OAuth clients and their token requests (RFC 6749, RFC 7521), as plain values."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote_plus, urlencode, urlsplit

from proxy.core.lineage import digest
from proxy.core.secret import Secret

ASSERTION_LIFETIME = 120.0
"""Seconds that an assertion signed here is valid: it is used at once, and clocks differ."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key that a client signs assertions with (RFC 7523)."""

    pem: Secret
    algorithm: str
    """As RFC 7518 3.1 and RFC 8037 call it."""
    key_id: str | None = None
    """``kid`` (RFC 7515 4.1.4), where the server knows several keys of this client."""


@dataclass(frozen=True, slots=True)
class AssertionFile:
    """Where an assertion is found that somebody else renews: read for every token request."""

    path: str


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client of one org, and how it asks for a token: everything that makes a token what it is."""

    tenant: str
    """It makes a token another one only where a login's refresh token is kept under it; else it is for messages."""
    org_id: str | None = field(default=None, kw_only=True)
    """The organization that the token must belong to."""
    api_url: str = field(default="", kw_only=True)
    """Of the API that tells whose the token is, and has no part in what it is."""
    token_url: str
    client_id: str
    client_secret: Secret | None = None
    client_auth: str = "client_secret_basic"
    grant: str = "client_credentials"
    refresh_token: Secret | None = None
    """The first one, for the grant ``refresh_token``; those that came after it live in the store."""
    fallback_grant: str | None = None
    signing_key: SigningKey | None = None
    assertion: Secret | AssertionFile | None = None
    """Issued by somebody else, for the grants ``saml2_bearer`` and ``jwt_bearer``; None: signed here."""
    subject: str | None = None
    """Whom an assertion that is signed here speaks for (RFC 7523 3)."""
    audience: str | None = None
    """Whom assertions that are signed here are meant for; None: the token URL."""
    scope: tuple[str, ...] = ()
    resource_server: str | None = None
    parameters: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    member: int = 0
    """Of a pool of tokens that are asked for in the same way; 0 is the first."""
    key: str = field(init=False, repr=False)
    """A digest of all that makes a token what it is, so that no change of it is ever served an old token."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self._digest())

    def _digest(self) -> str:
        secrets = [self.client_secret, self.refresh_token]
        secrets.append(None if self.signing_key is None else self.signing_key.pem)
        secrets.append(self.assertion if isinstance(self.assertion, Secret) else None)
        parts: list[object] = [
            self.org_id,
            self.token_url,
            self.client_id,
            *map(_digest, secrets),
            self.client_auth,
            self.grant,
        ]
        parts += [self.fallback_grant, self.subject, self.audience, self.scope, self.resource_server]
        parts.append(None if self.signing_key is None else [self.signing_key.algorithm, self.signing_key.key_id])
        parts.append(self.assertion.path if isinstance(self.assertion, AssertionFile) else None)
        parts.append(self.tenant if self.grant == "refresh_token" and self.refresh_token is None else None)
        parts += [sorted(self.parameters.items()), sorted(self.headers.items())]
        parts += [self.member] if self.member else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def login(self) -> str:
        """The authority of the token endpoint, which many tenants share."""
        return urlsplit(self.token_url).netloc

    @property
    def repeatable(self) -> bool:
        """A request whose answer is lost can be made again: it uses nothing up.

        What is signed here is signed anew for each; an assertion of somebody else's, a server may take once
        (RFC 7522 3, RFC 7523 3).
        """
        return self.grant == "client_credentials" or (self.grant == "jwt_bearer" and self.assertion is None)

    @property
    def line(self) -> str:
        """The key of the store under which this client's tokens begin: of a configured refresh token, by what stays
        whatever the tenant is called; else of a login's, by the tenant. ``oauth.home`` tells where they go on.

        A digest, in the clear like every key of a store. It gives no refresh token away: nobody can guess one (RFC
        6749 10.10: with a probability of 2^-128 at most), so that nobody finds it by its digest.
        """
        if self.grant != "refresh_token":
            return self.key
        if self.refresh_token is None:
            return self.named
        return _name("refresh_token", digest(self.refresh_token), self.token_url, self.client_id)

    @property
    def named(self) -> str:
        """The key of what the tenant's name stands for, where that has refresh tokens."""
        return _name(self.tenant, self.token_url, self.client_id)

    @property
    def logins(self) -> str:
        """The key of the line of logins under the tenant's name, where that name has had a refresh token as well."""
        return _name("login", self.tenant, self.token_url, self.client_id)

    def is_another_proof_of(self, other: Client) -> bool:
        """Whether they differ in nothing but how the client proves who it is: its tokens are as good as before."""
        one, two = (replace(client, client_secret=None, signing_key=None, client_auth="") for client in (self, other))
        return one == two

    @property
    def fallback(self) -> Client | None:
        """The client to ask with once the refresh grant has ended in ``invalid_grant``."""
        if self.fallback_grant is None:
            return None
        return replace(self, grant=self.fallback_grant, refresh_token=None, fallback_grant=None)


def _name(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest(secret: Secret | None) -> str | None:
    return None if secret is None else hashlib.sha256(secret.reveal().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code, and what proves that it was asked for here (RFC 6749 4.1.3, RFC 7636 4.5)."""

    value: Secret
    redirect_uri: str
    verifier: Secret


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one token request shows beside what is configured; made or read for it alone."""

    client_assertion: str | None = field(default=None, repr=False)
    """Proves who the client is (RFC 7523 2.2)."""
    assertion: str | None = field(default=None, repr=False)
    """The grant (RFC 7522 2.1, RFC 7523 2.1)."""
    refresh_token: Secret | None = None
    """The grant (RFC 6749 6)."""
    code: Code | None = None
    """The grant (RFC 6749 4.1.3)."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One POST to a token endpoint."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def token_request(client: Client, evidence: Evidence = Evidence()) -> TokenRequest:
    """The request that asks for a client's token (RFC 6749 4.1.3, 4.4.2 and 6, RFC 7521 4.1)."""
    form = _grant(client, evidence)
    if client.scope and client.grant != "authorization_code":  # it was asked for at the login page
        form.append(("scope", " ".join(client.scope)))
    if client.resource_server is not None:
        form.append(("resourceServer", client.resource_server))
    for name, value in client.parameters.items():
        form.extend((name, item) for item in ([value] if isinstance(value, str) else value))
    headers = dict(client.headers)
    if client.resource_server is not None:
        headers["resource_server"] = client.resource_server
    if client.client_auth == "client_secret_basic":
        headers["Authorization"] = _basic(client)
    else:
        form += _client_parameters(client, evidence)
    headers["Accept"] = "application/json"
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    return TokenRequest(client.token_url, headers, urlencode(form).encode("ascii"))


def _grant(client: Client, evidence: Evidence) -> list[tuple[str, str]]:
    match client.grant:
        case "authorization_code":
            code = evidence.code
            assert code is not None, "no code grant without a code"
            return [
                ("grant_type", client.grant),
                ("code", code.value.reveal()),
                ("redirect_uri", code.redirect_uri),
                ("code_verifier", code.verifier.reveal()),
            ]
        case "refresh_token":
            assert evidence.refresh_token is not None, "no refresh grant without a refresh token"
            return [("grant_type", client.grant), ("refresh_token", evidence.refresh_token.reveal())]
        case "saml2_bearer" | "jwt_bearer":
            assert evidence.assertion is not None, "no assertion grant without an assertion"
            urn = f"urn:ietf:params:oauth:grant-type:{client.grant.replace('_', '-')}"
            return [("grant_type", urn), ("assertion", evidence.assertion)]
    return [("grant_type", client.grant)]


def _basic(client: Client) -> str:
    """Id and secret as RFC 6749 2.3.1 joins them."""
    assert client.client_secret is not None, "no Basic authentication without a secret"
    # Both are form-encoded first, or a colon in the id would move the border between them.
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret.reveal())}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _client_parameters(client: Client, evidence: Evidence) -> list[tuple[str, str]]:
    """The client and what proves it, in the form (RFC 6749 2.3.1, RFC 7523 2.2)."""
    named = [("client_id", client.client_id)]
    match client.client_auth:
        case "client_secret_post":
            assert client.client_secret is not None, "no client authentication without a secret"
            return [*named, ("client_secret", client.client_secret.reveal())]
        case "private_key_jwt":
            assert evidence.client_assertion is not None, "no private_key_jwt without an assertion"
            return [
                *named,
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", evidence.client_assertion),
            ]
    return named


def claims(client: Client, subject: str, now: float, token_id: str) -> dict[str, object]:
    """What an assertion that the client signs says (RFC 7523 3).

    :param now: Unix time
    :param token_id: ``jti``; a server takes each once
    """
    return {
        "iss": client.client_id,
        "sub": subject,
        "aud": client.audience or client.token_url,
        "iat": int(now),
        "exp": int(now + ASSERTION_LIFETIME),
        "jti": token_id,
    }

"""The token endpoint's decisions: which grant brings which token (RFC 6749 4, RFC 7523, RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from proxy.sandbox.clients import OAuthError, TokenRequest, authenticate, find_client, read_jwt
from proxy.sandbox.ledger import Ledger
from proxy.sandbox.options import SandboxOptions
from proxy.sandbox.orgs import (
    AUTHORIZATION_CODE,
    GRANTS,
    JWT_BEARER,
    SAML2_BEARER,
    Client,
    Org,
)
from proxy.sandbox.tokens import CODE_LIFETIME, Code, Family, IssuedToken, TokenBook


@dataclass(frozen=True, slots=True)
class Granted:
    """A success: the access token, and a refresh token where the grant brings one."""

    token: IssuedToken
    refresh_token: str | None = None


class Grants:
    """Gives out tokens and codes; keeps no clock, reads no request and sends nothing."""

    def __init__(self, options: SandboxOptions, book: TokenBook, ledger: Ledger) -> None:
        self._options = options
        self._book = book
        self._ledger = ledger
        for org in options.orgs:
            for client in org.clients:
                if client.refresh_token is not None:
                    self.login(client, org, refresh_token=client.refresh_token)

    def login(self, client: Client, org: Org, *, refresh_token: str | None = None) -> Family:
        """As if a person of this org had logged in with this client."""
        return self._book.login(client, org, org, client.scope or (), refresh_token)

    def token(self, request: TokenRequest, now: float) -> Granted:
        """The token for a request.

        :raises OAuthError: there is none
        """
        client, org = authenticate(request, self._options.orgs, now)
        if request.grant not in client.grants and request.grant in GRANTS:
            raise OAuthError("unauthorized_client", "the client is not configured for this grant")
        match request.grant:
            case "client_credentials":
                if client.secret is None:
                    raise OAuthError("unauthorized_client", "a public client has no credentials")
                return self._plain(request, client, org, now)
            case "authorization_code":
                return self._code(request, client, now)
            case "refresh_token":
                return self._refresh(request, client, now)
            case g if g == SAML2_BEARER:
                return self._saml(request, client, org, now)
            case g if g == JWT_BEARER:
                return self._jwt(request, client, org, now)
            case _:
                raise OAuthError("unsupported_grant_type", "the grant type is not supported")

    def _plain(self, request: TokenRequest, client: Client, org: Org, now: float) -> Granted:
        scope = _scope(client, request.scope)
        return Granted(self._book.issue(client, org, grant=request.grant, scope=scope, now=now))

    def _code(self, request: TokenRequest, client: Client, now: float) -> Granted:
        code = self._book.code(_required(request, "code"))
        if code is None or code.client is not client or now >= code.expires_at:
            raise OAuthError("invalid_grant", "the authorization code is not valid")
        if code.family is not None:
            # RFC 6749 4.1.2: a code used twice has leaked, and so have the tokens it brought.
            self._ledger.tokens_revoked += self._book.revoke_family(code.family, now)
            raise OAuthError("invalid_grant", "the authorization code was used before")
        if request.parameters.get("redirect_uri", "") != code.redirect_uri:
            raise OAuthError("invalid_grant", "redirect_uri is not the one of the authorization request")
        if code.challenge is not None and code.challenge != s256(_required(request, "code_verifier")):
            raise OAuthError("invalid_grant", "the code verifier does not match")
        code.family = self._book.login(client, code.home, code.org, code.scope)
        return self._of_family(code.family, request.grant, code.scope, now, refresh_token=code.family.current)

    def _refresh(self, request: TokenRequest, client: Client, now: float) -> Granted:
        value = _required(request, "refresh_token")
        family = self._book.family(value)
        if family is None or family.client is not client:
            raise OAuthError("invalid_grant", "the refresh token is not valid")
        if value != family.current:
            # RFC 9700 4.14.2: either of the two who showed it may be the thief.
            self._ledger.refresh_token_reuses += 1
            self._ledger.tokens_revoked += self._book.revoke_family(family, now)
            raise OAuthError("invalid_grant", "the refresh token was used before")
        if family.revoked:
            raise OAuthError("invalid_grant", "the refresh token was revoked")
        scope = request.scope or family.scope
        if family.scope and not set(scope) <= set(family.scope):
            raise OAuthError("invalid_scope", "the scope exceeds the one that was granted")
        successor = self._book.rotate(family) if self._options.rotate_refresh_tokens else None
        return self._of_family(family, request.grant, scope, now, refresh_token=successor)

    def _of_family(
        self, family: Family, grant: str, scope: tuple[str, ...], now: float, *, refresh_token: str | None
    ) -> Granted:
        token = self._book.issue(
            family.client, family.home, org=family.org, family=family, grant=grant, scope=scope, now=now
        )
        return Granted(token, refresh_token)

    def _saml(self, request: TokenRequest, client: Client, org: Org, now: float) -> Granted:
        _required(request, "assertion")
        if _required(request, "orgName") != org.name:
            raise OAuthError("invalid_grant", "orgName is not the org of the client")
        return self._plain(request, client, org, now)

    def _jwt(self, request: TokenRequest, client: Client, org: Org, now: float) -> Granted:
        expires_at = read_jwt(_required(request, "assertion")).get("exp")
        if not isinstance(expires_at, int | float) or now >= expires_at:
            raise OAuthError("invalid_grant", "the assertion is no JWT, or has expired")
        return self._plain(request, client, org, now)

    def asking_client(self, query: Mapping[str, str]) -> tuple[Client, Org]:
        """The client of an authorization request (RFC 6749 4.1.1).

        :raises OAuthError: unknown client or redirect URI; must not be redirected there (RFC 6749 4.1.2.1)
        """
        client, home = find_client(self._options.orgs, query.get("client_id", ""))
        redirect_uri = query.get("redirect_uri", "")
        if redirect_uri not in client.redirect_uris and not _is_loopback(redirect_uri):
            raise OAuthError("invalid_request", "redirect_uri is not registered")
        return client, home

    def authorize(self, query: Mapping[str, str], client: Client, home: Org, now: float) -> str:
        """The code for an authorization request that somebody has consented to.

        :raises OAuthError: to be told to the client by redirection
        """
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "only response_type=code is supported")
        if AUTHORIZATION_CODE not in client.grants:
            raise OAuthError("unauthorized_client", "the client is not configured for this grant")
        challenge = query.get("code_challenge")
        if challenge is None and client.secret is None:  # RFC 7636 4.4.1
            raise OAuthError("invalid_request", "a public client must send a code challenge")
        if challenge is not None and query.get("code_challenge_method") != "S256":
            raise OAuthError("invalid_request", "code_challenge_method must be S256")
        org = self._trustor(query.get("target"), home)
        scope = _scope(client, tuple(query.get("scope", "").split()))
        code = Code(client, home, org, scope, query["redirect_uri"], challenge, now + CODE_LIFETIME)
        return self._book.add_code(code)

    def _trustor(self, org_id: str | None, home: Org) -> Org:
        if org_id is None:
            return home
        for org in self._options.orgs:
            if org.id == org_id:
                return org
        raise OAuthError("access_denied", "the target org does not trust this one")


def s256(verifier: str) -> str:
    """The code challenge of a code verifier (RFC 7636 4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _scope(client: Client, asked: tuple[str, ...]) -> tuple[str, ...]:
    if client.scope is None:
        return asked
    return tuple(s for s in asked if s in client.scope) if asked else client.scope


def _required(request: TokenRequest, name: str) -> str:
    value = request.parameters.get(name, "")
    if not value:
        raise OAuthError("invalid_request", f"{name} is missing")
    return value


def _is_loopback(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        return parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False

"""Reads a token request and finds out which client sends it (RFC 6749 2.3 and 3.2)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus

import jwt

from proxy.sandbox.orgs import Client, Org

CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECRET_PARAMETERS = frozenset(
    {"client_secret", "client_assertion", "code", "code_verifier", "refresh_token", "assertion", "password"}
)
"""Never recorded."""
_OWN_PARAMETERS = frozenset({"grant_type", "client_id", "scope", "resourceServer", "client_assertion_type"})


class OAuthError(Exception):
    """A refusal by the token endpoint (RFC 6749 5.2)."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status

    def body(self) -> dict[str, str]:
        """Genesys Cloud says the description twice."""
        return {
            "error": self.error,
            "description": self.description,
            "error_description": self.description,
        }


def client_not_found() -> OAuthError:
    """What a client gets in a region that is not its org's."""
    return OAuthError("invalid_client", "client not found")


def authentication_failed() -> OAuthError:
    return OAuthError("invalid_client", "authentication failed", status=401)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token request as it was sent; nothing in it has been verified."""

    grant: str
    client_id: str
    client_auth: str
    client_secret: str | None = field(repr=False)
    parameters: dict[str, str] = field(repr=False)

    @property
    def scope(self) -> tuple[str, ...]:
        return tuple(self.parameters.get("scope", "").split())

    def shown(self) -> dict[str, str]:
        """The further parameters, without anything secret."""
        hidden = SECRET_PARAMETERS | _OWN_PARAMETERS
        return {name: value for name, value in self.parameters.items() if name not in hidden}


def read_token_request(body: bytes, content_type: str, authorization: list[str]) -> TokenRequest:
    """Take a token request apart.

    :param authorization: the values of all Authorization fields
    :raises OAuthError: it breaks RFC 6749 or shows two kinds of client authentication
    """
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "the content type must be application/x-www-form-urlencoded")
    parameters = _form(body)
    if len(authorization) > 1:
        raise OAuthError("invalid_request", "more than one Authorization field")
    client_id, client_secret, client_auth = _client_authentication(parameters, authorization)
    grant = parameters.get("grant_type", "")
    if not grant:
        raise OAuthError("invalid_request", "grant_type is missing")
    return TokenRequest(grant, client_id, client_auth, client_secret, parameters)


def _form(body: bytes) -> dict[str, str]:
    parameters: dict[str, str] = {}
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:  # UnicodeDecodeError is one
        raise OAuthError("invalid_request", "the form can't be read") from None
    for name, value in pairs:
        if name in parameters:  # RFC 6749 3.2
            raise OAuthError("invalid_request", f"{name} is given twice")
        parameters[name] = value
    return parameters


def _client_authentication(parameters: dict[str, str], authorization: list[str]) -> tuple[str, str | None, str]:
    """Client id, secret and kind. More than one kind in a request is an error (RFC 6749 2.3)."""
    named = parameters.get("client_id", "")
    kinds = [*authorization, *({"client_secret", "client_assertion"} & parameters.keys())]
    if len(kinds) > 1:
        raise OAuthError("invalid_request", "more than one kind of client authentication")
    if authorization:
        client_id, secret = _basic(authorization[0])
        if named not in ("", client_id):
            raise OAuthError("invalid_request", "client_id is not the client of the Authorization field")
        return client_id, secret, "client_secret_basic"
    if "client_assertion" in parameters:
        return named or _subject(parameters["client_assertion"]), None, "private_key_jwt"
    if "client_secret" in parameters:
        return named, parameters["client_secret"], "client_secret_post"
    if not named:
        raise authentication_failed()
    return named, None, "none"


def _basic(value: str) -> tuple[str, str]:
    """Id and secret, form-url-decoded each (RFC 6749 2.3.1)."""
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        raise authentication_failed()
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise authentication_failed() from None
    client_id, colon, secret = decoded.partition(":")
    if not colon:
        raise authentication_failed()
    return unquote_plus(client_id), unquote_plus(secret)


def _subject(assertion: str) -> str:
    return str(read_jwt(assertion).get("sub", ""))


def read_jwt(value: str) -> dict[str, object]:
    """A JWT's claims, whatever its signature; empty if it is none."""
    try:
        claims: dict[str, object] = jwt.decode(value, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return {}
    return claims


def authenticate(request: TokenRequest, orgs: Iterable[Org], now: float) -> tuple[Client, Org]:
    """Which client sends the request.

    An assertion (RFC 7523 2.2) counts if it names the client, is meant for a token endpoint and has not
    expired; its signature is not checked.

    :raises OAuthError: no such client, or it does not prove who it is
    """
    client, org = find_client(orgs, request.client_id)
    match request.client_auth:
        case "private_key_jwt":
            proven = _assertion_holds(request, now)
        case "none":
            proven = client.secret is None
        case _:
            proven = client.secret is not None and client.secret == request.client_secret
    if not proven:
        raise authentication_failed()
    return client, org


def find_client(orgs: Iterable[Org], client_id: str) -> tuple[Client, Org]:
    """The client of this id and its org.

    :raises OAuthError: no org has it
    """
    for org in orgs:
        for client in org.clients:
            if client.id == client_id:
                return client, org
    raise client_not_found()


def _assertion_holds(request: TokenRequest, now: float) -> bool:
    if request.parameters.get("client_assertion_type") != CLIENT_ASSERTION_TYPE:
        return False
    claims = read_jwt(request.parameters["client_assertion"])
    audience = claims.get("aud")
    expires_at = claims.get("exp")
    return (
        claims.get("iss") == claims.get("sub") == request.client_id
        and isinstance(audience, str)
        and audience.endswith("/oauth/token")
        and isinstance(expires_at, int | float)
        and now < expires_at
    )

"""What a token request shows beside what is configured: assertions signed here, or read anew for each request."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from proxy.core.grants import AssertionFile, Client, Code, Evidence, SigningKey, claims
from proxy.core.secret import Secret
from proxy.errors import TokenUnavailable

LONGEST_ASSERTION = 262_144
"""Bytes; a SAML response with certificates takes some 10,000."""


async def evidence(client: Client, refresh_token: Secret | None = None, code: Code | None = None) -> Evidence:
    """The evidence for one request.

    :param refresh_token: for the grant ``refresh_token``
    :param code: for the grant ``authorization_code``
    :raises TokenUnavailable: the assertion's file can't be read just now
    """
    client_assertion = assertion = None
    if client.client_auth == "private_key_jwt":
        assert client.signing_key is not None, "no private_key_jwt without a key"
        client_assertion = _sign(client.signing_key, claims(client, client.client_id, time.time(), _token_id()))
    if client.grant in ("saml2_bearer", "jwt_bearer"):
        assertion = await _grant_assertion(client)
    return Evidence(client_assertion, assertion, refresh_token, code)


async def _grant_assertion(client: Client) -> str:
    match client.assertion:
        case AssertionFile(path):
            return await asyncio.to_thread(_read, client, Path(path))
        case Secret() as assertion:
            return assertion.reveal()
    assert client.signing_key is not None, "no assertion without a key"
    assert client.subject is not None, "an assertion speaks for somebody"
    return _sign(client.signing_key, claims(client, client.subject, time.time(), _token_id()))


def _token_id() -> str:
    return secrets.token_urlsafe(16)


def _sign(key: SigningKey, said: dict[str, object]) -> str:
    import jwt  # few clients sign; the import is dear at start

    headers = None if key.key_id is None else {"kid": key.key_id}
    return jwt.encode(said, key.pem.reveal(), key.algorithm, headers)


def _read(client: Client, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_ASSERTION + 1)
        text = content.decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise _unusable(client, f"can't be read ({type(error).__name__})") from None
    if not text or len(content) > LONGEST_ASSERTION or not text.isprintable() or " " in text:
        raise _unusable(client, "holds no assertion; expected one line of base64 or a JWT")
    return text


def _unusable(client: Client, why: str) -> TokenUnavailable:
    message = f"Tenant {client.tenant}: the file that assertion names {why}."
    return TokenUnavailable(message, error="no_assertion")

"""Assertions: signed with the client's key, or read from a file that somebody else renews."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from proxy.core.grants import AssertionFile, Client, Evidence, SigningKey
from proxy.core.secret import Secret
from proxy.errors import TokenUnavailable
from proxy.oauth.assertions import LONGEST_ASSERTION, evidence
from tests.oauth import fakes

RSA = rsa.generate_private_key(65537, 2048)
CLIENT = replace(fakes.client(), client_secret=None, client_auth="private_key_jwt")


def signing(key: PrivateKeyTypes, algorithm: str, key_id: str | None = None) -> SigningKey:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return SigningKey(Secret(pem.decode()), algorithm, key_id)


@pytest.mark.parametrize(
    "key,algorithm",
    [
        (RSA, "RS256"),
        (RSA, "PS512"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_client_proves_itself_with_what_its_public_key_verifies(key: PrivateKeyTypes, algorithm: str) -> None:
    client = replace(CLIENT, signing_key=signing(key, algorithm, "key-1"))
    shown = (await evidence(client)).client_assertion
    assert shown is not None
    public = key.public_key()
    claims = jwt.decode(shown, public, [algorithm], audience=client.token_url, issuer=client.client_id)  # type: ignore[arg-type]
    assert claims["sub"] == client.client_id
    assert claims["exp"] - claims["iat"] == 120
    assert abs(claims["iat"] - time.time()) < 30
    assert jwt.get_unverified_header(shown)["kid"] == "key-1"


async def test_without_a_key_id_the_header_names_none_and_no_two_assertions_are_the_same() -> None:
    client = replace(CLIENT, signing_key=signing(RSA, "RS256"))
    one, other = [(await evidence(client)).client_assertion or "" for _ in range(2)]
    assert "kid" not in jwt.get_unverified_header(one)
    said = [jwt.decode(each, RSA.public_key(), ["RS256"], audience=client.token_url) for each in (one, other)]
    assert said[0]["jti"] != said[1]["jti"]


async def test_the_grant_and_the_client_may_both_be_signed() -> None:
    client = replace(CLIENT, grant="jwt_bearer", subject="agent", audience="aud", signing_key=signing(RSA, "RS256"))
    shown = await evidence(client)
    for assertion, subject in ((shown.client_assertion, client.client_id), (shown.assertion, "agent")):
        assert assertion is not None
        assert jwt.decode(assertion, RSA.public_key(), ["RS256"], audience="aud")["sub"] == subject


async def test_an_assertion_of_somebody_elses_is_shown_as_it_is() -> None:
    client = replace(fakes.client(), grant="saml2_bearer", assertion=Secret("PHNhbWw+"))
    assert await evidence(client) == Evidence(assertion="PHNhbWw+")


@pytest.mark.parametrize("grant", ["client_credentials", "refresh_token"])
async def test_other_grants_show_no_assertion(grant: str) -> None:
    client = replace(fakes.client(), grant=grant)
    assert await evidence(client, Secret("r1")) == Evidence(refresh_token=Secret("r1"))


# --- from a file ---


def from_file(path: Path) -> Client:
    return replace(fakes.client(), grant="saml2_bearer", assertion=AssertionFile(str(path)))


async def test_a_file_is_read_for_every_request(tmp_path: Path) -> None:
    path = tmp_path / "acme.saml"
    client = from_file(path)
    for content in ("Zmlyc3Q=", "c2Vjb25k\n", "  dGhpcmQ=\r\n"):
        path.write_text(content)
        assert (await evidence(client)).assertion == content.strip()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"two words", b"two\nlines", b"\xc3\xa4", b"\x00", b"a" * (LONGEST_ASSERTION + 1)],
    ids=lambda content: repr(content[:10]),
)
async def test_a_file_that_holds_no_assertion_is_an_error_that_asking_again_may_mend(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "acme.saml"
    path.write_bytes(content)
    with pytest.raises(TokenUnavailable, match=r"acme.*assertion") as caught:
        await evidence(from_file(path))
    assert caught.value.error == "no_assertion"
    path.write_bytes(b"a" * LONGEST_ASSERTION)
    assert len((await evidence(from_file(path))).assertion or "") == LONGEST_ASSERTION


async def test_a_file_that_is_gone_is_such_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(TokenUnavailable, match="FileNotFoundError"):
        await evidence(from_file(tmp_path / "gone"))

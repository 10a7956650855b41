"""The types of what a client proves itself with beside a secret: private keys and assertions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from proxy.core.grants import AssertionFile
from proxy.core.secret import Secret
from proxy.settings.values import SECRET_SCHEMA, Place, place_of, secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Of RFC 7518 3.1 and RFC 8037; an algorithm with a shared key proves nothing that a client secret does not."""

_RSA: tuple[Algorithm, ...] = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: dict[str, Algorithm] = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key, and what can be signed with it: the usual algorithm first."""

    pem: Secret
    algorithms: tuple[Algorithm, ...]


def _private_key(value: object, info: ValidationInfo) -> PrivateKey:
    if isinstance(value, PrivateKey):
        return value
    pem = secret(value, place_of(info))
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError:
        raise ValueError("needs a further package; pip install 'genesys-auth-proxy[signing]'") from None
    try:
        key = load_pem_private_key(pem.reveal().encode(), None)
    except TypeError:
        raise ValueError("expected a private key without a passphrase") from None
    except Exception:  # noqa: BLE001 - whatever the library says may quote the key
        raise ValueError("expected a private key in PEM") from None
    return PrivateKey(pem, _algorithms(key))


def _algorithms(key: PrivateKeyTypes) -> tuple[Algorithm, ...]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    match key:
        case rsa.RSAPrivateKey():
            if key.key_size < 2048:
                raise ValueError(f"expected an RSA key of at least 2048 bits (got {key.key_size}) (RFC 7518 3.3)")
            return _RSA
        case ec.EllipticCurvePrivateKey() if key.curve.name in _CURVES:
            return (_CURVES[key.curve.name],)
        case ed25519.Ed25519PrivateKey() | ed448.Ed448PrivateKey():
            return ("EdDSA",)
    raise ValueError("expected an RSA, P-256, P-384, P-521, Ed25519 or Ed448 key")


def _assertion(value: object, info: ValidationInfo) -> Secret | AssertionFile:
    """An assertion; a file is only looked at, because it is read again for every token request."""
    if isinstance(value, AssertionFile):
        return value
    place = place_of(info)
    apart = Place(place.folder, place.environ)  # not among the files whose change is a reason to reload
    found = secret(value, apart)
    place.secrets |= apart.secrets
    place.literal = place.literal or apart.literal
    text = found.reveal()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected an assertion: one line of base64 or a JWT")
    return AssertionFile(str(place.path(value["file"]))) if isinstance(value, dict) and "file" in value else found


PrivateKeyValue = Annotated[PrivateKey, PlainValidator(_private_key), WithJsonSchema(SECRET_SCHEMA)]
AssertionValue = Annotated[Secret | AssertionFile, PlainValidator(_assertion), WithJsonSchema(SECRET_SCHEMA)]

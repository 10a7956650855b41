"""Encryption at rest: AES-256-GCM, with as many keys as are given; the first encrypts, all decrypt.

A value is ``0x01``, the key's id (8 bytes), a nonce (12 bytes) and the ciphertext with its tag, bound to the name
it is stored under: a value that is put in another tenant's place does not open.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from proxy.core.secret import Secret
from proxy.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEALED = b"\x01"
ID_SIZE = 8
NONCE_SIZE = 12
_SALT = b"genesys-auth-proxy token store"


class UnknownKey(StoreError):
    """A value was encrypted with a key that is not given."""

    def __init__(self) -> None:
        super().__init__(
            "An entry of the token store was encrypted with a key that store.encryption_keys does not have; "
            "add that key behind the newest. Nothing was changed."
        )


class Seal:
    """Seals what is written and opens what is read; without keys, values pass as they are.

    :param keys: newest first; texts of high entropy, such as ``openssl rand -base64 32`` makes
    :raises ConfigurationError: there are keys, but not the library that uses them
    """

    def __init__(self, keys: Sequence[Secret] = ()) -> None:
        self._keys: Mapping[bytes, AESGCM] = dict(map(_derived, keys)) if keys else {}

    @property
    def ids(self) -> tuple[bytes, ...]:
        """Of the keys, newest first."""
        return tuple(self._keys)

    def close(self, name: str, value: bytes) -> bytes:
        """What may be written."""
        if not self._keys:
            return value
        key_id, key = next(iter(self._keys.items()))
        nonce = os.urandom(NONCE_SIZE)
        return SEALED + key_id + nonce + key.encrypt(nonce, value, name.encode())

    def open(self, name: str, value: bytes) -> bytes:
        """What was sealed under this name. A value that was written before there were keys passes too.

        :raises UnknownKey: its key is not given
        :raises StoreError: it was changed, or stored under another name
        """
        if not value.startswith(SEALED):
            return value
        key = self._keys.get(key_id_of(value) or b"")
        if key is None:
            raise UnknownKey
        from cryptography.exceptions import InvalidTag

        rest = value[1 + ID_SIZE :]
        try:
            return key.decrypt(rest[:NONCE_SIZE], rest[NONCE_SIZE:], name.encode())
        except (InvalidTag, ValueError):
            raise StoreError("An entry of the token store is damaged: it does not open with its own key.") from None

    def is_newest(self, value: bytes) -> bool:
        """Sealing it again would change nothing but the nonce."""
        return not self._keys or key_id_of(value) == self.ids[0]


def key_id_of(value: bytes) -> bytes | None:
    """The id of the key that sealed a value; None for one that is not sealed."""
    return value[1 : 1 + ID_SIZE] if value.startswith(SEALED) else None


def _derived(key: Secret) -> tuple[bytes, AESGCM]:
    """A key's id and the cipher, both derived from its text (HKDF, RFC 5869)."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        problem = 'store.encryption_keys: needs a library: pip install "genesys-auth-proxy[encryption]"'
        raise ConfigurationError([problem]) from None
    size = 32
    derived = HKDF(SHA256(), size + ID_SIZE, _SALT, b"AES-256-GCM, id").derive(key.reveal().encode("utf-8"))
    return derived[size:], AESGCM(derived[:size])

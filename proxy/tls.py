"""TLS on both sides, never older than 1.2: upstreams and token endpoints are always verified."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Any


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """A context that trusts what the system trusts, and the authorities in ``ca_file`` beside it."""
    if sys.platform == "linux":
        context = ssl.create_default_context()
    else:
        # OpenSSL does not know where macOS and Windows keep theirs.
        import truststore

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def server_context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """What clients are served with.

    :param certificate: PEM, the server's own first, then what leads to its authority
    :param client_ca: authorities, one of which must vouch for every client; None where clients need no certificate
    :raises OSError: a file can't be read, or is not what it should be (``ssl.SSLError``)
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key, password=_no_password)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    # Without it, OpenSSL asks on the terminal and the program stands still.
    raise ssl.SSLError("the private key is encrypted")


class RenewedContext(ssl.SSLContext):
    """A server's context that stands for another, which can be replaced while the port stays open.

    :ivar current: what handshakes from now on use
    """

    current: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begins a connection with the current context; event loops call it once for each."""
        return self.current.wrap_bio(*args, **kwargs)


def renewed(current: ssl.SSLContext) -> RenewedContext:
    """A context that stands for this one."""
    context = RenewedContext(ssl.PROTOCOL_TLS_SERVER)
    context.current = current
    return context

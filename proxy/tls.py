"""TLS towards upstreams and token endpoints: always verified, never older than 1.2."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path


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

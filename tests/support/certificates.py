"""An authority of the tests' own, and servers that it vouches for."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

import trustme


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(*names: str, trusted: bool = True) -> ssl.SSLContext:
    """A server's TLS for these names or addresses.

    :param trusted: vouched for by ``authority``, and not by another that nobody knows
    """
    issuer = authority() if trusted else trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*names).configure_cert(context)
    return context


def ca_file(folder: Path) -> Path:
    """A file with the authority's certificate, as ``upstream.ca_file`` names it."""
    file = folder / "ca.pem"
    authority().cert_pem.write_to_path(file)
    return file

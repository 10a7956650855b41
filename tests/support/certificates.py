"""An authority of the tests' own, and servers that it vouches for."""

from __future__ import annotations

import functools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(*names: str, trusted: bool = True, expired: bool = False) -> ssl.SSLContext:
    """A server's TLS for these names or addresses.

    :param trusted: vouched for by ``authority``, and not by another that nobody knows
    :param expired: since yesterday
    """
    issuer = authority() if trusted else trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    until = datetime.now(UTC) - timedelta(days=1) if expired else None
    issuer.issue_cert(*names, not_after=until).configure_cert(context)
    return context


def ca_file(folder: Path) -> Path:
    """A file with the authority's certificate, as ``upstream.ca_file`` names it."""
    file = folder / "ca.pem"
    authority().cert_pem.write_to_path(file)
    return file

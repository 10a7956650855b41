"""Base URLs and hosts as an operator writes them, checked and in one spelling."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)", re.DOTALL
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """Where an upstream is: a request's path and query are appended to it as they are.

    :ivar scheme: ``http`` or ``https``; a WebSocket goes over the same
    :ivar host: in lower case, an IPv6 address without its brackets
    :ivar path: empty, or with a leading and no trailing slash
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of Host (RFC 9110 7.2): a default port is left out."""
        host = bracketed(self.host)
        return host if _DEFAULT_PORTS[self.scheme] == self.port else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_base_url(text: str) -> BaseUrl:
    """The URL in a text; ``ws`` and ``wss`` are taken for ``http`` and ``https``.

    :raises ValueError: it has a query, a fragment or userinfo, no host, or another scheme; the message does
        not repeat the text, which may hold a password
    """
    parts = _URL.fullmatch(text)
    if parts is None:
        raise ValueError("expected a URL such as https://api.mypurecloud.de")
    scheme = {"ws": "http", "wss": "https"}.get(parts["scheme"].lower(), parts["scheme"].lower())
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("expected a URL that begins with https://")
    if parts["rest"]:
        raise ValueError("expected a URL without query and fragment")
    host, port = _host_and_port(parts["authority"])
    path = parts["path"].rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError("expected a URL whose path is percent-encoded and has no dot segments")
    return BaseUrl(scheme, host, _DEFAULT_PORTS[scheme] if port is None else port, path)


def parse_origin(text: str) -> str:
    """A browser's origin as the browser writes it (RFC 6454 6.2): in lower case, without a default port.

    Schemes other than http and https pass too: an app's web view has its own.

    :raises ValueError: it is not ``scheme://host`` with an optional port
    """
    parts = _URL.fullmatch(text)
    if parts is None or parts["path"] or parts["rest"]:
        raise ValueError("expected scheme://host or scheme://host:port, such as https://chat.example.com")
    scheme = parts["scheme"].lower()
    host, port = _host_and_port(parts["authority"])
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{bracketed(host)}"
    return f"{scheme}://{bracketed(host)}:{port}"


def _host_and_port(authority: str) -> tuple[str, int | None]:
    if "@" in authority:
        raise ValueError("expected no user name or password before the host")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise ValueError("expected a host and, if any, a port after it")
    host = parse_host(parts["host"])
    if parts["port"] is None:
        return host, None
    port = int(parts["port"])
    if not 1 <= port <= 65535:
        raise ValueError("expected a port between 1 and 65535")
    return host, port


def parse_host(text: str) -> str:
    """A host name or an IP address in lower case, an IPv6 address without its brackets.

    :raises ValueError: it is neither, or has a port
    """
    host = text.lower()
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare or bare != host:
        return _ipv6(bare)
    if not host.isascii():
        raise ValueError("expected a host name in its ASCII form (xn--…)")
    if _NUMERIC.fullmatch(host):
        # Anything else that ends in a number is read as an address by some resolvers and as a name by others.
        return _ipv4(host)
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise ValueError("expected a host name or an IP address, without port")
    return host


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("expected a host name or an IP address, without port") from None
    if address.scope_id is not None:
        raise ValueError("expected an IPv6 address without a zone")
    return str(address)


def _ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError("expected an IPv4 address in four decimal parts") from None


def bracketed(host: str) -> str:
    """A host as it stands in a URL and in Host: an IPv6 address in brackets (RFC 3986 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether a host of ``parse_host`` never leaves this machine; a name other than localhost may."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

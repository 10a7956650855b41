"""The forward proxy of a corporate network: where it is, and which hosts are reached without it."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote

from proxy.core.secret import Secret
from proxy.core.urls import bracketed, is_loopback, parse_base_url

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<userinfo>[^@/?#]*)@(?P<rest>[^@]*)", re.DOTALL)
_PORT = re.compile(r"(.+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """An HTTP proxy that is asked for tunnels (CONNECT, RFC 9110 9.3.6)."""

    host: str
    """Without brackets."""
    port: int
    credential: Secret | None = None
    """The value of ``Proxy-Authorization``."""

    def __str__(self) -> str:
        return f"http://{bracketed(self.host)}:{self.port}"


def parse_proxy(text: str) -> ForwardProxy:
    """The proxy in a URL such as ``http://user:password@proxy.corp:3128``; a port is taken to be 80 without one.

    :raises ValueError: it is no such URL; the message repeats nothing of it
    """
    text = text if "://" in text else f"http://{text}"
    parts = _USERINFO.fullmatch(text)
    base = parse_base_url(text if parts is None else parts["scheme"] + parts["rest"])
    if base.tls or base.path:
        raise ValueError("expected a URL such as http://proxy.corp:3128, without path")
    return ForwardProxy(base.host, base.port, None if parts is None else _basic(parts["userinfo"]))


def _basic(userinfo: str) -> Secret:
    # RFC 7617 2; percent-encoded in a URL, where a password may hold any character.
    user, _, password = userinfo.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return Secret("Basic " + base64.b64encode(pair).decode("ascii"))


@dataclass(frozen=True, slots=True)
class Detours:
    """Which way a host is reached.

    :ivar proxy: None where there is none
    :ivar direct: what is reached without it: names with all below them, addresses, networks, ``*``; a port may follow
    """

    proxy: ForwardProxy | None = None
    direct: tuple[str, ...] = ()

    def to(self, host: str, port: int) -> ForwardProxy | None:
        """The proxy to go through, None for the direct way, which is the only one to this machine itself.

        :param host: without brackets
        """
        if self.proxy is None or is_loopback(host) or any(_matches(entry, host, port) for entry in self.direct):
            return None
        return self.proxy


DIRECT = Detours()


def parse_direct(text: str) -> tuple[str, ...]:
    """The entries of a list such as ``NO_PROXY`` has."""
    return tuple(entry.lower() for entry in re.split(r"[\s,]+", text) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    with_port = _PORT.fullmatch(entry)
    if with_port is not None and not _is_address(entry):
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        name = entry.removeprefix("*").removeprefix(".")
        return name != "" and (host == name or host.endswith(f".{name}"))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True

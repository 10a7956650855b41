"""A tunnel through a forward proxy (CONNECT, RFC 9110 9.3.6), made before TLS begins inside it."""

from __future__ import annotations

import asyncio
import re
import socket

from proxy.core.detour import ForwardProxy
from proxy.core.urls import bracketed
from proxy.errors import UpstreamUnreachable

LONGEST_ANSWER = 8192
"""Bytes of a forward proxy's answer."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r\n")


async def open_tunnel(sock: socket.socket, proxy: ForwardProxy, host: str, port: int) -> None:
    """Turns a connection to a forward proxy into one to a host behind it.

    :raises UpstreamUnreachable: it does not let us
    :raises OSError: the connection was lost
    """
    loop = asyncio.get_running_loop()
    authority = f"{bracketed(host)}:{port}".encode("ascii")
    request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority)
    if proxy.credential is not None:
        request += b"Proxy-Authorization: %b\r\n" % proxy.credential.reveal().encode("ascii")
    await loop.sock_sendall(sock, request + b"\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = await loop.sock_recv(sock, LONGEST_ANSWER)
        answer += piece
        if not piece or len(answer) > LONGEST_ANSWER:
            raise UpstreamUnreachable("The forward proxy gave no usable answer; see upstream.proxy.")
    status = _STATUS.match(answer)
    if status is None:
        raise UpstreamUnreachable("The forward proxy gave no usable answer; see upstream.proxy.")
    if status[1] == b"407":
        message = "The forward proxy asks for other credentials (407); see upstream.proxy."
        raise UpstreamUnreachable(message, kind="proxy_configuration_error")
    if not status[1].startswith(b"2"):
        raise UpstreamUnreachable(f"The forward proxy refuses a tunnel to the upstream ({status[1].decode()}).")
    if answer.partition(b"\r\n\r\n")[2]:
        # The upstream speaks only when spoken to: this would be taken for its answer to the first request.
        raise UpstreamUnreachable("The forward proxy sent more than its answer; see upstream.proxy.")

"""Listening sockets, made apart from whoever accepts on them, so that they can be handed on."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

BACKLOG = 1024
"""Connections that wait to be accepted; the system may allow fewer."""


def bind(host: str, port: int, *, share: bool = False) -> list[socket.socket]:
    """Sockets that listen on every address of a host, all on one port.

    :param port: 0 takes any that is free
    :param share: other sockets may listen there as well, and the system spreads the connections (SO_REUSEPORT)
    :raises OSError: an address is taken or not ours; then none is left open
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, _, _, _, address in dict.fromkeys(found):
            sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            _prepare(sock, share=share)
            sock.bind((address[0], port, *address[2:]))
            port = sock.getsockname()[1]
            sock.listen(BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
        opened.pop_all()
    return sockets


def port_of(sockets: Sequence[socket.socket]) -> int:
    """The port that the sockets listen on which have one; 0 if none has."""
    for sock in sockets:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            return int(sock.getsockname()[1])
    return 0


def _prepare(sock: socket.socket, *, share: bool) -> None:
    if os.name == "posix":
        # A port whose last connections are in TIME_WAIT is free; on Windows the option would share the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if share:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        # 0.0.0.0 beside :: on one port
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

"""Guests' calls that tell of their JWTs: which refresh token came with which, read as it passes (``guest_refresh``)."""

from __future__ import annotations

from proxy.core import guests
from proxy.core.answers import http_date
from proxy.forward.exchange import Copy, Exchange
from proxy.forward.tenant import Guests


def learn(exchange: Exchange, known: Guests, copy: Copy) -> None:
    """Remembers the JWT that an exchange or a refresh, now passed on, has brought its guest."""
    answer = exchange.answer
    if answer is None or answer.status != 200 or b"content-encoding" in answer.fields:
        return
    found = guests.issued(exchange.body.content, copy.content)
    if found is not None:
        date = answer.fields.get(b"date")
        server_time = None if date is None else http_date(date.decode("latin-1"))
        known.learn(found.jwt, found.refresh_token, server_time)

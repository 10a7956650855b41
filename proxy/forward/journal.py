"""Which requests have a line in the log, and what it tells: a record for each, made only where it is wanted."""

from __future__ import annotations

import random
from collections.abc import Callable

from proxy.core import routing
from proxy.core.report import RequestRecord
from proxy.forward.exchange import Exchange

LONGEST = 512
"""Characters of anything that a peer chose."""

_FAILED = frozenset({401, 429, 499})


class Journal:
    """Gives records of requests to ``sink``.

    :param everything: not only of those that failed or were replayed
    :param share: of those that did neither, at random, from 0 to 1
    :param chance: a random number from 0 up to 1
    """

    def __init__(
        self,
        sink: Callable[[RequestRecord], None],
        *,
        everything: bool,
        share: float = 1.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sink = sink
        self._share = share if everything else 0.0
        self._chance = chance

    def note(self, exchange: Exchange, status: int, seconds: float) -> None:
        """Notes a request that is over, if it is to be."""
        if status >= 500 or status in _FAILED or exchange.replayed or (self._share and self._chance() < self._share):
            self._sink(record(exchange, status, seconds))


def record(exchange: Exchange, status: int, seconds: float) -> RequestRecord:
    """What is told of a request that is over."""
    failure, answer = exchange.failure, exchange.answer
    correlation_id = None if failure is None else failure.context_id
    if answer is not None and (given := answer.fields.get(b"inin-correlation-id")):
        correlation_id = _printable(given)
    return RequestRecord(
        tenant=None if exchange.tenant is None else exchange.tenant.name,
        caller=None if exchange.caller is None else exchange.caller.name or None,
        method=_printable(exchange.method),
        path=_path(exchange),
        status=status,
        seconds=seconds,
        received=exchange.body.size + exchange.received,
        sent=exchange.sent,
        replayed=exchange.replayed,
        code=None if failure is None else failure.code,
        correlation_id=correlation_id,
    )


def _path(exchange: Exchange) -> str | None:
    """The path behind tenant and caller key; the key is a secret, and the query may hold some.

    Of a request without a tenant nothing is told: what stands where in its target is not known.
    """
    if exchange.tenant is None:
        return None
    target = routing.split(exchange.method, exchange.head.target)
    return _printable(target.rest.partition(b"?")[0])


def _printable(text: bytes) -> str:
    """Printable ASCII, so that nothing a peer sends can end a line or move a terminal's cursor."""
    if not (text.isascii() and (shown := text.decode()).isprintable()):
        shown = repr(text)[2:-1]
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."

"""Rules of RFC 9110, 9112 and 6455, each played for all its siblings: every hop-by-hop field, every status without
content, every way in which a body can end.

Each module yields cases in the form of ``cases.json``; what they demand is this proxy's own promise, and often
narrower than what the RFC lets a proxy do.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.cases import Entry
from tests.conformance.rules import answers, connections, content, expectations, fields, heads, targets

_MODULES = (fields, heads, targets, content, connections, expectations, answers)


def entries() -> Iterator[Entry]:
    """All cases."""
    for module in _MODULES:
        yield from module.entries()

"""Records: how long they are kept, and that they show nothing."""

from __future__ import annotations

import pytest

from proxy.core.lineage import KEPT_AFTER_EXPIRY, Access, Lease, Record, Setback, Verdict, digest
from proxy.core.secret import Secret

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("record", "end"),
    [
        (Record(access=Access(Secret("a"), NOW, 3600.0, "c")), NOW + 3600.0),
        (Record(lease=Lease("me", NOW + 12.0)), NOW + 12.0),
        (Record(setback=Setback(NOW, NOW + 300.0, 1, "e", "m", final=False)), NOW + 300.0),
        (
            Record(access=Access(Secret("a"), NOW, 10.0, "c"), lease=Lease("me", NOW + 12.0)),
            NOW + 12.0,
        ),
    ],
)
def test_what_expires_is_forgotten_a_while_after(record: Record, end: float) -> None:
    assert record.forget_after == end + KEPT_AFTER_EXPIRY


@pytest.mark.parametrize(
    "record",
    [
        Record(refresh_token=Secret("r"), access=Access(Secret("a"), NOW, 3600.0, "c")),
        Record(seeds=("digest",)),
        Record(verdict=Verdict("digest", NOW, lost=False)),
    ],
)
def test_what_tells_of_refresh_tokens_is_never_forgotten(record: Record) -> None:
    assert record.forget_after is None


def test_a_digest_names_a_refresh_token_and_does_not_tell_it() -> None:
    assert digest(Secret("one")) == digest(Secret("one")) != digest(Secret("two"))
    assert "one" not in digest(Secret("one"))
    assert len(digest(Secret("\udcff"))) == 32


def test_a_record_shows_no_token() -> None:
    record = Record(access=Access(Secret("hunter2"), NOW, 1.0, "c"), refresh_token=Secret("hunter3"))
    assert "hunter" not in repr(record)

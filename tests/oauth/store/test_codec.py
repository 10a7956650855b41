"""Records as bytes, and bytes that are none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.lineage import Access, Journal, Lease, Record, Setback, Verdict
from proxy.core.secret import Secret
from proxy.errors import StoreError
from proxy.oauth.store.codec import decode, encode
from tests.oauth.store.places import FULL

texts = st.text(max_size=8)
times = st.floats(0, 4e9)
secrets = texts.map(Secret)


def perhaps(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


records = st.builds(
    Record,
    access=perhaps(st.builds(Access, secrets, times, times, texts)),
    refresh_token=perhaps(secrets),
    generation=st.integers(0, 1 << 62),
    seeds=st.lists(texts, max_size=3).map(tuple),
    organization=perhaps(texts),
    lease=perhaps(st.builds(Lease, texts, times)),
    journal=perhaps(st.builds(Journal, times, st.booleans())),
    setback=perhaps(st.builds(Setback, times, times, st.integers(0, 99), texts, texts, st.booleans())),
    verdict=perhaps(st.builds(Verdict, texts, times, st.booleans())),
    kept_at=perhaps(texts),
)


@given(record=records)
def test_every_record_comes_back_as_it_was(record: Record) -> None:
    assert decode(encode(record)) == record


def test_a_record_is_plain_text_that_names_its_shape() -> None:
    content = json.loads(encode(FULL))
    assert content["shape"] == 1
    assert content["refresh_token"] == "the-refresh-token"
    assert json.loads(encode(Record())) == {"shape": 1, "generation": 0}


def test_a_record_that_leads_elsewhere_is_none_for_versions_that_would_not_follow() -> None:
    assert json.loads(encode(Record(kept_at="x"))) == {"shape": 2, "generation": 0, "kept_at": "x"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"{}", b"null", b"7", b"\xff", b'{"shape":1}', b"[" * 100_000,
        b'{"shape":1,"generation":0,"lease":7}', b'{"shape":1,"generation":0,"lease":{"owner":"x"}}',
        b'{"shape":1,"generation":0,"lease":{"owner":"x","until":1,"more":1}}',
        b'{"shape":1,"generation":0,"seeds":7}',
    ],
)  # fmt: skip
def test_bytes_that_are_no_record_are_an_error_that_quotes_nothing(data: bytes) -> None:
    with pytest.raises(StoreError) as caught:
        decode(data)
    assert "not readable" in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_record_of_a_later_version_is_told_as_one() -> None:
    with pytest.raises(StoreError, match="later version"):
        decode(b'{"shape":3,"secrets":"hidden"}')

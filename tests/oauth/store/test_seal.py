"""Encryption at rest: what opens what, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.secret import Secret
from proxy.errors import StoreError
from proxy.oauth.store.seal import Seal, UnknownKey, key_id_of
from tests.oauth.store.places import KEY, OLDER


@given(value=st.binary(max_size=200), name=st.text(max_size=20))
def test_what_was_sealed_opens_with_its_key_and_name(value: bytes, name: str) -> None:
    seal = Seal([KEY])
    assert seal.open(name, seal.close(name, value)) == value


def test_a_value_shows_nothing_of_what_it_seals_and_is_never_the_same_twice() -> None:
    seal = Seal([KEY])
    one, two = (seal.close("name", b"a refresh token") for _ in range(2))
    assert one != two
    assert b"refresh" not in one


def test_without_keys_values_pass_as_they_are() -> None:
    assert Seal().close("name", b"{}") == b"{}"
    assert Seal().open("name", b"{}") == b"{}"


def test_the_newest_key_seals_and_all_open() -> None:
    old = Seal([OLDER]).close("name", b"value")
    both = Seal([KEY, OLDER])
    assert both.open("name", old) == b"value"
    assert key_id_of(both.close("name", b"value")) == Seal([KEY]).ids[0] == both.ids[0]
    assert key_id_of(old) == both.ids[1]


def test_what_was_written_before_there_were_keys_passes() -> None:
    assert Seal([KEY]).open("name", b"{}") == b"{}"
    assert key_id_of(b"{}") is None


@pytest.mark.parametrize("keys", [[], [OLDER]])
def test_a_key_that_is_not_given_is_named_as_the_trouble(keys: list[Secret]) -> None:
    with pytest.raises(UnknownKey, match="encryption_keys"):
        Seal(keys).open("name", Seal([KEY]).close("name", b"value"))


def test_a_value_of_another_name_does_not_open() -> None:
    seal = Seal([KEY])
    with pytest.raises(StoreError, match="damaged"):
        seal.open("b", seal.close("a", b"value"))


def test_no_changed_byte_goes_unseen() -> None:
    seal = Seal([KEY])
    value = seal.close("name", b"value")
    for position in range(1, len(value)):
        changed = bytearray(value)
        changed[position] ^= 1
        with pytest.raises(StoreError):
            seal.open("name", bytes(changed))
    for length in range(1, len(value)):
        with pytest.raises(StoreError):
            seal.open("name", value[:length])


def test_keys_that_differ_in_anything_are_other_keys() -> None:
    ids = {Seal([Secret(text)]).ids[0] for text in ("k" * 32, "k" * 33, "K" * 32, "é" * 32)}
    assert len(ids) == 4


def test_a_seal_shows_no_key() -> None:
    assert KEY.reveal() not in repr(vars(Seal([KEY])))

"""No way but ``reveal`` leads to a secret's text."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest

from proxy.core.secret import Secret


def test_a_secret_reveals_its_text_on_request() -> None:
    assert Secret("hunter2").reveal() == "hunter2"


def test_no_way_of_printing_shows_the_text() -> None:
    secret = Secret("hunter2")
    assert [str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret, "%r" % [secret]] == [  # noqa: UP031
        "***", "***", "***", "***", "***", "[***]",
    ]  # fmt: skip


def test_a_dataclass_that_holds_a_secret_does_not_show_it() -> None:
    @dataclass(frozen=True, slots=True)
    class Holder:
        secret: Secret

    assert "hunter2" not in repr(Holder(Secret("hunter2")))


def test_secrets_are_equal_when_their_texts_are() -> None:
    assert Secret("one") == Secret("one")
    assert Secret("one") != Secret("two")
    assert Secret("one") != Secret("one more")
    assert Secret("é") == Secret("é")
    assert Secret("\udcff") != Secret("\udcfe")


def test_a_secret_equals_no_string() -> None:
    assert Secret("one") != "one"


def test_a_secret_is_neither_pickled_nor_copied() -> None:
    with pytest.raises(TypeError, match="neither pickled"):
        pickle.dumps(Secret("hunter2"))
    with pytest.raises(TypeError, match="neither pickled"):
        copy.deepcopy(Secret("hunter2"))


def test_a_secret_is_not_hashable() -> None:
    with pytest.raises(TypeError, match="not hashable"):
        hash(Secret("hunter2"))


def test_a_secret_takes_no_further_attributes() -> None:
    assert not hasattr(Secret("hunter2"), "__dict__")

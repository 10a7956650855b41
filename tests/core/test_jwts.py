"""When a token says that it ends."""

from __future__ import annotations

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.jwts import expiry


def made(**claims: object) -> str:
    return jwt.encode(claims, "k" * 32, "HS256")


@pytest.mark.parametrize("exp", [1_700_000_000, 1, 0, -5, 1_700_000_000.5])
def test_a_jwts_expiry_is_read(exp: float) -> None:
    assert expiry(made(exp=exp)) == exp


def test_its_signature_is_nobodys_concern_here() -> None:
    head, claims, _ = made(exp=7).split(".")
    assert expiry(f"{head}.{claims}.AAAA") == 7


@pytest.mark.parametrize("exp", ["7", True, None, [7], {}, 10**400, "x"])
def test_an_expiry_that_is_no_number_is_none(exp: object) -> None:
    assert expiry(made(exp=exp)) is None


@pytest.mark.parametrize("token", ["", "opaque", "a.b", "a.b.c", "a.b.c.d", "..", made(), "e30.W10.", "e30.bnVsbA."])
def test_a_token_that_says_nothing_has_none(token: str) -> None:
    assert expiry(token) is None


@given(st.text(max_size=40) | st.tuples(*[st.text(max_size=8)] * 3).map(".".join))
def test_no_token_is_an_accident(token: str) -> None:
    assert expiry(token) is None or token.count(".") == 2

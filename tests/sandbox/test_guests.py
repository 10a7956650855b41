"""Guests' JWTs and refresh tokens, by a given time."""

from __future__ import annotations

import jwt
import pytest

from proxy.sandbox import ACME, Outcome, SandboxOptions
from proxy.sandbox.guests import GuestBook, GuestRefused
from proxy.sandbox.orgs import ACME_DEPLOYMENT_ID

NOW = 1_000.0


@pytest.fixture
def book() -> GuestBook:
    return GuestBook(SandboxOptions())


def test_a_jwt_holds_for_fifteen_minutes(book: GuestBook) -> None:
    value, _ = book.exchange(ACME_DEPLOYMENT_ID, "code", NOW)
    session, refusal = book.judge(value, NOW + 899.9)
    assert session is not None
    assert session.org is ACME
    assert refusal is None
    assert book.judge(value, NOW + 900)[1] is Outcome.EXPIRED


def test_a_refresh_token_brings_jwts_for_a_day(book: GuestBook) -> None:
    _, refresh_token = book.exchange(ACME_DEPLOYMENT_ID, "code", NOW)
    later = NOW + 86_399
    assert book.judge(book.refresh(refresh_token, later), later)[1] is None
    with pytest.raises(GuestRefused):
        book.refresh(refresh_token, NOW + 86_400)


def test_lifetimes_can_be_chosen() -> None:
    book = GuestBook(SandboxOptions(guest_token_lifetime=2, guest_refresh_lifetime=5))
    value, refresh_token = book.exchange(ACME_DEPLOYMENT_ID, "code", NOW)
    assert jwt.decode(value, options={"verify_signature": False})["exp"] == NOW + 2
    with pytest.raises(GuestRefused):
        book.refresh(refresh_token, NOW + 5)


def test_revocation_ends_the_jwts_and_the_refresh_token(book: GuestBook) -> None:
    value, refresh_token = book.exchange(ACME_DEPLOYMENT_ID, "code", NOW)
    session, _ = book.judge(value, NOW)
    assert session is not None
    book.revoke(session)
    assert book.judge(value, NOW)[1] is Outcome.REVOKED
    with pytest.raises(GuestRefused):
        book.refresh(refresh_token, NOW)


def test_a_code_counts_once(book: GuestBook) -> None:
    book.exchange(ACME_DEPLOYMENT_ID, "code", NOW)
    with pytest.raises(GuestRefused, match="used before"):
        book.exchange(ACME_DEPLOYMENT_ID, "code", NOW)


@pytest.mark.parametrize("deployment,code", [("x", "code"), (None, "code"), (ACME_DEPLOYMENT_ID, None)])
def test_an_exchange_names_a_deployment_and_a_code(book: GuestBook, deployment: object, code: object) -> None:
    with pytest.raises(GuestRefused):
        book.exchange(deployment, code, NOW)


def test_a_jwt_of_another_sandbox_is_unknown(book: GuestBook) -> None:
    foreign, _ = GuestBook(SandboxOptions()).exchange(ACME_DEPLOYMENT_ID, "code", NOW)
    assert book.judge(foreign, NOW) == (None, Outcome.UNKNOWN)


def test_what_is_no_jwt_is_malformed(book: GuestBook) -> None:
    assert book.judge("opaque", NOW) == (None, Outcome.MALFORMED)

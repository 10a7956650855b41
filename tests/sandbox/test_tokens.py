"""Access tokens and their families, by a given time."""

from __future__ import annotations

import jwt
import pytest

from proxy.sandbox import ACME, GLOBEX, IssuedToken, Outcome, SandboxOptions
from proxy.sandbox.tokens import TokenBook


def issue(book: TokenBook, *, now: float = 0.0) -> IssuedToken:
    return book.issue(ACME.clients[0], ACME, grant="client_credentials", scope=(), now=now)


@pytest.mark.parametrize("lifetime", [2, 0.5, 86_400])
def test_a_token_holds_up_to_its_lifetime_and_not_at_its_end(lifetime: float) -> None:
    token = issue(TokenBook(SandboxOptions(token_lifetime=lifetime)), now=1_000)
    assert token.refusal(1_000 + lifetime - 0.001) is None
    assert token.refusal(1_000 + lifetime) is Outcome.EXPIRED


def test_a_token_that_nobody_uses_idles_out() -> None:
    token = issue(TokenBook(SandboxOptions(idle_timeout=300)))
    assert token.refusal(299.9) is None
    assert token.refusal(300) is Outcome.IDLE
    token.last_used_at = 299
    assert token.refusal(300) is None
    assert token.idles_at == 599


def test_revocation_goes_before_expiry() -> None:
    token = issue(TokenBook(SandboxOptions()))
    token.revoked = True
    assert token.refusal(1e9) is Outcome.REVOKED


def test_tokens_are_opaque_and_differ() -> None:
    book = TokenBook(SandboxOptions())
    values = {issue(book).value for _ in range(100)}
    assert len(values) == 100
    assert not any("." in value for value in values)


def test_jwt_tokens_tell_their_life() -> None:
    token = issue(TokenBook(SandboxOptions(jwt_tokens=True, token_lifetime=10)), now=1_000.7)
    claims = jwt.decode(token.value, options={"verify_signature": False})
    assert (claims["iat"], claims["exp"]) == (1_000, 1_010)


def test_revoking_one_org_leaves_the_other_alone() -> None:
    book = TokenBook(SandboxOptions())
    acme = issue(book)
    globex = book.issue(GLOBEX.clients[0], GLOBEX, grant="client_credentials", scope=(), now=0)
    assert book.revoke("acme", now=0) == 1
    assert book.revoke("acme", now=0) == 0
    assert acme.revoked
    assert not globex.revoked


def test_a_token_that_has_expired_is_not_counted_as_revoked() -> None:
    book = TokenBook(SandboxOptions(token_lifetime=10))
    issue(book)
    assert book.revoke("acme", now=10) == 0


def test_revoking_refresh_tokens_too_ends_the_families_of_that_org() -> None:
    book = TokenBook(SandboxOptions())
    acme = book.login(ACME.clients[0], ACME, ACME, ())
    globex = book.login(GLOBEX.clients[0], GLOBEX, GLOBEX, ())
    book.revoke("acme", now=0)
    assert [acme.revoked, globex.revoked] == [False, False]
    book.revoke("acme", now=0, refresh_tokens=True)
    assert [acme.revoked, globex.revoked] == [True, False]


def test_the_oldest_tokens_are_forgotten_first() -> None:
    book = TokenBook(SandboxOptions(), kept=2)
    tokens = [issue(book) for _ in range(3)]
    assert [book.find(token.value) is not None for token in tokens] == [False, True, True]


def test_no_representation_shows_a_token() -> None:
    book = TokenBook(SandboxOptions())
    family = book.login(ACME.clients[0], ACME, ACME, ())
    token = book.issue(ACME.clients[0], ACME, grant="x", scope=(), now=0, family=family)
    shown = repr(token) + repr(family)
    for secret in (token.value, family.current, str(ACME.clients[0].secret)):
        assert secret not in shown

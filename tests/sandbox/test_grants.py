"""Which grant brings which token, by a given time."""

from __future__ import annotations

import jwt
import pytest

from proxy.sandbox import ACME, DEFAULT_ORGS, GLOBEX, Client, Ledger, Org, SandboxOptions
from proxy.sandbox.clients import OAuthError, read_token_request
from proxy.sandbox.grants import Granted, Grants, s256
from proxy.sandbox.orgs import ACME_REFRESH_TOKEN, GLOBEX_REFRESH_TOKEN, JWT_BEARER, SAML2_BEARER
from proxy.sandbox.tokens import CODE_LIFETIME, TokenBook
from tests.sandbox.caller import basic

REDIRECT = "http://127.0.0.1:7777/callback"
VERIFIER = "v" * 43
NOW = 1_000.0


class Desk:
    """A token endpoint without HTTP."""

    def __init__(self, options: SandboxOptions | None = None) -> None:
        self.options = options or SandboxOptions()
        self.ledger = Ledger()
        self.book = TokenBook(self.options)
        self.grants = Grants(self.options, self.book, self.ledger)

    def ask(self, form: dict[str, str], client: Client = ACME.clients[0], *, now: float = NOW) -> Granted:
        authorization = []
        if client.secret is None:
            form = {**form, "client_id": client.id}
        else:
            authorization.append(basic(client.id, client.secret))
        body = "&".join(f"{name}={value}" for name, value in form.items())
        request = read_token_request(body.encode(), "application/x-www-form-urlencoded", authorization)
        return self.grants.token(request, now)

    def refused(self, form: dict[str, str], client: Client = ACME.clients[0], *, now: float = NOW) -> str:
        with pytest.raises(OAuthError) as caught:
            self.ask(form, client, now=now)
        return caught.value.error

    def refresh(self, value: str, client: Client = ACME.clients[0]) -> Granted:
        return self.ask(refreshing(value), client)

    def code(self, client: Client = ACME.clients[0], **query: str) -> str:
        query = {"response_type": "code", "client_id": client.id, "redirect_uri": REDIRECT, **query}
        return self.grants.authorize(query, *self.grants.asking_client(query), NOW)

    def exchange(self, code: str, client: Client = ACME.clients[0], **form: str) -> Granted:
        asked = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, **form}
        return self.ask(asked, client)


def refreshing(value: object, scope: str = "") -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": str(value), "scope": scope}


def test_client_credentials_bring_a_token_of_the_clients_org_and_no_refresh_token() -> None:
    granted = Desk().ask({"grant_type": "client_credentials", "scope": "messaging:write"})
    assert granted.refresh_token is None
    assert (granted.token.org, granted.token.scope) == (ACME, ("messaging:write",))


def test_a_clients_scope_bounds_what_its_tokens_can_have() -> None:
    client = Client("id", "secret", scope=("a", "b"))
    desk = Desk(SandboxOptions(orgs=(Org("1", "one", (client,)),)))
    assert desk.ask({"grant_type": "client_credentials", "scope": "b+c"}, client).token.scope == ("b",)
    assert desk.ask({"grant_type": "client_credentials"}, client).token.scope == ("a", "b")


def test_an_unknown_grant_type_is_unsupported() -> None:
    assert Desk().refused({"grant_type": "password"}) == "unsupported_grant_type"


def test_a_client_can_not_use_a_grant_that_it_is_not_configured_for() -> None:
    client = Client("id", "secret", grants=frozenset({"client_credentials"}))
    desk = Desk(SandboxOptions(orgs=(Org("1", "one", (client,)),)))
    assert desk.refused(refreshing("x"), client) == "unauthorized_client"


def test_a_public_client_has_no_credentials() -> None:
    client = Client("id")
    desk = Desk(SandboxOptions(orgs=(Org("1", "one", (client,)),)))
    assert desk.refused({"grant_type": "client_credentials"}, client) == "unauthorized_client"


# --- refresh tokens ---


def test_the_first_refresh_token_is_known_from_the_start() -> None:
    granted = Desk().refresh(ACME_REFRESH_TOKEN)
    assert granted.token.org is ACME
    assert granted.refresh_token not in (None, ACME_REFRESH_TOKEN)


def test_rotated_refresh_tokens_can_be_used_one_after_the_other() -> None:
    desk = Desk()
    value = ACME_REFRESH_TOKEN
    for _ in range(3):
        value = str(desk.refresh(value).refresh_token)
    assert desk.ledger.refresh_token_reuses == 0


def test_a_reused_refresh_token_revokes_all_that_came_of_the_login() -> None:
    desk = Desk()
    first = desk.refresh(ACME_REFRESH_TOKEN)
    assert first.refresh_token is not None
    assert desk.refused(refreshing(ACME_REFRESH_TOKEN)) == "invalid_grant"
    assert desk.ledger.refresh_token_reuses == 1
    assert first.token.revoked
    assert desk.refused(refreshing(first.refresh_token)) == "invalid_grant"


def test_reuse_leaves_other_logins_alone() -> None:
    desk = Desk()
    other = desk.grants.login(ACME.clients[0], ACME)
    desk.refresh(ACME_REFRESH_TOKEN)
    desk.refused(refreshing(ACME_REFRESH_TOKEN))
    assert desk.refresh(other.current).token.refusal(NOW) is None


def test_without_rotation_the_refresh_token_stays_and_is_not_told_again() -> None:
    desk = Desk(SandboxOptions(rotate_refresh_tokens=False))
    for _ in range(3):
        assert desk.refresh(ACME_REFRESH_TOKEN).refresh_token is None
    assert desk.ledger.refresh_token_reuses == 0


def test_a_refresh_token_of_another_client_is_an_invalid_grant() -> None:
    assert Desk().refused(refreshing(GLOBEX_REFRESH_TOKEN)) == "invalid_grant"


def test_a_refresh_can_not_widen_the_scope() -> None:
    desk = Desk()
    granted = desk.exchange(desk.code(scope="a b"))
    wider = desk.refused(refreshing(granted.refresh_token, "a+c"))
    assert wider == "invalid_scope"
    narrower = desk.ask(refreshing(granted.refresh_token, "a"))
    assert narrower.token.scope == ("a",)


# --- codes ---


def test_a_code_brings_a_token_and_a_refresh_token() -> None:
    desk = Desk()
    granted = desk.exchange(desk.code(scope="a b"))
    assert granted.token.scope == ("a", "b")
    assert desk.refresh(str(granted.refresh_token)).token.scope == ("a", "b")


def test_a_code_used_twice_revokes_what_it_brought() -> None:
    desk = Desk()
    code = desk.code()
    granted = desk.exchange(code)
    with pytest.raises(OAuthError, match="used before"):
        desk.exchange(code)
    assert granted.token.revoked
    assert desk.refused(refreshing(granted.refresh_token)) == "invalid_grant"


def test_a_code_holds_for_its_lifetime_its_client_and_its_redirect_uri() -> None:
    desk = Desk()
    form = {"grant_type": "authorization_code", "redirect_uri": REDIRECT}
    elsewhere = {**form, "redirect_uri": "http://127.0.0.1/"}
    assert desk.refused({**form, "code": desk.code()}, now=NOW + CODE_LIFETIME) == "invalid_grant"
    assert desk.refused({**form, "code": desk.code()}, GLOBEX.clients[0]) == "invalid_grant"
    assert desk.refused({**elsewhere, "code": desk.code()}) == "invalid_grant"
    assert desk.ask({**form, "code": desk.code()}, now=NOW + CODE_LIFETIME - 0.1).token.org is ACME


def test_a_public_client_shows_the_verifier_of_its_challenge() -> None:
    public = ACME.clients[1]
    desk = Desk()
    pkce = {"code_challenge": s256(VERIFIER), "code_challenge_method": "S256"}
    with pytest.raises(OAuthError, match="does not match"):
        desk.exchange(desk.code(public, **pkce), public, code_verifier="w" * 43)
    with pytest.raises(OAuthError, match="code_verifier is missing"):
        desk.exchange(desk.code(public, **pkce), public)
    assert desk.exchange(desk.code(public, **pkce), public, code_verifier=VERIFIER).token.client is public


@pytest.mark.parametrize(
    "query,error",
    [
        ({}, "invalid_request"),
        ({"code_challenge": "x", "code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "x"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": "x", "code_challenge_method": "S256", "target": "nobody"}, "access_denied"),
    ],
)
def test_an_authorization_request_that_lacks_something_is_refused(query: dict[str, str], error: str) -> None:
    with pytest.raises(OAuthError) as caught:
        Desk().code(ACME.clients[1], **query)
    assert caught.value.error == error


def test_the_challenge_is_the_example_of_rfc_7636() -> None:
    challenge = s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")  # RFC 7636 appendix B
    assert challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/x", "http://localhost/", "http://[::1]:5/"])
def test_loopback_redirect_uris_are_accepted_on_any_port(uri: str) -> None:
    assert Desk().grants.asking_client({"client_id": ACME.clients[0].id, "redirect_uri": uri})[1] is ACME


@pytest.mark.parametrize("uri", ["", "https://evil.invalid/", "http://127.0.0.1.evil.invalid/", "http://[::1", "/x"])
def test_other_redirect_uris_must_be_registered(uri: str) -> None:
    with pytest.raises(OAuthError, match="redirect_uri"):
        Desk().grants.asking_client({"client_id": ACME.clients[0].id, "redirect_uri": uri})


def test_a_registered_redirect_uri_is_accepted() -> None:
    client = Client("id", "secret", redirect_uris=("https://app.invalid/",))
    desk = Desk(SandboxOptions(orgs=(Org("1", "one", (client,)),)))
    assert desk.grants.asking_client({"client_id": "id", "redirect_uri": "https://app.invalid/"})[0] is client


def test_a_login_for_a_trustor_org_opens_that_org() -> None:
    desk = Desk()
    token = desk.exchange(desk.code(target=GLOBEX.id)).token
    assert (token.org, token.home) == (GLOBEX, ACME)


# --- assertions ---


def test_a_saml_assertion_goes_with_the_name_of_the_org() -> None:
    desk = Desk()
    form = {"grant_type": SAML2_BEARER, "assertion": "PHNhbWw%2B"}
    assert desk.ask({**form, "orgName": "acme"}).token.org is ACME
    assert desk.refused({**form, "orgName": "globex"}) == "invalid_grant"
    assert desk.refused(form) == "invalid_request"


def test_a_jwt_assertion_must_not_have_expired() -> None:
    desk = Desk()
    assertion = jwt.encode({"exp": NOW + 10}, b"k" * 32, algorithm="HS256")
    form = {"grant_type": JWT_BEARER, "assertion": assertion}
    assert desk.ask(form).token.org is ACME
    assert desk.refused(form, now=NOW + 10) == "invalid_grant"
    assert desk.refused({"grant_type": JWT_BEARER, "assertion": "no-jwt"}) == "invalid_grant"


def test_the_default_orgs_are_two_and_share_no_client() -> None:
    assert [org.name for org in DEFAULT_ORGS] == ["acme", "globex"]
    assert len({client.id for org in DEFAULT_ORGS for client in org.clients}) == 4

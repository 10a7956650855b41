"""A login: the page that it opens, and what it takes for its answer."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.grants import Code, Evidence, token_request
from proxy.core.login import Login, challenge
from proxy.core.secret import Secret
from proxy.errors import LoginFailed
from tests.core.test_grants import CLIENT

REDIRECT_URI = "http://localhost:8085/oauth/callback"
VERIFIER = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")

LOGIN = Login(
    replace(CLIENT, grant="refresh_token", scope=("a", "b")),
    "https://login.mypurecloud.de/oauth/authorize",
    REDIRECT_URI,
    Secret("state-1"),
    VERIFIER,
)


def answer(**query: str) -> str:
    return f"{REDIRECT_URI}?{urlencode(query)}"


def test_the_challenge_is_the_one_of_the_rfc() -> None:
    # RFC 7636, appendix B
    assert challenge(VERIFIER.reveal()) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_page_asks_for_a_code_and_gives_the_verifier_not_away() -> None:
    page = urlsplit(LOGIN.page({"org": "acme", "target": "id of/another"}))
    assert f"{page.scheme}://{page.netloc}{page.path}" == "https://login.mypurecloud.de/oauth/authorize"
    assert dict(parse_qsl(page.query, strict_parsing=True)) == {
        "response_type": "code",
        "client_id": "acme-id",
        "redirect_uri": REDIRECT_URI,
        "state": "state-1",
        "code_challenge": challenge(VERIFIER.reveal()),
        "code_challenge_method": "S256",
        "scope": "a b",
        "org": "acme",
        "target": "id of/another",
    }
    assert VERIFIER.reveal() not in page.query


def test_without_scope_none_is_asked_for() -> None:
    assert "scope" not in replace(LOGIN, client=CLIENT).page({})


@pytest.mark.parametrize(
    ("url", "is_answer"),
    [
        (REDIRECT_URI, True),
        (f"{REDIRECT_URI}?x=1", True),
        ("/oauth/callback?x=1", True),
        ("/oauth/callback/", False),
        ("/favicon.ico", False),
        ("/", False),
        ("", False),
    ],
)
def test_only_the_redirect_uris_path_is_the_answer(url: str, is_answer: bool) -> None:
    assert LOGIN.is_answer(url) is is_answer


@pytest.mark.parametrize("prefix", [REDIRECT_URI, "/oauth/callback"])
def test_the_answer_has_the_code(prefix: str) -> None:
    url = f"{prefix}?{urlencode({'code': 'c/ö+1', 'state': 'state-1'})}"
    assert LOGIN.code(url) == Code(Secret("c/ö+1"), REDIRECT_URI, VERIFIER)


@pytest.mark.parametrize("state", ["state-2", "state-1x", "STATE-1", "ö", "s", "state-"])
@pytest.mark.parametrize("said", [{"code": "c"}, {"error": "access_denied"}, {}])
def test_whoever_does_not_know_the_state_neither_logs_in_nor_ends_the_login(said: dict[str, str], state: str) -> None:
    with pytest.raises(LoginFailed, match="belongs to no login") as caught:
        LOGIN.code(answer(state=state, **said))
    assert not caught.value.final


@pytest.mark.parametrize(
    "pasted",
    ["", "c", "what?", REDIRECT_URI, f"{REDIRECT_URI}?", f"{REDIRECT_URI}?code=c", f"{REDIRECT_URI}?code=c&state="],
)
def test_what_is_not_the_whole_address_is_told_so_and_ends_nothing(pasted: str) -> None:
    with pytest.raises(LoginFailed, match=r"the whole address .* with code= and state= in it") as caught:
        LOGIN.code(pasted)
    assert not caught.value.final


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("access_denied", "was refused (access_denied)"),
        ("unauthorized_client", "Code Authorization"),
        ("invalid_scope", "compare scope"),
        ("server_error", "(server_error)"),
        ("<script>", "the login page refuses the request"),
    ],
)
def test_a_refusal_ends_the_login_and_says_why(error: str, told: str) -> None:
    with pytest.raises(LoginFailed, match=re.escape(told)) as caught:
        LOGIN.code(answer(error=error, state="state-1"))
    assert caught.value.final
    assert "<" not in str(caught.value)


@pytest.mark.parametrize("said", [{}, {"code": ""}])
def test_an_answer_without_a_code_ends_the_login(said: dict[str, str]) -> None:
    with pytest.raises(LoginFailed, match="no code") as caught:
        LOGIN.code(answer(state="state-1", **said))
    assert caught.value.final


@given(st.text())
def test_no_text_is_an_accident(text: str) -> None:
    with pytest.raises(LoginFailed):
        LOGIN.code(text)


def test_a_code_is_redeemed_with_what_was_asked_for_it() -> None:
    # RFC 6749 4.1.3, RFC 7636 4.5
    client = replace(LOGIN.client, grant="authorization_code")
    request = token_request(client, Evidence(code=LOGIN.code(answer(code="c", state="state-1"))))
    assert dict(parse_qsl(request.body.decode())) == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": REDIRECT_URI,
        "code_verifier": VERIFIER.reveal(),
    }
    assert request.headers["Authorization"].startswith("Basic ")


def test_nothing_of_a_login_shows_in_a_repr() -> None:
    shown = f"{LOGIN!r} {LOGIN.code(answer(code='hunter2', state='state-1'))!r}"
    for hidden in ("hunter2", "state-1", VERIFIER.reveal()):
        assert hidden not in shown

"""What is read of guests' exchanges and refreshes."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.core.guests import (
    LONGEST_CONTENT,
    Issued,
    RefreshedJwt,
    bearer,
    issued,
    read_refreshed,
    refresh_request,
)
from proxy.core.secret import Secret
from proxy.errors import TokenRefused, TokenUnavailable

NOW = 1_700_000_000.0


def content(**members: object) -> bytes:
    return json.dumps(members).encode()


def test_an_exchange_brings_both() -> None:
    asked = content(deploymentId="d", oauth={"code": "c"})
    assert issued(asked, content(jwt="a.b.c", refreshToken="r1")) == Issued("a.b.c", "r1")


def test_a_refresh_brings_the_jwt_of_the_refresh_token_that_was_sent() -> None:
    assert issued(content(refreshToken="r1"), content(jwt="a.b.c")) == Issued("a.b.c", "r1")
    assert issued(content(refreshToken="r1"), content(jwt="a.b.c", refreshToken="r2")) == Issued("a.b.c", "r2")


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", content(jwt="a.b.c")),
        (content(refreshToken="r1"), b""),
        (content(refreshToken="r1"), content(jwt="")),
        (content(refreshToken="r1"), content(jwt="a b")),
        (content(refreshToken="r1"), content(jwt="a\r\nX: y")),
        (content(refreshToken="r1"), content(jwt="ä")),
        (content(refreshToken="r1"), content(jwt=7)),
        (content(refreshToken="r1"), b"[]"),
        (content(refreshToken="r1"), b"<html>"),
        (content(refreshToken="r1"), b"[" * 50_000),
        (content(refreshToken="r1"), b"\xff"),
        (content(refreshToken=["r1"]), content(jwt="a.b.c")),
        (content(refreshToken="r1"), content(jwt="a.b.c", x="x" * LONGEST_CONTENT)),
        (content(refreshToken="r1", x="x" * LONGEST_CONTENT), content(jwt="a.b.c")),
    ],
    ids=repr,
)
def test_what_can_not_be_told_is_not_guessed(sent: bytes, answered: bytes) -> None:
    assert issued(sent, answered) is None


@given(
    st.binary(max_size=60) | st.builds(lambda t: json.dumps(t).encode(), st.recursive(st.text(), st.lists)), st.binary()
)
def test_no_content_is_an_accident(one: bytes, other: bytes) -> None:
    assert issued(one, other) is None


def test_the_longest_content_is_read() -> None:
    bare = content(jwt="a.b.c", refreshToken="r1", x="")
    whole = content(jwt="a.b.c", refreshToken="r1", x="x" * (LONGEST_CONTENT - len(bare)))
    assert len(whole) == LONGEST_CONTENT
    assert issued(b"", whole) == Issued("a.b.c", "r1")


@pytest.mark.parametrize(
    ("credential", "token"),
    [
        (b"Bearer a.b.c", "a.b.c"),
        (b"bearer  a.b.c ", "a.b.c"),
        (b"Bearer ", None),
        (b"Bearer", None),
        (b"", None),
        (None, None),
        (b"Basic a.b.c", None),
        (b"Bearer \xff", None),
    ],
)
def test_a_credential_is_a_bearer_token_or_nothing(credential: bytes | None, token: str | None) -> None:
    assert bearer(credential) == token


# --- a refresh of ours ---


def test_a_refresh_sends_the_refresh_token_alone() -> None:
    assert json.loads(refresh_request(Secret('r"1'))) == {"refreshToken": 'r"1'}


def test_a_refresh_brings_a_jwt_and_the_servers_time() -> None:
    headers = CIMultiDict({"date": formatdate(NOW, usegmt=True)})
    assert read_refreshed("acme", 200, headers, content(jwt="a.b.c"), 0) == RefreshedJwt("a.b.c", NOW)
    assert read_refreshed("acme", 200, {}, content(jwt="a.b.c"), 0) == RefreshedJwt("a.b.c", None)


@pytest.mark.parametrize("body", [b"", b"<html>", content(), content(jwt=None), content(jwt="a b")])
def test_a_success_without_a_jwt_is_none_for_now(body: bytes) -> None:
    with pytest.raises(TokenUnavailable, match="Tenant acme") as caught:
        read_refreshed("acme", 200, {}, body, NOW)
    assert caught.value.error == "no_jwt"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_api_may_be_asked_later(status: int) -> None:
    with pytest.raises(TokenUnavailable) as caught:
        read_refreshed("acme", status, CIMultiDict({"retry-after": "7"}), content(jwt="a.b.c"), NOW)
    assert (caught.value.error, caught.value.retry_after) == (f"http_{status}", 7)


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 403, 404])
def test_any_other_answer_ends_it(status: int) -> None:
    with pytest.raises(TokenRefused) as caught:
        read_refreshed("acme", status, {}, content(message="hunter2"), NOW)
    assert caught.value.error == f"http_{status}"
    assert "hunter2" not in str(caught.value)

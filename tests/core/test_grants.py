"""What a token request says, what its answers mean, and what makes two clients' tokens differ."""

from __future__ import annotations

import base64
from dataclasses import fields, replace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.grants import ASSERTION_LIFETIME, AssertionFile, Client, Evidence, SigningKey, claims, token_request
from proxy.core.secret import Secret

NOW = 1_700_000_000.0
SECRET = "hunter2-of-acme"

CLIENT = Client(
    tenant="acme",
    token_url="https://login.mypurecloud.de/oauth/token",
    client_id="acme-id",
    client_secret=Secret(SECRET),
)


def form(client: Client) -> list[tuple[str, str]]:
    return parse_qsl(token_request(client).body.decode("ascii"), keep_blank_values=True, strict_parsing=True)


def basic(client: Client) -> str:
    scheme, _, encoded = token_request(client).headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(encoded, validate=True).decode("ascii")


KEY = SigningKey(Secret("pem"), "RS256")

CHANGES: dict[str, tuple[object, ...]] = {
    "org_id": ("org-1", ""),
    "token_url": ("https://login.mypurecloud.ie/oauth/token", "https://login.mypurecloud.de/oauth/token/"),
    "member": (1, 2),
    "client_id": ("acme-id2", "", "acme"),
    "client_secret": (Secret("hunter3"), Secret(""), None),
    "client_auth": ("client_secret_post", "none"),
    "grant": ("refresh_token", "jwt_bearer"),
    "refresh_token": (Secret("hunter3"), Secret("hunter4"), Secret("")),
    "fallback_grant": ("client_credentials", "saml2_bearer"),
    "signing_key": (
        KEY,
        replace(KEY, pem=Secret("hunter3")),
        replace(KEY, algorithm="PS256"),
        replace(KEY, key_id="1"),
        replace(KEY, key_id=""),
    ),
    "assertion": (Secret("hunter3"), Secret("pem"), AssertionFile("hunter3"), AssertionFile("pem")),
    "subject": ("agent@acme", "", "x"),
    "audience": ("agent@acme", "", "x"),
    "scope": (("messaging:write",), ("a", "b"), ("a b",), ("",)),
    "resource_server": ("partner-org-id", "", "x"),
    "parameters": ({"orgName": "x"}, {"orgName": "y"}, {"orgName": ("x", "y")}, {"x": "orgName"}, {"orgName": ""}),
    "headers": ({"orgName": "x"}, {"orgName": "y"}, {"X-Org": "x"}),
}


texts = st.text(st.characters(codec="utf-8"), max_size=3)
values = texts | st.lists(texts, max_size=2).map(tuple)
clients = st.builds(
    Client,
    tenant=st.just("acme"),
    token_url=texts,
    org_id=st.none() | texts,
    client_id=texts,
    client_secret=st.none() | texts.map(Secret),
    client_auth=texts,
    grant=texts,
    refresh_token=st.none() | texts.map(Secret),
    fallback_grant=st.none() | texts,
    signing_key=st.none() | st.builds(SigningKey, texts.map(Secret), texts, st.none() | texts),
    assertion=st.none() | texts.map(Secret) | texts.map(AssertionFile),
    subject=st.none() | texts,
    audience=st.none() | texts,
    scope=st.lists(texts, max_size=2).map(tuple),
    resource_server=st.none() | texts,
    parameters=st.dictionaries(texts, values, max_size=2),
    headers=st.dictionaries(texts, texts, max_size=2),
)


@pytest.mark.parametrize("assertion", [None, Secret("of-somebody-else"), AssertionFile("/run/assertion")])
@pytest.mark.parametrize(
    ("grant", "signed_here"),
    [
        ("client_credentials", True),
        ("jwt_bearer", True),
        ("saml2_bearer", False),
        ("refresh_token", False),
        ("authorization_code", False),
    ],
)
def test_a_request_that_shows_what_may_be_good_for_one_use_is_not_repeatable(
    grant: str, assertion: Secret | AssertionFile | None, *, signed_here: bool
) -> None:
    client = replace(CLIENT, grant=grant, assertion=assertion, subject="agent", signing_key=KEY)
    assert client.repeatable == (signed_here and (assertion is None or grant == "client_credentials"))


def test_a_fallback_is_as_repeatable_as_its_own_grant() -> None:
    client = replace(CLIENT, grant="refresh_token", fallback_grant="jwt_bearer", subject="agent", signing_key=KEY)
    assert client.fallback is not None
    assert (client.repeatable, client.fallback.repeatable) == (False, True)


# --- the request ---


def test_a_client_credentials_request_says_no_more_than_it_must() -> None:
    request = token_request(CLIENT)
    assert request.url == CLIENT.token_url
    assert request.body == b"grant_type=client_credentials"
    assert request.headers == {
        "Authorization": "Basic " + base64.b64encode(f"acme-id:{SECRET}".encode()).decode(),
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }


def test_scopes_are_one_parameter() -> None:
    assert ("scope", "messaging:write users:read") in form(replace(CLIENT, scope=("messaging:write", "users:read")))


def test_a_resource_server_is_named_in_a_parameter_and_in_a_field() -> None:
    client = replace(CLIENT, resource_server="partner org")
    assert ("resourceServer", "partner org") in form(client)
    assert token_request(client).headers["resource_server"] == "partner org"


def test_a_list_of_values_is_sent_as_the_parameter_repeated_in_order() -> None:
    client = replace(CLIENT, parameters={"resource": ("https://b.example/?x=1&y", "a"), "orgName": "Ärger & Söhne"})
    assert form(client) == [
        ("grant_type", "client_credentials"),
        ("resource", "https://b.example/?x=1&y"),
        ("resource", "a"),
        ("orgName", "Ärger & Söhne"),
    ]


def test_a_parameter_without_value_is_sent() -> None:
    assert ("audience", "") in form(replace(CLIENT, parameters={"audience": ""}))


def test_further_fields_are_sent_and_decide_none_of_ours() -> None:
    client = replace(CLIENT, headers={"X-Gateway": "blue", "Authorization": "Basic forged", "Accept": "text/html"})
    headers = token_request(client).headers
    assert headers["X-Gateway"] == "blue"
    assert headers["Accept"] == "application/json"
    assert basic(client) == f"acme-id:{SECRET}"


@pytest.mark.parametrize(
    ("client_id", "secret", "pair"),
    [
        ("plain-id_1.2", "s", "plain-id_1.2:s"),
        ("urn:acme:id", "a:b", "urn%3Aacme%3Aid:a%3Ab"),
        ("a b", "100%", "a+b:100%25"),
        ("a+b", "x/y=z&", "a%2Bb:x%2Fy%3Dz%26"),
        ("ü", "€", "%C3%BC:%E2%82%AC"),
    ],
)
def test_id_and_secret_are_form_encoded_before_they_are_joined(client_id: str, secret: str, pair: str) -> None:
    # RFC 6749 2.3.1 and appendix B.
    assert basic(replace(CLIENT, client_id=client_id, client_secret=Secret(secret))) == pair


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))


@given(printable, printable)
def test_a_server_reads_the_same_id_and_secret_whatever_they_are(client_id: str, secret: str) -> None:
    pair = basic(replace(CLIENT, client_id=client_id, client_secret=Secret(secret)))
    assert pair.count(":") == 1
    assert parse_qsl(pair.replace(":", "="), keep_blank_values=True) == [(client_id, secret)]


@given(st.dictionaries(printable, printable | st.lists(printable, max_size=3).map(tuple), max_size=4))
def test_a_server_reads_the_same_parameters_whatever_they_are(parameters: dict[str, str | tuple[str, ...]]) -> None:
    sent = [
        (name, each) for name, value in parameters.items() for each in ((value,) if isinstance(value, str) else value)
    ]
    assert form(replace(CLIENT, parameters=parameters))[1:] == sent


def test_no_way_of_printing_shows_what_a_request_carries() -> None:
    request = token_request(replace(CLIENT, parameters={"assertion": SECRET}))
    for shown in (repr(request), str(request), repr(CLIENT)):
        assert SECRET not in shown
        assert request.headers["Authorization"] not in shown


# --- client authentication ---


def test_a_secret_in_the_form_needs_no_authorization() -> None:
    client = replace(CLIENT, client_auth="client_secret_post")
    assert form(client) == [
        ("grant_type", "client_credentials"),
        ("client_id", "acme-id"),
        ("client_secret", SECRET),
    ]
    assert "Authorization" not in token_request(client).headers


def test_a_client_without_authentication_names_itself_and_shows_nothing() -> None:
    client = replace(CLIENT, client_auth="none", grant="refresh_token")
    request = token_request(client, Evidence(refresh_token=Secret("r1")))
    assert parse_qsl(request.body.decode()) == [
        ("grant_type", "refresh_token"),
        ("refresh_token", "r1"),
        ("client_id", "acme-id"),
    ]
    assert "Authorization" not in request.headers


def test_a_signed_assertion_takes_the_secrets_place() -> None:
    client = replace(CLIENT, client_auth="private_key_jwt")
    request = token_request(client, Evidence(client_assertion="h.p.s"))
    # RFC 7523 2.2
    assert parse_qsl(request.body.decode()) == [
        ("grant_type", "client_credentials"),
        ("client_id", "acme-id"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", "h.p.s"),
    ]
    assert SECRET not in request.body.decode()
    assert "Authorization" not in request.headers


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"])
@pytest.mark.parametrize("grant", ["client_credentials", "refresh_token", "saml2_bearer", "jwt_bearer"])
def test_no_request_proves_the_client_in_two_ways(client_auth: str, grant: str) -> None:
    # RFC 6749 2.3
    client = replace(CLIENT, client_auth=client_auth, grant=grant)
    request = token_request(client, Evidence("client-assertion", "assertion", Secret("r1")))
    names = [name for name, _ in parse_qsl(request.body.decode())]
    assert len(names) == len(set(names))
    proofs = {"client_secret", "client_assertion"} & set(names) | {"Authorization"} & set(request.headers)
    assert len(proofs) == (client_auth != "none")


# --- grants ---


def test_a_refresh_shows_the_refresh_token_it_is_given_and_never_the_first() -> None:
    client = replace(CLIENT, grant="refresh_token", refresh_token=Secret("first"), scope=("a",))
    request = token_request(client, Evidence(refresh_token=Secret("fifth")))
    assert parse_qsl(request.body.decode()) == [
        ("grant_type", "refresh_token"),
        ("refresh_token", "fifth"),
        ("scope", "a"),
    ]


@pytest.mark.parametrize(
    ("grant", "urn"),
    [
        ("saml2_bearer", "urn:ietf:params:oauth:grant-type:saml2-bearer"),
        ("jwt_bearer", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
    ],
)
def test_an_assertion_grant_has_its_urn(grant: str, urn: str) -> None:
    # RFC 7522 2.1, RFC 7523 2.1
    request = token_request(replace(CLIENT, grant=grant, parameters={"orgName": "acme"}), Evidence(assertion="a+/="))
    assert parse_qsl(request.body.decode()) == [("grant_type", urn), ("assertion", "a+/="), ("orgName", "acme")]


@pytest.mark.parametrize(
    "changes",
    [
        {"grant": "refresh_token"},
        {"grant": "saml2_bearer"},
        {"grant": "jwt_bearer"},
        {"client_auth": "private_key_jwt"},
        {"client_secret": None},
        {"client_secret": None, "client_auth": "client_secret_post"},
    ],
)
def test_a_request_that_would_lack_its_evidence_is_never_made(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        token_request(replace(CLIENT, **changes))


def test_the_fallback_is_the_same_client_with_another_grant() -> None:
    client = replace(CLIENT, grant="refresh_token", refresh_token=Secret("r1"), fallback_grant="client_credentials")
    assert client.fallback == CLIENT
    assert CLIENT.fallback is None


def test_an_assertion_says_who_speaks_for_whom_to_whom_and_until_when() -> None:
    # RFC 7523 3
    assert claims(CLIENT, "agent@acme", 1_700_000_000.9, "id-1") == {
        "iss": "acme-id",
        "sub": "agent@acme",
        "aud": "https://login.mypurecloud.de/oauth/token",
        "iat": 1_700_000_000,
        "exp": 1_700_000_000 + ASSERTION_LIFETIME,
        "jti": "id-1",
    }
    assert claims(replace(CLIENT, audience="https://issuer"), "x", 0, "y")["aud"] == "https://issuer"


# --- the key ---


def test_every_field_of_a_client_is_in_the_key_but_the_tenants_name_and_api() -> None:
    assert CHANGES.keys() == {field.name for field in fields(Client) if field.init} - {"tenant", "api_url"}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in CHANGES.items() for value in values], ids=str
)
def test_changing_any_one_field_gives_another_key(name: str, value: object) -> None:
    changes: dict[str, Any] = {name: value}
    assert replace(CLIENT, **changes).key != CLIENT.key


def test_all_these_clients_have_different_keys() -> None:
    clients = [CLIENT]
    for name, values in CHANGES.items():
        changes: list[dict[str, Any]] = [{name: value} for value in values]
        clients += [replace(CLIENT, **change) for change in changes]
    assert len({client.key for client in clients}) == len(clients)


@given(clients, clients, st.sampled_from(sorted(CHANGES)))
def test_two_clients_that_differ_in_one_field_have_two_keys(one: Client, other: Client, name: str) -> None:
    changes: dict[str, Any] = {name: getattr(other, name)}
    changed = replace(one, **changes)
    assert (changed.key == one.key) == (changed == one)


def test_the_tenants_name_its_api_and_the_order_of_parameters_and_fields_make_no_other_token() -> None:
    one = replace(CLIENT, parameters={"a": "1", "b": "2"}, headers={"c": "3", "d": "4"})
    other = replace(
        CLIENT,
        tenant="emca",
        api_url="https://api.example",
        parameters={"b": "2", "a": "1"},
        headers={"d": "4", "c": "3"},
    )
    assert one.key == other.key


def test_a_configured_refresh_token_is_one_whatever_its_tenants_are_called_and_a_login_is_each_ones_own() -> None:
    person = replace(CLIENT, grant="refresh_token")
    for refresh_token, same in ((Secret("first"), True), (None, False)):
        one = replace(person, refresh_token=refresh_token)
        assert (replace(one, tenant="emca").key == one.key) is same


def test_a_key_does_not_give_the_secret_away() -> None:
    assert SECRET not in CLIENT.key
    assert len(CLIENT.key) == 64


def test_a_client_with_another_secret_or_way_to_show_it_is_the_same_client() -> None:
    known = Client("acme", "https://login.example/oauth/token", "id", client_secret=Secret("one"))
    assert replace(known, client_secret=Secret("two")).is_another_proof_of(known)
    assert replace(known, client_secret=None, client_auth="private_key_jwt", signing_key=KEY).is_another_proof_of(known)
    others = (
        replace(known, client_id="other"), replace(known, token_url="https://login.other/oauth/token"),
        replace(known, scope=("a",)), replace(known, grant="jwt_bearer"), replace(known, org_id="org"),
        replace(known, resource_server="x"), replace(known, parameters={"a": "b"}), replace(known, member=1),
        replace(known, refresh_token=Secret("other")),
    )  # fmt: skip
    assert not any(other.is_another_proof_of(known) for other in others)

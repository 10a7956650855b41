"""How a client proves who it is, and what its grant shows: which keys that takes, and which it leaves idle."""

from __future__ import annotations

import itertools
import json
import sys
from functools import cache

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from proxy.core.grants import AssertionFile
from proxy.core.secret import Secret
from proxy.settings import TenantSettings
from tests.settings.folder import Folder

TENANT = '[tenants.acme]\nregion = "eu-central-1"\nclient_id = "id"\n'
SECRET = 'client_secret = "secret"\n'
SIGNED = 'client_auth = "private_key_jwt"\nprivate_key = { file = "key.pem" }\n'

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k1": ec.SECP256K1()}


@cache
def key(kind: str) -> PrivateKeyTypes:
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "short rsa":
            return rsa.generate_private_key(65537, 1024)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case "x25519":
            return x25519.X25519PrivateKey.generate()
    return ec.generate_private_key(CURVES[kind])


def pem(kind: str) -> bytes:
    return key(kind).private_bytes(PEM, PKCS8, PLAIN)


PUBLIC = key("rsa").public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
LOCKED = key("rsa").private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x"))


@pytest.fixture
def signed(folder: Folder) -> Folder:
    """A folder with a key in it."""
    folder.write("key.pem", pem("rsa"))
    folder.write("acme.saml", "PHNhbWw+")
    return folder


def tenant(folder: Folder, keys: str) -> TenantSettings:
    return folder.load(TENANT + keys).tenants["acme"]


# --- client authentication ---


@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
def test_a_secret_is_shown_in_one_of_two_ways(folder: Folder, client_auth: str) -> None:
    found = tenant(folder, f'{SECRET}client_auth = "{client_auth}"')
    assert (found.client_auth, found.client_secret) == (client_auth, Secret("secret"))
    (problem,) = folder.problems(f'{TENANT}client_auth = "{client_auth}"')
    assert problem.startswith("proxy.toml: tenants.acme.client_secret: expected the OAuth client's secret")


@pytest.mark.parametrize(
    "kind,algorithm",
    [
        ("rsa", "RS256"),
        ("p256", "ES256"),
        ("p384", "ES384"),
        ("p521", "ES512"),
        ("ed25519", "EdDSA"),
        ("ed448", "EdDSA"),
    ],
)
def test_the_key_decides_how_it_signs(folder: Folder, kind: str, algorithm: str) -> None:
    folder.write("key.pem", pem(kind))
    found = tenant(folder, SIGNED + 'key_id = "1"').signing_key
    assert found is not None
    assert (found.algorithm, found.key_id) == (algorithm, "1")
    assert found.pem == Secret(pem(kind).decode().rstrip("\n"))


def test_an_rsa_key_may_sign_in_other_ways(signed: Folder) -> None:
    found = tenant(signed, SIGNED + 'signing_algorithm = "PS256"').signing_key
    assert found is not None
    assert found.algorithm == "PS256"
    (problem,) = signed.problems(TENANT + SIGNED + 'signing_algorithm = "ES256"')
    assert problem.startswith("proxy.toml: tenants.acme.signing_algorithm: expected RS256 or RS384 or ")
    assert problem.endswith('(got "ES256")')


def test_a_key_may_stand_in_a_variable(folder: Folder) -> None:
    keys = SIGNED.replace('file = "key.pem"', 'env = "KEY"')
    assert folder.load(TENANT + keys, {"KEY": pem("p256").decode()}).tenants["acme"].signing_key is not None


def test_private_key_jwt_needs_a_key(folder: Folder) -> None:
    (problem,) = folder.problems(TENANT + 'client_auth = "private_key_jwt"')
    assert problem.startswith("proxy.toml: tenants.acme.private_key: expected the client's private key")


@pytest.mark.parametrize(
    "content,message",
    [
        (b"secret\n", "expected a private key in PEM"),
        (
            key("rsa").public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "expected a private key in PEM",
        ),
        (
            key("rsa").private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x")),
            "expected a private key without a passphrase",
        ),
        (pem("short rsa"), "expected an RSA key of at least 2048 bits (got 1024) (RFC 7518 3.3)"),
        (pem("k1"), "expected an RSA, P-256, P-384, P-521, Ed25519 or Ed448 key"),
        (pem("x25519"), "expected an RSA, P-256, P-384, P-521, Ed25519 or Ed448 key"),
    ],
    ids=["no key", "public key", "passphrase", "short", "other curve", "no signing key"],
)
def test_any_other_key_is_refused_and_not_shown(folder: Folder, content: bytes, message: str) -> None:
    folder.write("key.pem", content)
    assert folder.problems(TENANT + SIGNED) == [f"proxy.toml: tenants.acme.private_key: {message}"]


def test_a_key_without_the_package_that_reads_it_says_what_to_install(
    signed: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    (problem,) = signed.problems(TENANT + SIGNED)
    assert problem.endswith("pip install 'genesys-auth-proxy[signing]'")


def test_client_credentials_rest_on_client_authentication(folder: Folder) -> None:
    (problem,) = folder.problems(TENANT + 'client_auth = "none"')
    assert problem.startswith("proxy.toml: tenants.acme.client_auth: expected client authentication")


# --- grants ---


@pytest.mark.parametrize("grant", ["saml2_bearer", "jwt_bearer"])
def test_an_assertion_is_a_literal_a_variable_or_a_file_that_is_read_later(signed: Folder, grant: str) -> None:
    keys = f'{TENANT}client_auth = "none"\ngrant = "{grant}"\nassertion = '
    assert signed.load(keys + '"a.b.c"').tenants["acme"].assertion == Secret("a.b.c")
    assert signed.load(keys + '{ env = "A" }', {"A": "a.b.c"}).tenants["acme"].assertion == Secret("a.b.c")
    settings = signed.load(keys + '{ file = "acme.saml" }')
    assert settings.tenants["acme"].assertion == AssertionFile(str(signed.path / "acme.saml"))
    assert tuple(settings.sources) == (signed.main,), "a new assertion is no reason to reload"


@pytest.mark.parametrize("value", ['"a b"', '"<saml/> x"', '"ä"', '"a\\nb"', '{ file = "gone" }', "5", '{ url = "x" }'])
def test_any_other_assertion_is_refused(folder: Folder, value: str) -> None:
    (problem,) = folder.problems(f'{TENANT}client_auth = "none"\ngrant = "saml2_bearer"\nassertion = {value}')
    assert problem.startswith("proxy.toml: tenants.acme.assertion: ")


def test_saml_needs_an_assertion(folder: Folder) -> None:
    (problem,) = folder.problems(f'{TENANT}{SECRET}grant = "saml2_bearer"')
    assert problem.startswith("proxy.toml: tenants.acme.assertion: expected a SAML assertion")


def test_a_jwt_is_signed_here_for_somebody(signed: Folder) -> None:
    keys = f'{SECRET}grant = "jwt_bearer"\nprivate_key = {{ file = "key.pem" }}\nsubject = "agent"\naudience = "aud"'
    found = tenant(signed, keys)
    assert found.signing_key is not None
    assert (found.subject, found.audience, found.client_secret) == ("agent", "aud", Secret("secret"))
    problems = signed.problems(f'{TENANT}{SECRET}grant = "jwt_bearer"')
    assert [problem.split(": ")[1] for problem in problems] == ["tenants.acme.private_key", "tenants.acme.subject"]


REFRESHING = f'{TENANT}{SECRET}grant = "refresh_token"\n'


def test_a_refresh_token_is_configured_or_comes_by_a_login(folder: Folder) -> None:
    assert folder.load(REFRESHING).tenants["acme"].refresh_token is None
    found = folder.load(f'{REFRESHING}refresh_token = "r1"').tenants["acme"]
    assert (found.refresh_token, found.fallback_grant) == (Secret("r1"), None)


TWIN = REFRESHING.replace("tenants.acme", "tenants.twin")
SAME = 'refresh_token = "r1"\n'


@pytest.mark.parametrize("more", ["", 'allow = ["GET /**"]\n', "keep_warm = false\nrefresh_ahead = 5\n"])
def test_tenants_that_get_the_same_tokens_may_have_one_refresh_token(folder: Folder, more: str) -> None:
    tenants = folder.load(REFRESHING + SAME + TWIN + SAME + more).tenants
    assert {tenant.refresh_token.reveal() for tenant in tenants.values() if tenant.refresh_token} == {"r1"}


OTHER = {
    "scope": 'scope = ["a"]', "org_id": 'org_id = "x"', "resource_server": 'resource_server = "x"',
    "login_url": 'login_url = "https://login.example"', "client_auth": 'client_auth = "client_secret_post"',
    "fallback_grant": 'fallback_grant = "client_credentials"', "token_headers": 'token_headers = { a = "b" }',
    "token_parameters": 'token_parameters = { a = "b" }',
}  # fmt: skip


@pytest.mark.parametrize("key", OTHER)
def test_tenants_that_get_other_tokens_may_not_have_one_refresh_token(folder: Folder, key: str) -> None:
    (problem,) = folder.problems(f"{REFRESHING}{SAME}{TWIN}{SAME}{OTHER[key]}")
    assert problem == (
        f"proxy.toml: tenants.twin.refresh_token: is that of tenants.acme too, whose {key} is another, and a refresh "
        "token is used once; make that the same, or take this out and run: genesys-auth-proxy login twin"
    )
    assert folder.load(f'{REFRESHING}{SAME}{TWIN}refresh_token = "r2"\n{OTHER[key]}').tenants.keys() == {"acme", "twin"}


def test_the_same_refresh_token_is_found_wherever_it_stands(folder: Folder) -> None:
    (folder.path / "token").write_text("r1\n")
    given = [SAME, 'refresh_token = { env = "TOKEN" }\n', 'refresh_token = { file = "token" }\n']
    for one, other in itertools.permutations(given, 2):
        text = f"{REFRESHING}{one}{TWIN}{other}scope = 'x'"
        (problem,) = folder.problems(text.replace("'x'", '["x"]'), {"TOKEN": "r1"})
        assert problem.startswith("proxy.toml: tenants.twin.refresh_token: is that of tenants.acme too")
        assert "r1" not in problem


def test_a_default_refresh_token_of_several_clients_is_an_error_for_all_but_the_first(folder: Folder) -> None:
    text = f'[defaults]\ngrant = "refresh_token"\n{SAME}'
    for name in ("one", "two", "six"):
        text += f'[tenants.{name}]\nregion = "mypurecloud.de"\nclient_id = "id-of-{name}"\nclient_secret = "secret"\n'
    problems = folder.problems(text)
    assert [problem.partition(" too,")[0] for problem in problems] == [
        f"proxy.toml: tenants.{name}.refresh_token: is that of tenants.one" for name in ("two", "six")
    ]
    text += '[tenants.plain]\nregion = "mypurecloud.de"\ngrant = "client_credentials"\nclient_id = "p"\n'
    assert len(folder.problems(text + 'client_secret = "secret"\n')) == 2, "one that does not use it has its own"


def test_the_fallback_grant_needs_what_it_would_need_alone(folder: Folder) -> None:
    fallback = f"{REFRESHING}fallback_grant = "
    assert folder.load(f'{fallback}"client_credentials"').tenants["acme"].fallback_grant == "client_credentials"
    found = folder.load(f'{fallback}"saml2_bearer"\nassertion = "a"').tenants["acme"]
    assert found.assertion == Secret("a")
    (problem,) = folder.problems(f'{fallback}"saml2_bearer"')
    assert problem.startswith("proxy.toml: tenants.acme.assertion: expected a SAML assertion")
    (problem,) = folder.problems(f'{fallback}"refresh_token"')
    assert problem.startswith("proxy.toml: tenants.acme.fallback_grant: expected ")
    public = fallback.replace(SECRET, 'client_auth = "none"\n')
    (problem,) = folder.problems(f'{public}"client_credentials"')
    assert problem.startswith("proxy.toml: tenants.acme.client_auth: expected client authentication")


@pytest.mark.parametrize("uri", ["http://localhost:8085/oauth/callback", "http://127.0.0.1:0/", "http://[::1]:1/a-b"])
def test_a_redirect_uri_is_one_of_this_machines(folder: Folder, uri: str) -> None:
    assert folder.load(f'{REFRESHING}redirect_uri = "{uri}"').tenants["acme"].redirect_uri == uri


@pytest.mark.parametrize(
    "uri",
    ["https://localhost:1/", "http://localhost/", "http://localhost:1", "http://example.com:1/", "http://localhost:1/?a",
     "http://localhost:1/#a", "http://u:p@localhost:1/", "http://localhost:65536/", "http://0.0.0.0:1/", "", "x"],
)  # fmt: skip
def test_any_other_redirect_uri_is_refused(folder: Folder, uri: str) -> None:
    (problem,) = folder.problems(f'{REFRESHING}redirect_uri = "{uri}"')
    assert problem.startswith("proxy.toml: tenants.acme.redirect_uri: expected an http URL on localhost")


# --- what would do nothing ---

IDLE = {
    "refresh_token": [('"x"', SECRET)],
    "fallback_grant": [('"client_credentials"', SECRET)],
    "client_secret": [('"x"', 'client_auth = "none"\ngrant = "saml2_bearer"\nassertion = "a"'), ('"x"', SIGNED)],
    "private_key": [
        ('{ file = "key.pem" }', SECRET),
        ('{ file = "key.pem" }', f'{SECRET}grant = "jwt_bearer"\nassertion = "a"'),
    ],
    "key_id": [('"1"', SECRET)],
    "signing_algorithm": [('"RS256"', SECRET)],
    "audience": [('"a"', SECRET)],
    "assertion": [('"a"', SECRET), ('"a"', SIGNED)],
    "subject": [('"a"', SECRET), ('"a"', SIGNED), ('"a"', f'{SECRET}grant = "jwt_bearer"\nassertion = "a"')],
}


@pytest.mark.parametrize("name,value,others", [(name, *each) for name, many in IDLE.items() for each in many])
def test_a_key_that_would_do_nothing_is_a_mistake(signed: Folder, name: str, value: str, others: str) -> None:
    (problem,) = signed.problems(f"{TENANT}{others}\n{name} = {value}")
    assert problem.startswith(f"proxy.toml: tenants.acme.{name}: expected only with ")


def test_in_defaults_it_is_there_for_those_who_need_it(signed: Folder) -> None:
    defaults = f'[defaults]\n{SECRET}private_key = {{ file = "key.pem" }}\nkey_id = "1"\naudience = "a"\n'
    found = tenant(signed, SECRET)
    inherited = signed.load(defaults + TENANT).tenants["acme"]
    assert inherited == found, "and is nothing to the others"
    signing = signed.load(f'{defaults}{TENANT}client_auth = "private_key_jwt"').tenants["acme"]
    assert signing.signing_key is not None
    assert (signing.signing_key.key_id, signing.client_secret) == ("1", None)


def test_a_broken_grant_is_the_only_problem(signed: Folder) -> None:
    (problem,) = signed.problems(f'{TENANT}{SIGNED}grant = "x"\nsubject = "a"')
    assert "tenants.acme.grant: " in problem


def test_no_repr_shows_a_key_or_an_assertion(signed: Folder) -> None:
    keys = 'client_auth = "none"\ngrant = "saml2_bearer"\nassertion = "hunter2.assertion"'
    assert "hunter2" not in repr(tenant(signed, keys))
    assert "PRIVATE" not in repr(tenant(signed, SIGNED))


def test_no_problem_shows_an_assertion(folder: Folder) -> None:
    value = json.dumps("hunter2 with a space")
    (problem, *_) = folder.problems(f'{TENANT}client_auth = "none"\ngrant = "jwt_bearer"\nassertion = {value}')
    assert "hunter2" not in problem


def test_a_pool_of_tokens_needs_a_grant_that_can_be_used_again(signed: Folder) -> None:
    pool = f"{SECRET}token_pool_size = 2\n"
    assert tenant(signed, pool).token_pool_size == 2
    (problem,) = signed.problems(f'{TENANT}{pool}grant = "saml2_bearer"\nassertion = {{ file = "acme.saml" }}')
    assert problem.startswith("proxy.toml: tenants.acme.token_pool_size: expected 1 with grant saml2_bearer")

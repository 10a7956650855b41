"""Every grant and client authentication, at the look-alike and at a certified authorization server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.authorization_server import RESOURCE, AuthorizationServer, confidential, run_authorization_server
from tests.support.proxies import run_proxy
from tests.support.stages import WHO, Stage, Tenant, make_orgs, open_stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

KEYS: dict[str, Key] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "PS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}


def pem(algorithm: str) -> str:
    return KEYS[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


# --- at the look-alike ---


def signed(**keys: object) -> dict[str, object]:
    return {"private_key": pem("RS256"), **keys}


def sandbox_tenants(folder: Path) -> dict[str, dict[str, object]]:
    """The keys of a tenant, by what it is there to show."""
    no_secret = {"client_secret": None}

    def saml(name: str) -> dict[str, object]:
        assertion = {"file": str(folder / name)}
        return {"grant": "saml2_bearer", "token_parameters": {"orgName": name}, "assertion": assertion}

    return {
        "basic": {},
        "post": {"client_auth": "client_secret_post"},
        "private-key": {"client_auth": "private_key_jwt", **no_secret, **signed()},
        "saml": saml("saml"),
        "late": saml("late"),
        "jwt": {"grant": "jwt_bearer", **signed(subject="agent")},
        "jwt-of-others": {"grant": "jwt_bearer", "assertion": {"file": str(folder / "jwt")}},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assertions")
    for name in ("saml", "late"):
        (folder / name).write_text("PHNhbWw+\n")
    (folder / "jwt").write_text(jwt.encode({"sub": "agent", "exp": 4_000_000_000}, pem("RS256"), "RS256"))
    return folder


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def section(name: str, keys: dict[str, object]) -> str:
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in keys.items() if value is not None)
    return f"[tenants.{name}]\n{lines}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(folder: Path) -> AsyncIterator[Stage]:
    tenants = sandbox_tenants(folder)
    orgs = make_orgs(tenants)

    def written(org: object) -> str:
        (found,) = [each for each in orgs if each is org]
        client = found.clients[0]
        return section(found.name, {"client_id": client.id, "client_secret": client.secret, **tenants[found.name]})

    async with open_stage(orgs, "keep_warm = false\n", tenants=written) as opened:
        yield opened


def tenant_of(stage: Stage, name: str) -> Tenant:
    (org,) = [org for org in stage.sandbox.options.orgs if org.name == name]
    return Tenant(stage, org)


@pytest.mark.parametrize("name", [name for name in sandbox_tenants(Path()) if name != "late"])
async def test_each_grant_and_each_authentication_brings_a_token(stage: Stage, name: str) -> None:
    tenant = tenant_of(stage, name)
    assert (await tenant.get(WHO)).json["name"] == name
    tenant.revoke()
    assert (await tenant.get(WHO)).status == 200
    assert tenant.token_requests == {"ok": 2}


async def test_the_assertion_of_a_file_is_the_one_that_lies_there_now(stage: Stage, folder: Path) -> None:
    tenant = tenant_of(stage, "jwt-of-others")
    await tenant.get(WHO)
    held = (folder / "jwt").read_text()
    (folder / "jwt").write_text(jwt.encode({"sub": "agent", "exp": 1}, pem("RS256"), "RS256"))
    refused = await stage.admin("POST", f"/tenants/{tenant.name}/refresh")
    assert refused.status != 200
    assert tenant.token_requests["invalid_grant"] == 1
    (folder / "jwt").write_text(held)
    renewed = await stage.admin("POST", f"/tenants/{tenant.name}/refresh")
    assert renewed.status == 200
    assert tenant.token_requests["invalid_grant"] == 1


async def test_an_assertion_that_is_not_there_yet_is_waited_for_as_the_endpoint_is(stage: Stage, folder: Path) -> None:
    tenant = tenant_of(stage, "late")
    (folder / "late").rename(folder / "away")
    waiting = asyncio.create_task(tenant.get(WHO), name="call without an assertion")  # noqa: TID251 awaited below
    await stage.proxy.said("Tenant late: the file that assertion names can't be read (FileNotFoundError).")
    (folder / "away").rename(folder / "late")
    assert (await waiting).status == 200


# --- at a certified authorization server ---

SECRET = "s:e c+r%t/&="


def clients() -> list[dict[str, object]]:
    keyed = []
    for algorithm, key in KEYS.items():
        jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
        keyed.append(
            confidential(
                f"keyed-{algorithm}",
                "unused-secret-of-some-length",
                token_endpoint_auth_method="private_key_jwt",
                token_endpoint_auth_signing_alg=algorithm,
                jwks={"keys": [{**jwk, "kid": "key-1", "use": "sig"}]},
            )
        )
    return [
        confidential("id:with/odd characters", SECRET),
        confidential("poster", SECRET, token_endpoint_auth_method="client_secret_post"),
        *keyed,
    ]


def oidc_tenants() -> dict[str, dict[str, object]]:
    keyed: dict[str, dict[str, object]] = {
        algorithm.lower(): {
            "client_id": f"keyed-{algorithm}",
            "client_auth": "private_key_jwt",
            "private_key": pem(algorithm),
            "signing_algorithm": algorithm,
            "key_id": "key-1",
        }
        for algorithm in KEYS
    }
    basic: dict[str, object] = {"client_id": "id:with/odd characters", "client_secret": SECRET}
    return {
        "basic": basic,
        "post": {"client_id": "poster", "client_secret": SECRET, "client_auth": "client_secret_post"},
        **keyed,
        "resource": {**basic, "scope": ["messaging:write"], "token_parameters": {"resource": RESOURCE}},
        "two-resources": {**basic, "token_parameters": {"resource": [RESOURCE, "https://other.example"]}},
        "wrong-key": {**keyed["rs256"], "private_key": pem("PS256")},
        "wrong-audience": {**keyed["rs256"], "audience": "https://elsewhere.example"},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[tuple[AuthorizationServer, str]]:
    """The server, and the URL of a proxy with a tenant for each of ``oidc_tenants``."""
    async with run_authorization_server(clients()) as server:
        text = (
            f'[listen]\nport = 0\n[admin]\nport = 0\n[defaults]\nkeep_warm = false\napi_url = "{server.url}"\n'
            f'login_url = "{server.url}"\n'
        )
        sections = [section(name, keys) for name, keys in oidc_tenants().items()]
        async with run_proxy(text + "".join(sections)) as proxy:
            yield server, proxy.url


async def call(url: str, tenant: str, target: str = WHO) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/t/{tenant}{target}") as response:
        return response.status, await response.json()


WORKING = [name for name in oidc_tenants() if name not in ("two-resources", "wrong-key", "wrong-audience")]


@pytest.mark.needs("oidc-provider")
@pytest.mark.parametrize("name", WORKING)
async def test_a_certified_server_takes_the_client_for_what_it_is(
    server: tuple[AuthorizationServer, str], name: str
) -> None:
    assert await call(server[1], name) == (200, {"id": "id-of-acme", "name": "acme"})


@pytest.mark.needs("oidc-provider")
async def test_a_token_is_for_the_resource_that_was_asked_for(server: tuple[AuthorizationServer, str]) -> None:
    # RFC 8707 2
    status, said = await call(server[1], "resource", "/api/v2/echo")
    assert (status, said["audience"]) == (200, RESOURCE)
    status, said = await call(server[1], "two-resources")
    assert (status, said["code"]) == (502, "token.refused")
    assert "invalid_target" in str(said["message"])


@pytest.mark.needs("oidc-provider")
@pytest.mark.parametrize("name", ["wrong-key", "wrong-audience"])
async def test_a_certified_server_refuses_what_another_key_signed_or_is_meant_for_others(
    server: tuple[AuthorizationServer, str], name: str
) -> None:
    status, said = await call(server[1], name)
    assert (status, said["code"]) == (502, "token.refused")
    assert "invalid_client" in str(said["message"])

"""Which tenant a request belongs to, and what of it the upstream never sees."""

from __future__ import annotations

import pytest

from tests.support.genesys import assert_own_failure
from tests.support.stages import ECHO, Answer, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH, FIELD, HOST, DEFAULT = "org-1", "org-2", "org-3", "org-0"


@pytest.fixture(scope="module")
def configuration() -> str:
    return f'keep_warm = false\n[routing]\ndefault_tenant = "{DEFAULT}"\n'


async def ask(stage: Stage, *, path: str = "", field: str = "", host: str = "localhost") -> Answer:
    prefix = f"/t/{path}" if path else ""
    line = f"X-Genesys-Tenant: {field}\r\n" if field else ""
    return await stage.raw(f"GET {prefix}{ECHO}/1?a=b HTTP/1.1\r\nHost: {host}\r\n{line}\r\n".encode())


@pytest.mark.parametrize(
    "path,field,host,tenant",
    [
        (PATH, "", "localhost", PATH),
        (PATH, FIELD, f"{HOST}.localhost", PATH),
        ("", FIELD, "localhost", FIELD),
        ("", FIELD, f"{HOST}.localhost:8080", FIELD),
        ("", "", f"{HOST}.localhost", HOST),
        ("", "", f"{HOST}.LocalHost:1", HOST),
        ("", "", "localhost", DEFAULT),
        ("", "", "127.0.0.1:1", DEFAULT),
        ("", "", "[::1]:1", DEFAULT),
    ],
)
async def test_path_goes_before_field_before_host_before_default(
    stage: Stage, path: str, field: str, host: str, tenant: str
) -> None:
    answer = await ask(stage, path=path, field=field, host=host)
    assert answer.status == 200
    assert answer.json["org"] == tenant


async def test_the_upstream_sees_no_trace_of_how_the_tenant_was_named(stage: Stage) -> None:
    seen = (await ask(stage, path=PATH, field=FIELD)).json
    assert seen["target"] == f"{ECHO}/1?a=b"
    names = [name.lower() for name, _ in seen["fields"]]
    assert "x-genesys-tenant" not in names
    assert dict(seen["fields"])["Host"] == stage.sandbox.base_url.removeprefix("http://")


@pytest.mark.parametrize(
    "path,field,host",
    [
        ("nobody", "", "localhost"),
        ("", "nobody", "localhost"),
        ("", "", "nobody.localhost"),
        ("ORG-1", "", "localhost"),
        ("org%2D1", "", "localhost"),
        ("org-1%00", "", "localhost"),
        ("nobody", FIELD, f"{HOST}.localhost"),
    ],
)
async def test_an_unknown_tenant_is_a_404_and_never_the_default(stage: Stage, path: str, field: str, host: str) -> None:
    before = stage.sandbox.ledger.accepted()
    answer = await ask(stage, path=path, field=field, host=host)
    assert answer.status == 404
    assert_own_failure(answer)
    assert stage.sandbox.ledger.accepted() == before


async def test_two_tenants_never_share_a_token(stage: Stage) -> None:
    orgs = [(await ask(stage, path=name)).json["org"] for name in (PATH, FIELD, HOST, PATH, FIELD, HOST)]
    assert orgs == [PATH, FIELD, HOST] * 2
    assert {stage.sandbox.ledger.tokens_issued(name) for name in orgs} == {1}


@pytest.mark.parametrize("prefix", ["/t/org-1", "/t/org-1/"])
async def test_a_tenants_prefix_alone_asks_for_its_root(stage: Stage, prefix: str) -> None:
    assert (await stage.call("GET", prefix)).status == 404
    assert stage.sandbox.ledger.token_requests

"""``check``: a token for each tenant, and what the API says of it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.cli.orgs import tenants_toml
from proxy.sandbox import ACME, DEFAULT_ORGS, GLOBEX, Sandbox, SandboxOptions
from tests.cli.conftest import PORTS
from tests.cli.files import change
from tests.cli.program import run, start


def lines_of(stdout: str) -> dict[str, list[str]]:
    """The cells of the table by tenant, where each is one line."""
    return {cells[0]: cells[1:] for line in stdout.splitlines() if len(cells := line.split()) > 4}


@contextlib.asynccontextmanager
async def api(status: int, body: str, fields: dict[str, str]) -> AsyncIterator[str]:
    """The URL of an API that answers everything so."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text=body, headers=fields)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_tenants_that_work_are_ok_and_it_exits_0(sandbox: Sandbox, config: Path) -> None:
    change(config, "[tenants.globex]", f'org_id = "{ACME.id}"\nscope = ["messaging"]\n[tenants.globex]')
    ended = await run("check", "--config", config)
    assert ended.code == 0, ended.stdout + ended.stderr
    table = lines_of(ended.stdout)
    authority = sandbox.base_url.removeprefix("http://")
    assert table["acme"] == [authority, "24", "h", "acme", "messaging", "right", "ok"]
    assert table["globex"] == [authority, "24", "h", "globex", "-", "right", "ok"]
    assert sandbox.ledger.tokens_issued() == 2


async def test_a_pattern_that_finds_no_file_is_warned_of(config: Path) -> None:
    config.write_text('include = ["tenants.d/*.toml"]\n' + config.read_text("utf-8"), "utf-8")  # noqa: ASYNC240
    for command in ("check", "run"):
        async with await start(command, "--config", config) as program:
            await program.said(rf"include: no file matches \S*{config.parent}/tenants\.d/\*\.toml", on="stderr")


async def test_a_store_that_does_not_answer_is_told_and_it_exits_1(config: Path) -> None:
    change(config, "[listen]", '[store]\nurl = "redis://127.0.0.1:1/0"\n[listen]')
    ended = await run("check", "--config", config)
    assert ended.code == 1
    assert [cells[-1] for cells in lines_of(ended.stdout).values()].count("ok") == 2
    assert f"{config}: store.url: The Redis server can't be reached (ConnectionError).\n" in ended.stdout


async def test_only_the_named_tenants_are_asked(sandbox: Sandbox, config: Path) -> None:
    change(config, "globex-sandbox-secret", "wrong")
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 0
    assert sandbox.ledger.token_requests.total() == 1


async def test_a_name_that_no_tenant_has_exits_2_and_tells_those_there_are(sandbox: Sandbox, config: Path) -> None:
    ended = await run("check", "acne", "--config", config)
    assert ended.code == 2
    assert "no tenant is called 'acne'; there are: acme, globex" in ended.stderr
    assert sandbox.ledger.token_requests.total() == 0


async def test_a_wrong_secret_is_diagnosed_and_the_others_are_still_checked(config: Path) -> None:
    change(config, "acme-sandbox-secret", "not-the-secret")
    ended = await run("check", "--config", config)
    assert ended.code == 1
    table = lines_of(ended.stdout)
    assert (table["acme"][-1], table["globex"][-1]) == ("failed", "ok")
    assert "\nacme: the token endpoint knows this client and refuses its client_secret (inv" in ended.stdout
    assert ended.stdout.endswith("\n1 of 2 tenants failed\n")
    assert "not-the-secret" not in ended.stdout + ended.stderr
    assert ended.stderr == "", "each failure is told once"


async def test_another_orgs_client_is_diagnosed(config: Path) -> None:
    change(config, "[tenants.globex]", f'org_id = "{GLOBEX.id}"\n[tenants.globex]')
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 1
    assert f"acme: the token belongs to organization {ACME.id} (acme), and org_id says {GLOBEX.id}; " in ended.stdout


@pytest.mark.parametrize(
    "fault,diagnosis",
    [
        ("api_unauthorized", "the API refuses the token that login has just issued (401 bad.credentials); "),
        ("api_throttled", "the API is throttling this client (429 too.many.requests.retry.after); "),
        ("api_status", "the API answers 503 "),
        ("api_drop", "the API gave no answer (127.0.0.1:"),
        ("token_status", "the token endpoint answered 500; ask again later."),
        ("token_html", "the token endpoint answered 200 with "),
    ],
)
async def test_what_goes_wrong_is_told_in_one_plain_sentence(
    sandbox: Sandbox, config: Path, fault: str, diagnosis: str
) -> None:
    sandbox.faults.set(fault)
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 1
    assert f"acme: {diagnosis}" in ended.stdout


@contextlib.asynccontextmanager
async def with_stored_tokens(folder: Path, lifetime: float) -> AsyncIterator[tuple[Sandbox, list[float], Path]]:
    """A sandbox whose clock is ahead by the sum of the list, and a configuration whose store has a token of acme."""
    ahead: list[float] = []
    options = SandboxOptions(token_lifetime=lifetime)
    async with Sandbox(options, clock=lambda: time.time() + sum(ahead)) as sandbox:
        file = folder / "proxy.toml"
        store = f'[store]\nurl = "sqlite:{folder}/tokens.db"\n'
        file.write_text(PORTS + store + tenants_toml(sandbox.base_url, DEFAULT_ORGS), "utf-8")
        ended = await run("check", "acme", "--config", file)
        assert ended.code == 0, ended.stdout
        assert sandbox.ledger.tokens_issued() == 1
        yield sandbox, ahead, file


async def test_a_token_of_the_store_that_ends_while_it_is_asked_about_is_no_failure(tmp_path: Path) -> None:
    async with with_stored_tokens(tmp_path, lifetime=25) as (sandbox, ahead, file):
        ahead.append(25)
        ended = await run("check", "acme", "--config", file)
        assert ended.code == 0, ended.stdout
        assert lines_of(ended.stdout)["acme"][-1] == "ok"
        assert sandbox.ledger.tokens_issued() == 2


async def test_a_token_of_the_store_that_was_revoked_is_no_failure(tmp_path: Path) -> None:
    async with with_stored_tokens(tmp_path, lifetime=86_400) as (sandbox, _, file):
        sandbox.faults.set("api_revoked", count=1)
        ended = await run("check", "acme", "--config", file)
        assert ended.code == 0, ended.stdout
        assert lines_of(ended.stdout)["acme"][1:3] == ["24", "h"]
        assert sandbox.ledger.tokens_issued() == 2
        assert (await run("check", "acme", "--config", file)).code == 0
        assert sandbox.ledger.tokens_issued() == 2, "the new one is stored"


async def test_why_there_is_no_other_token_than_one_that_has_ended_is_told(tmp_path: Path) -> None:
    async with with_stored_tokens(tmp_path, lifetime=86_400) as (sandbox, _, file):
        sandbox.faults.set("api_revoked", count=1)
        sandbox.faults.set("token_invalid_client")
        ended = await run("check", "acme", "--config", file)
        assert ended.code == 1
        assert "\nacme: the token endpoint does not know this client (invalid_client)." in ended.stdout
        assert lines_of(ended.stdout)["acme"][1] == "-"


async def test_a_new_token_that_the_api_refuses_as_well_is_told_as_one(tmp_path: Path) -> None:
    async with with_stored_tokens(tmp_path, lifetime=86_400) as (sandbox, _, file):
        sandbox.faults.set("api_unauthorized")
        ended = await run("check", "acme", "--config", file)
        assert ended.code == 1
        assert "\nacme: the API refuses the token that login has just issued (401 " in ended.stdout
        assert sandbox.ledger.tokens_issued() == 2


async def test_no_other_token_is_asked_for_where_a_new_one_is_refused(sandbox: Sandbox, config: Path) -> None:
    sandbox.faults.set("api_unauthorized")
    assert (await run("check", "acme", "--config", config)).code == 1
    assert sandbox.ledger.tokens_issued() == 1


async def test_a_resource_that_is_closed_to_the_client_is_no_failure(sandbox: Sandbox, config: Path) -> None:
    sandbox.faults.set("api_status", 403, count=1)
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 0
    assert lines_of(ended.stdout)["acme"][3] == "acme"  # from the second resource


async def test_without_the_organization_only_org_id_fails(sandbox: Sandbox, config: Path) -> None:
    sandbox.faults.set("api_status", 403)
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 0
    assert lines_of(ended.stdout)["acme"][-4:] == ["-", "-", "right", "ok"]
    assert "\nacme: the API tells this client neither organization nor scope (403" in ended.stdout
    change(config, "[tenants.globex]", f'org_id = "{ACME.id}"\n[tenants.globex]')
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 1
    assert "so that org_id can't be compared" in ended.stdout
    assert ended.stdout.count("acme: ") == 1


async def test_an_api_url_that_leads_elsewhere_is_diagnosed(sandbox: Sandbox, config: Path) -> None:
    sandbox.faults.set("api_status", 404)
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 1
    assert f"acme: {sandbox.base_url} knows neither /api/v2/tokens/me nor " in ended.stdout


@pytest.mark.parametrize(
    "response,diagnosis",
    [
        ((302, "", {"Location": "https://elsewhere.example/"}), "the API redirects (302), and a token never follows; "),
        ((200, "<p>Log in</p>", {}), "answers with no JSON object; look for a gateway or a portal."),
        (
            (403, '{"message": "Client IP address is not allowed"}', {}),
            "does not let this machine's IP address in (403); ",
        ),
        ((200, "[]", {}), "answers with no JSON object; look for a gateway or a portal."),
        ((200, " " * 262_145, {}), "the API gave no answer (its answer is longer than 262144 bytes); "),
        ((418, '{"code": "a\\u001b[31m"}', {}), "the API answers 418 where "),
        ((200, '{"authorizedScope": ["users"]}', {}), "the token lacks the scope messaging routing; add it to "),
    ],
)
async def test_an_api_that_is_none_or_says_less_is_diagnosed(
    config: Path, response: tuple[int, str, dict[str, str]], diagnosis: str
) -> None:
    async with api(*response) as url:
        change(
            config,
            "[tenants.globex]",
            f'api_url = "{url}"\nscope = ["messaging", "users", "routing"]\n[tenants.globex]',
        )
        ended = await run("check", "acme", "--config", config)
    assert ended.code == 1
    assert diagnosis in ended.stdout
    assert "\x1b" not in ended.stdout


async def test_a_scope_that_is_not_told_is_no_failure(config: Path) -> None:
    async with api(200, '{"authorizedScope": [], "organization": {"id": "1", "name": "Acme\\u001b"}}', {}) as url:
        change(config, "[tenants.globex]", f'api_url = "{url}"\nscope = ["messaging"]\n[tenants.globex]')
        ended = await run("check", "acme", "--config", config)
    assert ended.code == 0
    assert lines_of(ended.stdout)["acme"][-4:] == ["1", "-", "right", "ok"]
    assert "\x1b" not in ended.stdout


async def test_a_client_of_another_region_is_diagnosed(config: Path) -> None:
    change(config, "acme-sandbox-client", "another-regions-client")
    ended = await run("check", "acme", "--config", config)
    assert ended.code == 1
    assert "\nacme: the token endpoint does not know this client (invalid_client). The usual cause" in ended.stdout


@pytest.mark.parametrize("ahead,told", [(90, r"-\d\d s"), (-3600, r"\+3[56]\d\d s")])
async def test_a_clock_that_is_off_is_told_and_how_far(tmp_path: Path, ahead: float, told: str) -> None:
    async with Sandbox(clock=lambda: time.time() + ahead) as sandbox:
        file = tmp_path / "proxy.toml"
        file.write_text(PORTS + tenants_toml(sandbox.base_url, DEFAULT_ORGS), "utf-8")
        ended = await run("check", "acme", "--config", file)
    assert ended.code == 1
    assert re.search(told, ended.stdout)
    where = "behind" if ahead > 0 else "ahead of"
    assert re.search(rf"acme: this machine's clock is \d+ s {where} the server's; set it", ended.stdout)


async def test_a_clock_that_is_off_explains_a_refused_signature(tmp_path: Path) -> None:
    """The sandbox takes no assertion that has expired by its clock."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    async with Sandbox(clock=lambda: time.time() + 3600) as sandbox:
        file = tmp_path / "proxy.toml"
        keys = 'client_auth = "private_key_jwt"\nprivate_key = { file = "key.pem" }'
        text = PORTS + tenants_toml(sandbox.base_url, DEFAULT_ORGS)
        file.write_text(text.replace('client_secret = "acme-sandbox-secret"', keys), "utf-8")
        ended = await run("check", "acme", "--config", file)
    assert ended.code == 1
    assert re.search(r"acme: this machine's clock is 3[56]\d\d s behind the server's", ended.stdout)


async def test_a_broken_configuration_exits_2_before_anything_is_asked(sandbox: Sandbox, config: Path) -> None:
    change(config, "client_secret", "client_secert")
    ended = await run("check", "--config", config)
    assert ended.code == 2
    assert "client_secert" in ended.stderr
    assert sandbox.ledger.token_requests.total() == 0

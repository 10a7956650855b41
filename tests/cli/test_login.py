"""``login``: in a browser that comes back, or by a pasted address; the refresh token ends in the store."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from proxy.sandbox import ACME, GLOBEX, Sandbox
from tests.cli.files import change
from tests.cli.program import PATIENCE, Program, environment, run, start
from tests.support.authorization_server import refreshing, run_authorization_server
from tests.support.stages import until

REFRESHING = 'grant = "refresh_token"\nredirect_uri = "http://localhost:0/oauth/callback"\n'


@pytest.fixture
def refreshing_config(config: Path) -> Path:
    """The tenants of ``config``; acme is got by a login."""
    change(config, "[tenants.globex]", f"{REFRESHING}[tenants.globex]")
    return config


async def page(program: Program) -> URL:
    """The page that the program tells to open."""
    return URL((await program.said(r"(http://\S+/oauth/authorize\?\S+)\n"))[1], encoded=True)


async def browse(url: URL | str) -> tuple[int, str]:
    """What a browser ends at, redirects followed and cookies kept."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session, session.get(url) as answer:
        return answer.status, await answer.text()


@pytest.fixture
async def program(refreshing_config: Path) -> AsyncIterator[Program]:
    """A login that waits for its browser, which nobody but the test is."""
    async with await start("login", "acme", "--config", refreshing_config, BROWSER="true") as program:
        yield program


async def called(sandbox: Sandbox, config: Path) -> int:
    """The status of a call through a proxy of this configuration, and no login of its own."""
    async with await start("run", "--config", config) as proxy:
        url = (await proxy.said(r"listening on (http://\S+)"))[1]
        status, _ = await browse(f"{url}/t/acme/api/v2/organizations/me")
    return status


async def test_a_login_in_a_browser_is_kept_and_the_proxy_lives_on_it(
    sandbox: Sandbox, refreshing_config: Path, program: Program
) -> None:
    status, text = await browse(await page(program))
    assert (status, "You can close this page" in text) == (200, True)
    ended = await program.end()
    assert ended.code == 0, ended.stderr
    assert ended.lines[-1] == f"acme: logged in; it belongs to organization {ACME.id} (acme)"
    assert await called(sandbox, refreshing_config) == 200
    asked = {key: count for key, count in sandbox.ledger.token_requests.items() if key[0] == "acme"}
    assert asked == {("acme", "authorization_code", "ok"): 1}, "the login's access token is used as well"


async def test_region_and_parameters_are_passed_on(refreshing_config: Path) -> None:
    options = ("--org", "acme", "--provider", "okta", "--target", GLOBEX.id)
    async with await start("login", "acme", "--config", refreshing_config, *options, BROWSER="true") as program:
        url = await page(program)
        assert {name: url.query[name] for name in ("org", "provider", "target")} == {
            "org": "acme",
            "provider": "okta",
            "target": GLOBEX.id,
        }
        await browse(url)
        assert (await program.end()).lines[-1].endswith(f"organization {GLOBEX.id} (globex)")


async def test_another_orgs_login_is_refused_and_not_kept(sandbox: Sandbox, refreshing_config: Path) -> None:
    change(refreshing_config, REFRESHING, f'{REFRESHING}org_id = "{GLOBEX.id}"\n')
    async with await start("login", "acme", "--config", refreshing_config, BROWSER="true") as program:
        await browse(await page(program))
        ended = await program.end()
    assert ended.code == 1
    advice = "use that org's own client and login, or correct org_id.\n"
    reason = f"acme: the token belongs to organization {ACME.id} (acme), and org_id says {GLOBEX.id}; {advice}"
    assert ended.stderr == f"Error: {reason}"
    assert await called(sandbox, refreshing_config) == 502


async def test_what_is_not_the_answer_ends_nothing(program: Program) -> None:
    url = await page(program)
    back = URL(url.query["redirect_uri"])
    assert (await browse(back.with_path("/favicon.ico")))[0] == 404
    for query in ({"code": "stolen", "state": "guessed"}, {"error": "access_denied", "state": "x"}):
        status, text = await browse(back.with_query(query))
        assert (status, "belongs to no login" in text) == (400, True)
    status, text = await browse(back.with_query({"code": "stolen"}))
    assert (status, "with code= and state= in it" in text) == (400, True)
    assert (await browse(url))[0] == 200
    assert (await program.end()).code == 0


async def test_a_refused_login_says_why(refreshing_config: Path, program: Program) -> None:
    url = await page(program)
    query = {"error": "access_denied", "error_description": "<b>", "state": url.query["state"]}
    status, text = await browse(URL(url.query["redirect_uri"]).with_query(query))
    assert (status, "<b>" in text) == (400, False)
    ended = await program.end()
    assert ended.code == 1
    assert "acme: the login was refused (access_denied)" in ended.stderr


async def test_a_login_that_the_token_endpoint_refuses_is_told_in_a_sentence(
    sandbox: Sandbox, program: Program
) -> None:
    sandbox.faults.set("token_invalid_grant")
    await browse(await page(program))
    ended = await program.end()
    assert ended.code == 1
    assert ended.stderr.startswith("Error: acme: the login took too long, or its redirect_uri is not the client's")


# --- without a browser ---


async def paste(config: Path, *addresses: str) -> tuple[int, str]:
    """Pastes addresses, then the right one; exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "login", "acme", "--no-browser", "--config", str(config)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    while not (found := re.search(rb"^(http://\S+/oauth/authorize\?\S+)$", said, re.MULTILINE)):
        said += await process.stdout.readline()
    url = URL(found[1].decode(), encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as consented:
        right = consented.headers["Location"]
    for address in (*addresses, right):
        process.stdin.write(f"{address}\n".encode())
    process.stdin.close()
    said += await process.stdout.read()
    return await process.wait(), said.decode()


async def test_headless_the_address_is_pasted(sandbox: Sandbox, refreshing_config: Path) -> None:
    code, said = await paste(refreshing_config, "", "bare-code", "http://localhost:8085/oauth/callback?code=a&state=b")
    assert code == 0, said
    assert said.count("No: expected the whole address that the login page ends at, with code= and state= in it.") == 1
    assert said.count("No: this answer belongs to no login that is under way, or is cut off; ") == 1
    assert said.endswith(f"acme: logged in; it belongs to organization {ACME.id} (acme)\n")
    assert await called(sandbox, refreshing_config) == 200


async def test_headless_a_login_is_given_up_with_a_signal_and_no_key(refreshing_config: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "login", "acme", "--no-browser", "--config", str(refreshing_config)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    assert process.stdout is not None
    while b"Paste that address" not in await process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 130


async def test_headless_nothing_pasted_is_no_login(refreshing_config: Path) -> None:
    ended = await run("login", "acme", "--no-browser", "--config", refreshing_config)
    assert (ended.code, ended.stderr) == (1, "Error: acme: no address was pasted.\n")


# --- what can't work is told first ---


async def test_a_tenant_of_another_grant_is_not_logged_in(config: Path) -> None:
    ended = await run("login", "acme", "--config", config)
    assert ended.code == 2
    assert 'its grant is "client_credentials"' in ended.stderr


async def test_a_store_that_ends_with_the_command_is_of_no_use(refreshing_config: Path) -> None:
    change(refreshing_config, "[listen]", '[store]\nurl = "memory:"\n[listen]')
    ended = await run("login", "acme", "--config", refreshing_config)
    assert ended.code == 2
    assert "a login is kept in the store" in ended.stderr


async def test_a_port_that_is_taken_is_told_with_what_to_do(refreshing_config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        change(refreshing_config, "localhost:0", f"127.0.0.1:{taken.getsockname()[1]}")
        ended = await run("login", "acme", "--config", refreshing_config, BROWSER="true")
    assert ended.code == 1
    assert "can't listen at redirect_uri" in ended.stderr


# --- a proxy that runs ---


async def test_a_running_proxy_that_needs_a_login_goes_on_by_itself(sandbox: Sandbox, refreshing_config: Path) -> None:
    async with await start("run", "--config", refreshing_config) as proxy:
        url = (await proxy.said(r"listening on (http://\S+)"))[1]
        who = f"{url}/t/acme/api/v2/organizations/me"
        status, text = await browse(who)
        assert (status, "genesys-auth-proxy login acme" in text) == (502, True)
        async with await start("login", "acme", "--config", refreshing_config, BROWSER="true") as program:
            await browse(await page(program))
            assert (await program.end()).code == 0
        await until(lambda: _works(who), 20)
    assert sandbox.ledger.refresh_token_reuses == 0


async def _works(url: str) -> bool:
    return (await browse(url))[0] == 200


@pytest.mark.needs("oidc-provider")
async def test_a_certified_server_logs_in_with_pkce_and_an_exact_redirect_uri(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        uri = f"http://127.0.0.1:{free.getsockname()[1]}/oauth/callback"
    clients = [refreshing("web", "secret-of-web", redirect_uris=[uri])]
    async with run_authorization_server(clients, lifetime=600) as server:
        config = tmp_path / "proxy.toml"
        config.write_text(
            f'[listen]\nport = 0\n[admin]\nport = 0\n[tenants.acme]\napi_url = "{server.url}"\n'
            f'login_url = "{server.url}"\ngrant = "refresh_token"\nclient_id = "web"\nclient_secret = "secret-of-web"\n'
            f'redirect_uri = "{uri}"\norg_id = "id-of-acme"\nscope = ["messaging:write"]\n'
        )
        async with await start("login", "acme", "--config", config, BROWSER="true") as program:
            status, _ = await browse(await page(program))
            ended = await program.end()
        assert (status, ended.code) == (200, 0), ended.stderr
        assert ended.lines[-1] == "acme: logged in; it belongs to organization id-of-acme (acme)"
        assert (await server.ledger())["granted"] == {"authorization_code": 1}

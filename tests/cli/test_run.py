"""``run``: it starts, serves, reloads and stops as its contract says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from proxy.sandbox import Sandbox
from tests.cli.files import append, change, read, write
from tests.cli.program import PATIENCE, Program, run, start

WHO = "/api/v2/organizations/me"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


async def listening(program: Program) -> str:
    """The proxy's URL, once it accepts connections."""
    return (await program.said(r"listening on (http://127\.0\.0\.1:\d+)\n"))[1]


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def closed(url: str) -> None:
    """Waits until no connection is accepted; what the system accepted until then is answered."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(aiohttp.ClientConnectorError):
            while True:
                assert (await get(url))[0] == 200


async def at_the_sandbox(sandbox: Sandbox) -> None:
    """Waits until a request met the only fault."""
    async with asyncio.timeout(PATIENCE):
        while sandbox.faults.as_json():  # noqa: ASYNC110 - the sandbox tells nobody
            await asyncio.sleep(0.01)


async def test_it_prints_where_it_listens_and_adds_the_tenants_token(sandbox: Sandbox, config: Path) -> None:
    async with await start("run", "--config", config) as program:
        status, body = await get(await listening(program) + f"/t/globex{WHO}")
        admin = await program.said(r"admin on (http://127\.0\.0\.1:\d+)\n")
        assert (await get(admin[1] + "/healthz"))[0] == 200
    assert status == 200
    assert '"globex"' in body
    assert sandbox.ledger.tokens_issued() == 2


async def test_sigterm_lets_the_request_in_flight_be_answered_and_exits_0(sandbox: Sandbox, config: Path) -> None:
    sandbox.faults.set("api_latency", 1.0, count=1)
    async with await start("run", "--config", config) as program:
        url = await listening(program)
        request = asyncio.get_running_loop().create_task(get(f"{url}/t/acme{WHO}"), name="in flight")
        await at_the_sandbox(sandbox)
        program.signal(signal.SIGTERM)
        await program.said("stopping", on="stderr")
        await closed(f"{url}/t/acme{WHO}")
        assert (await request)[0] == 200
        assert (await program.end()).code == 0


@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_second_signal_ends_it_at_once(
    sandbox: Sandbox, config: Path, number: signal.Signals, code: int
) -> None:
    sandbox.faults.set("api_latency", 600.0, count=1)
    async with await start("run", "--config", config) as program:
        url = await listening(program)
        request = asyncio.get_running_loop().create_task(get(f"{url}/t/acme{WHO}"), name="in flight")
        await at_the_sandbox(sandbox)
        program.signal(number)
        await program.said("stopping", on="stderr")
        program.signal(number)
        ended = await program.end()
        with pytest.raises(aiohttp.ClientError):
            await request
    assert ended.code == code
    assert "Traceback" not in ended.stderr


async def test_ctrl_c_without_requests_exits_0(config: Path) -> None:
    async with await start("run", "--config", config) as program:
        await listening(program)
        program.signal(signal.SIGINT)
        assert (await program.end()).code == 0


async def test_sighup_takes_up_a_new_tenant(config: Path) -> None:
    async with await start("run", "--config", config) as program:
        url = await listening(program)
        assert (await get(f"{url}/t/new{WHO}"))[0] == 404
        tenants = read(config).partition("[tenants.acme]")[1:]
        append(config, "".join(tenants).replace("[tenants.", "[tenants.new-"))
        program.signal(signal.SIGHUP)
        await program.said("configuration reloaded: 4 tenants", on="stderr")
        assert (await get(f"{url}/t/new-acme{WHO}"))[0] == 200


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_sighup_while_it_starts_ends_nothing_and_reloads(config: Path, workers: str) -> None:
    fifo = config.with_name("fifo.toml")
    os.mkfifo(fifo)
    async with await start("run", "--config", fifo, "--workers", workers) as program:
        reader = await opened(fifo)  # it waits for the text
        program.signal(signal.SIGHUP)
        write(config.with_name("next"), read(config) + "# changed").replace(fifo)
        os.write(reader, read(config).encode())
        os.close(reader)
        assert await listening(program)
        log = await program.said(r"(?s)(.*)configuration reloaded: 2 tenants", on="stderr")
        assert "has changed" not in log[1], "it was told to, and did not wait until it sees the change by itself"


async def opened(fifo: Path) -> int:
    """The end to write to, once somebody reads."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            await asyncio.sleep(0.01)


async def test_sighup_with_a_broken_file_keeps_the_old_configuration_and_says_why(config: Path) -> None:
    async with await start("run", "--config", config) as program:
        url = await listening(program)
        append(config, "colour = 1\n")
        program.signal(signal.SIGHUP)
        await program.said("tenants.globex.colour", on="stderr")
        assert (await get(f"{url}/t/acme{WHO}"))[0] == 200


async def test_the_file_is_named_by_the_environment_where_no_option_does(config: Path) -> None:
    async with await start("run", GENESYS_AUTH_PROXY_CONFIG=str(config)) as program:
        assert await listening(program)


async def test_each_problem_of_the_configuration_is_a_line_and_exits_2(tmp_path: Path) -> None:
    file = write(tmp_path / "proxy.toml", '[listen]\nport = "x"\n[tenants.acme]\nregion = "atlantis"\n')
    ended = await run("run", "--config", file)
    assert ended.code == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    for key in ("listen.port", "tenants.acme.region", "tenants.acme.client_id", "tenants.acme.client_secret"):
        assert len([line for line in lines if line.startswith(f"{file}: {key}: ")]) == 1, ended.stderr
    assert len(lines) == 4


@pytest.mark.parametrize("command", [("run",), ("run", "--workers", "2"), ("check",)], ids=" ".join)
async def test_a_store_that_cannot_be_opened_is_told_with_file_and_key_and_exits_2(
    config: Path, command: tuple[str, ...]
) -> None:
    change(config, "[listen]", '[store]\nurl = "sqlite:proxy.toml/deep/tokens.db"\n[listen]')
    ended = await run(*command, "--config", config)
    problem = f"{config}/deep/tokens.db can't be opened ({config} is a file, not a folder)"
    assert (ended.code, ended.stderr) == (2, f"{config}: store.url: {problem}\n")


async def test_workers_without_a_store_in_common_refresh_nothing_and_exit_2(config: Path) -> None:
    change(config, "[listen]", '[store]\nurl = "memory:"\n[listen]')
    change(config, "[tenants.globex]", 'grant = "refresh_token"\n[tenants.globex]')
    ended = await run("run", "--config", config, "--workers", "2")
    problem = 'expected "sqlite:FILE" or a Redis server: with --workers, tenant acme (refresh_token) needs it'
    assert (ended.code, ended.stderr) == (2, f'{config}: store.url: {problem} (got "memory:")\n')


async def test_a_missing_file_exits_2(tmp_path: Path) -> None:
    ended = await run("run", "--config", tmp_path / "none.toml")
    assert ended.code == 2
    assert ended.stderr == f'{tmp_path}/none.toml: no such file; create one with "genesys-auth-proxy init"\n'


@pytest.mark.parametrize("section", ["listen", "admin"])
async def test_a_port_that_is_taken_is_named_with_its_key_and_exits_1(config: Path, section: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        change(config, f"[{section}]\nport = 0", f"[{section}]\nport = {port}")
        ended = await run("run", "--config", config)
    assert ended.code == 1
    assert f"Error: {section}.port: another program listens on 127.0.0.1 port {port} already\n" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("level,told", [("info", True), ("warning", False)])
async def test_the_log_level_decides_what_is_logged(config: Path, level: str, told: bool) -> None:
    async with await start("run", "--config", config, "--log-level", level, "--log-format", "text") as program:
        await get(await listening(program) + f"/t/acme{WHO}")
        program.signal(signal.SIGTERM)
        ended = await program.end()
    line = rf"^{TIME} info    tenant acme: new token for 86400 s$"
    assert bool(re.search(line, ended.stderr, re.MULTILINE)) == told


async def test_after_a_restart_the_log_says_that_a_token_was_in_the_store(config: Path) -> None:
    events = []
    for _ in range(2):
        async with await start("run", "--config", config, "--log-format", "json") as program:
            await get(await listening(program) + f"/t/acme{WHO}")
            program.signal(signal.SIGTERM)
            ended = await program.end()
        lines = map(json.loads, ended.stderr.splitlines())
        events.append([line["event"] for line in lines if line.get("tenant") == "acme" and "token" in line["event"]])
    assert events == [["token.new"], ["token.stored"]]


async def log_of(config: Path, *options: str) -> list[str]:
    """The lines that a proxy logs that answers one request for each of two tenants, of which one is unknown."""
    async with await start("run", "--config", config, *options) as program:
        url = await listening(program)
        await get(f"{url}/t/acme{WHO}?secret=of-the-query")
        await get(f"{url}/t/nobody{WHO}")
        await program.said(r"new token(?s:.*)new token", on="stderr")  # the other's is fetched ahead
        program.signal(signal.SIGTERM)
        ended = await program.end()
    return ended.stderr.splitlines()


async def test_in_a_pipe_the_log_is_json_with_an_event_a_line(config: Path) -> None:
    append(config, '\n[log]\naccess = "all"\n')
    lines = [json.loads(line) for line in await log_of(config)]
    assert {line["level"] for line in lines} == {"info"}
    assert all(re.fullmatch(TIME, line["time"]) for line in lines)
    events = [line["event"] for line in lines]
    assert sorted(events) == ["proxy.stopping", "request", "request", "token.new", "token.new"]
    passed, refused = (line for line in lines if line["event"] == "request")
    assert (passed["tenant"], passed["method"], passed["path"], passed["status"]) == ("acme", "GET", WHO, 200)
    assert passed["sent"] > 0
    assert 0 < passed["duration"] < PATIENCE
    assert passed["correlation_id"]
    assert (passed["replayed"], passed["code"]) == (False, None)
    assert (refused["tenant"], refused["status"], refused["code"]) == (None, 404, "tenant.not.found")


async def test_by_default_requests_that_did_not_fail_are_not_logged(config: Path) -> None:
    assert not [line for line in await log_of(config) if '"request"' in line]


async def test_on_demand_the_log_is_text(config: Path) -> None:
    append(config, '\n[log]\naccess = "all"\n')
    lines = await log_of(config, "--log-format", "text")
    line = rf"{TIME} info    acme: GET {WHO}: 200 in [\d.]+ ms, 0 B in, \d+ B out, id [0-9a-f-]{{36}}"
    assert [line for line in lines if "nobody" in line or "of-the-query" in line] == []
    assert len([found for found in lines if re.fullmatch(line, found)]) == 1


async def test_debug_tells_why_a_token_was_asked_for(sandbox: Sandbox, config: Path) -> None:
    async with await start("run", "--config", config, "--log-level", "debug", "--log-format", "text") as program:
        url = await listening(program)
        await get(f"{url}/t/acme{WHO}")
        sandbox.revoke("acme")
        await get(f"{url}/t/acme{WHO}")
        program.signal(signal.SIGTERM)
        ended = await program.end()
    debug = [line.partition("debug   ")[2] for line in ended.stderr.splitlines() if " debug   tenant acme" in line]
    assert debug == [
        "tenant acme: asking for a token",
        "tenant acme: the upstream refused the token; it is put aside",
        "tenant acme: asking for a token",
    ]
    assert re.search(rf"info    acme: GET {WHO}: 200 in .*, replayed, ", ended.stderr), "replays are always told"


# --- files with secrets ---


ELSEWHERE = """[listen]
port = 0
[admin]
port = 0
[tenants.acme]
api_url = "https://api.invalid"
login_url = "https://login.invalid"
client_id = "id"
client_secret = { file = "secret" }
keep_warm = false
"""


@pytest.fixture
def secretive(tmp_path: Path) -> Path:
    """A configuration whose secret stands in a file that everybody may read."""
    (tmp_path / "secret").write_text("hunter2-hunter2")
    (tmp_path / "secret").chmod(0o644)
    (tmp_path / "proxy.toml").write_text(ELSEWHERE)
    return tmp_path / "proxy.toml"


async def test_a_file_with_a_secret_that_others_can_read_is_warned_of(secretive: Path) -> None:
    async with await start("run", "--config", secretive, "--log-format", "text") as program:
        await listening(program)
        await program.said(
            r" warning .*/secret: others can read or change the secrets in it \(mode 0644\)", on="stderr"
        )
        program.signal(signal.SIGTERM)
        assert (await program.end()).code == 0


@pytest.mark.parametrize("command", ["run", "check"])
async def test_an_admin_port_that_others_reach_is_warned_of(config: Path, command: str) -> None:
    change(config, "[admin]", '[admin]\nhost = "0.0.0.0"')
    async with await start(command, "--config", config) as program:
        await program.said(r"proxy\.toml: admin\.host: whoever reaches 0\.0\.0\.0 sees ", on="stderr")


@pytest.mark.parametrize("command", ["run", "check"])
async def test_in_strict_mode_it_ends_the_program(secretive: Path, command: str) -> None:
    ended = await run(command, "--config", secretive, "--check-permissions", "strict")
    assert ended.code == 2
    assert re.search(r"/secret: others can read or change the secrets in it \(mode 0644\); chmod 600", ended.stderr)
    assert "hunter2" not in ended.stderr + ended.stdout


def log_in_here(configuration: Path) -> None:
    configuration.write_text(re.sub(r"https://\w+\.invalid", "http://127.0.0.1:1", ELSEWHERE))


async def test_in_strict_mode_a_login_on_this_machine_is_one_like_others(secretive: Path) -> None:
    """It may be a gateway of the pod as well as a sandbox."""
    log_in_here(secretive)
    ended = await run("run", "--config", secretive, "--check-permissions", "strict")
    assert ended.code == 2
    assert "others can read or change the secrets" in ended.stderr


@pytest.mark.parametrize("how", ["off", "chmod", "sandbox"])
async def test_nothing_is_said_of_files_that_are_closed_or_not_looked_at(secretive: Path, how: str) -> None:
    options = []
    if how == "off":
        options = ["--check-permissions", "off"]
    elif how == "sandbox":
        log_in_here(secretive)
    else:
        secretive.with_name("secret").chmod(0o600)
    async with await start("run", "--config", secretive, *options) as program:
        await listening(program)
        program.signal(signal.SIGTERM)
        assert "others can read" not in (await program.end()).stderr


# --- a Unix socket ---


async def test_it_prints_the_socket_it_listens_on_and_serves_it(sandbox: Sandbox, config: Path) -> None:
    change(config, "[listen]\nport = 0", '[listen]\nunix_socket = "s"')
    path = config.with_name("s")
    async with await start("run", "--config", config) as program:
        await program.said(rf"^listening on unix:{path}\n")
        connector = aiohttp.UnixConnector(str(path))
        url = f"http://localhost/t/globex{WHO}"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            assert response.status == 200
        async with await start("run", "--config", config) as second:
            ended = await second.end()
        assert ended.code == 1
        assert f"listen.unix_socket: can't listen on {path} (Address already in use)" in ended.stderr
        program.signal(signal.SIGTERM)
        assert (await program.end()).code == 0
    assert not path.exists()


async def test_a_socket_whose_folder_is_missing_is_told_so(config: Path) -> None:
    change(config, "[listen]\nport = 0", '[listen]\nunix_socket = "folder/s"')
    ended = await run("run", "--config", config)
    path = config.with_name("folder") / "s"
    assert ended.code == 1
    said = f"listen.unix_socket: can't listen on {path} (the folder {path.parent} does not exist)"
    assert said in ended.stderr


PURE = """
import sys
sys.modules["aiohttp._http_parser"] = None
from proxy.cli import main
main()
"""


async def test_it_does_not_start_with_a_parser_that_nobody_chose(config: Path) -> None:
    ended = await run("run", "--config", config, command=("-c", PURE), AIOHTTP_NO_EXTENSIONS="")
    assert ended.code == 1
    assert "AIOHTTP_NO_EXTENSIONS=1" in ended.stderr
    assert "listening" not in ended.stdout


async def test_it_starts_with_the_parser_in_python_where_it_is_told_to(config: Path) -> None:
    async with await start("run", "--config", config, AIOHTTP_NO_EXTENSIONS="1") as program:
        assert (await get(await listening(program) + f"/t/globex{WHO}"))[0] == 200

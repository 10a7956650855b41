"""``sandbox``: the look-alike alone."""

from __future__ import annotations

import signal
import socket

import aiohttp
import pytest

from tests.cli.program import run, start


async def test_it_tells_where_it_is_and_with_which_credentials_and_ctrl_c_ends_it() -> None:
    async with await start("sandbox", "--port", "0", "--token-lifetime", "7", "--rate-limit", "0") as program:
        url = (await program.said(r"^sandbox on (http://127\.0\.0\.1:\d+)\n"))[1]
        said = await program.said(r'client_id = "(.*)"\n.*client_secret = "(.*)"\n')
        form = {"grant_type": "client_credentials", "client_id": said[1], "client_secret": said[2]}
        async with aiohttp.ClientSession() as session, session.post(f"{url}/oauth/token", data=form) as response:
            assert (await response.json())["expires_in"] == 7
        await program.said("Ctrl-C ends it")
        program.signal(signal.SIGINT)
        ended = await program.end()
    assert (ended.code, ended.stderr) == (0, "")


async def test_it_ends_with_the_terminal_it_was_started_from() -> None:
    async with await start("sandbox", "--port", "0") as program:
        await program.said("Ctrl-C ends it")
        program.signal(signal.SIGHUP)
        assert (await program.end()).code == -signal.SIGHUP


async def test_the_faults_of_the_command_line_are_in_force_from_the_start() -> None:
    async with await start("sandbox", "--port", "0", "--fault", "token_status=503", "--fault", "api_drop") as program:
        url = (await program.said(r"^sandbox on (http://127\.0\.0\.1:\d+)\n"))[1]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/sandbox/faults") as response:
            faults = await response.json()
    assert [(fault["name"], fault["value"]) for fault in faults] == [("token_status", 503), ("api_drop", "before")]


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (["--fault", "nothing"], "no fault is called 'nothing'; there are token_latency, "),
        (["--fault", "token_status=200"], "token_status: expected a status from 400 to 599"),
        (["--token-lifetime", "0"], "token_lifetime: expected a number greater than 0, got 0"),
    ],
)
async def test_what_it_cannot_play_exits_2(arguments: list[str], expected: str) -> None:
    ended = await run("sandbox", "--port", "0", *arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert expected in ended.stderr


async def test_a_port_that_is_taken_exits_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await run("sandbox", "--port", str(port))
    assert ended.code == 1
    assert ended.stderr == (
        f"Error: can't listen on 127.0.0.1 port {port} (Address already in use); "
        "--host and --port name another address\n"
    )

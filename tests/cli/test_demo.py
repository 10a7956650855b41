"""``demo``: what it shows is what happened, and its exit code says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.cli.demo.figures import Figures, OrgFigures, problems, summary
from tests.cli.program import PATIENCE, environment, run, start

SUMMARY = re.compile(
    r"(?P<requests>[\d,]+) requests, (?P<failed>[\d,]+) failed; clients saw (?P<unauthorized>[\d,]+) x 401; "
    r"(?P<revoked>\d+) tokens were revoked, (?P<replays>\d+) replays?; (?P<expired>\d+) calls with an expired token; "
    r"(?P<token_requests>\d+) token requests; (?P<posts>\d+) POSTs?, (?P<executed>.*)"
)


def numbers(line: str) -> dict[str, int]:
    found = SUMMARY.fullmatch(line)
    assert found, line
    return {name: int(text.replace(",", "")) for name, text in found.groupdict().items() if name != "executed"}


async def test_a_run_without_faults_exits_0_and_its_summary_says_why() -> None:
    ended = await run("demo", "--duration", "3")
    assert ended.code == 0, ended.stderr
    assert ended.stderr == ""
    assert "\x1b" not in ended.stdout
    seen = numbers(ended.lines[-1])
    assert seen["requests"] > 30
    assert seen["posts"] > 0
    assert ended.lines[-1].endswith(" POSTs, each executed once")
    assert (seen["failed"], seen["unauthorized"], seen["expired"]) == (0, 0, 0)
    assert (seen["revoked"], seen["token_requests"]) == (2, 4)
    assert seen["replays"] >= 2
    assert [line for line in ended.lines if re.search(r"1\.\d s  revoked every token \(2\)", line)]
    assert len([line for line in ended.lines if re.match(r" *\d\.\d s  [\d,]+ requests, 0 failed; ", line)]) >= 2


async def test_a_run_whose_clients_see_401_exits_1_and_says_so() -> None:
    ended = await run("demo", "--duration", "2", "--fault", "api_unauthorized")
    assert ended.code == 1
    seen = numbers(ended.lines[-1])
    assert seen["unauthorized"] == seen["failed"] == seen["requests"] > 0
    requests = f"{seen['requests']:,}"
    assert ended.stderr.endswith(f"Error: {requests} of {requests} requests failed: {requests} x 401\n")


async def test_ctrl_c_tells_what_was_seen_so_far_and_exits_130() -> None:
    async with await start("demo", "--duration", "600") as program:
        await program.said(r"\d requests, 0 failed")
        program.signal(signal.SIGINT)
        ended = await program.end()
    assert ended.code == 130
    assert ended.lines[-1].startswith(f"{re.findall(r'([0-9,]+) requests', ended.stdout)[-1]} requests, 0 failed; ")


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is needed")
async def test_on_a_terminal_a_table_is_drawn_and_the_summary_comes_last() -> None:
    screen, code = await on_a_terminal("demo", "--duration", "2")
    assert code == 0
    for text in ("Clients", "saw 401", "acme", "globex", "░", "2 of 2 s", "revoked every token"):
        assert text in screen
    last = screen.splitlines()[-4:]
    assert SUMMARY.fullmatch(" ".join(last[1 + last.index("") :])), "broken between words"


async def on_a_terminal(*arguments: str) -> tuple[str, int]:
    """What a program writes to a terminal of 80 columns, without its colours, and its exit code."""
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", *arguments, stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(TERM="xterm", LINES="24"),
    )  # fmt: skip
    os.close(theirs)
    written = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while piece := os.read(ours, 65_536):
                written.extend(piece)

    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(read)
            code = await process.wait()
    finally:
        os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()), code


ORG = OrgFigures(
    name="acme",
    requests=1_000,
    failures={},
    posts=300,
    executed=300,
    refused=2,
    expired=0,
    token_requests=4,
    replays=2,
    age=1.0,
    lifetime=10.0,
)


def seen(
    change: Callable[[OrgFigures], OrgFigures] = lambda org: org, *, revoked: int = 2, repeated: int = 0
) -> Figures:
    return Figures((change(ORG), replace(ORG, name="globex")), revoked, repeated)


def test_the_summary_of_a_good_run() -> None:
    assert summary(seen()) == (
        "2,000 requests, 0 failed; clients saw 0 x 401; 2 tokens were revoked, 4 replays; "
        "0 calls with an expired token; 8 token requests; 600 POSTs, each executed once"
    )
    assert problems(seen()) == []


def test_one_of_a_thing_is_no_plural() -> None:
    one = replace(ORG, requests=1, posts=1, executed=1, replays=1, expired=1, token_requests=1)
    assert summary(Figures((one,), 1, 0)) == (
        "1 request, 0 failed; clients saw 0 x 401; 1 token was revoked, 1 replay; "
        "1 call with an expired token; 1 token request; 1 POST, each executed once"
    )


def test_a_failure_at_one_client_is_a_problem_and_in_the_summary() -> None:
    broken = seen(lambda org: replace(org, failures={"401": 2, "ServerDisconnectedError": 1}))
    assert "2,000 requests, 3 failed; clients saw 2 x 401" in summary(broken)
    assert problems(broken) == ["3 of 2,000 requests failed: 2 x 401, 1 x ServerDisconnectedError"]


@pytest.mark.parametrize(
    "broken,line",
    [
        (seen(lambda org: replace(org, executed=301), repeated=1), "600 POSTs, 601 executed"),
        (seen(lambda org: replace(org, executed=299)), "600 POSTs, 599 executed"),
        # One POST lost and one doubled are not fine together.
        (seen(repeated=1), "600 POSTs, 600 executed"),
    ],
)
def test_a_post_that_was_not_executed_exactly_once_is_a_problem(broken: Figures, line: str) -> None:
    assert summary(broken).endswith(f"; {line}")
    assert [problem for problem in problems(broken) if line in problem]


def test_an_org_without_requests_is_a_problem() -> None:
    idle = seen(lambda org: replace(org, requests=0, posts=0, executed=0))
    assert problems(idle) == ["no request was made for acme"]

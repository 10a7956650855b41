"""``status``: what a running proxy knows, as a table, as it goes on, and in a pipe."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from proxy.cli.outlook import Outlook, drawing, duration
from proxy.sandbox import Sandbox
from tests.cli.program import Program, run, start
from tests.cli.test_run import WHO, get, listening


@pytest.fixture
async def admin(sandbox: Sandbox, config: Path) -> AsyncIterator[str]:
    """The admin port of a proxy that has answered a request of acme, and of which globex gets no token."""
    sandbox.faults.set("token_invalid_client", "client not found", org="globex")
    async with await start("run", "--config", config) as program:
        await get(await listening(program) + f"/t/acme{WHO}")
        yield (await program.said(r"admin on (http://127\.0\.0\.1:\d+)\n"))[1]


async def test_it_shows_each_tenant_those_in_trouble_first_and_what_to_do(admin: str) -> None:
    ended = await run("status", "--url", admin)
    assert ended.code == 0, ended.stderr
    rows = [line.split() for line in ended.lines if line.strip().startswith(("acme ", "globex "))]
    assert [row[0] for row in rows] == ["globex", "acme"]
    assert rows[1][2:6] == ["24", "h", "24", "h"]
    assert rows[1][6] == "1"
    assert "globex: Tenant" not in ended.stdout
    told = " ".join(ended.stdout.split())
    assert re.search(r"globex: .*region.*client_id.*\. Next attempt in \d+ s", told)
    assert "Next attempt in" in told
    assert told.endswith("1 requests, 0 replayed")
    assert all(len(line) <= 80 for line in ended.lines)


async def test_it_shows_those_that_are_named(admin: str) -> None:
    ended = await run("status", "acme", "--url", admin)
    assert "globex" not in ended.stdout
    ended = await run("status", "nobody", "--url", admin)
    assert ended.code == 2
    assert "the proxy has no tenant called 'nobody'" in ended.stderr


async def test_without_a_proxy_it_says_so_and_exits_1() -> None:
    ended = await run("status", "--url", "http://127.0.0.1:1")
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr == "Error: no proxy answers on http://127.0.0.1:1 (Connection refused)\n"


async def test_what_is_no_admin_port_is_told(sandbox: Sandbox) -> None:
    ended = await run("status", "--url", sandbox.base_url)
    assert ended.code == 1
    assert "Traceback" not in ended.stderr
    assert f"{sandbox.base_url} is no admin port of a genesys-auth-proxy" in ended.stderr


async def test_in_a_pipe_it_tells_a_line_now_and_then_and_what_changes(sandbox: Sandbox, admin: str) -> None:
    async with await start("status", "--watch", "--url", admin) as program:
        await program.said(r"globex: .*region")
        await program.said(r"ready, 1 of 2 tokens usable, 1 in trouble, ")
        sandbox.faults.clear()
        async with asyncio.timeout(20):
            import aiohttp

            async with aiohttp.ClientSession() as session, session.post(f"{admin}/tenants/globex/refresh") as answer:
                assert answer.status == 200
        await program.said(r"globex: has a new token\n")
        assert await stopped(program) == (0, "")


async def stopped(program: Program) -> tuple[int, str]:
    program.signal(signal.SIGINT)
    ended = await program.end()
    return ended.code, ended.stderr


# --- what is drawn ---


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """A tenant in ``/status.json``, healthy unless changed."""
    return {
        "name": name,
        "state": "fresh",
        "usable": True,
        "expires_in": 3000.0,
        "lifetime": 3600.0,
        "refresh_in": 2400.0,
        "error": None,
        "diagnosis": None,
        "retry_in": None,
        "rate_limit_remaining": 291,
        "rate_limit_allowed": 300,
        "requests": {"200": 10},
        "replays": {"accepted": 1},
        **changes,
    }


def dead(name: str) -> dict[str, Any]:
    why = f"Tenant {name}: check the region."
    nothing = {"expires_in": None, "lifetime": None, "refresh_in": None, "usable": False}
    return entry(name, state="none", error="invalid_client", diagnosis=why, retry_in=12.0, **nothing)


def outlook(*entries: dict[str, Any], at: float = 0.0, before: Outlook | None = None) -> Outlook:
    document = {
        "proxy": {"version": "1.2.3"},
        "ready": True,
        "draining": False,
        "listening": ["http://127.0.0.1:8080"],
        "connections": {"client": 3},
        "tenants": list(entries),
    }
    return Outlook(document, at, (), before)


def drawn(seen: Outlook, *, width: int = 80, height: int | None = None) -> list[str]:
    console = Console(file=StringIO(), width=width, height=height)
    console.print(drawing(seen, height))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_rate_is_told_from_the_second_look_on() -> None:
    first = outlook(entry("acme"))
    second = outlook(entry("acme", requests={"200": 30}), at=4.0, before=first)
    assert "5.0 a second" not in first.summary
    assert second.summary.endswith("30 requests, 1 replayed, 5.0 a second")
    restarted = outlook(entry("acme", requests={"200": 1}), at=8.0, before=second)
    assert "a second" not in restarted.summary


def test_what_a_reload_could_not_change_is_told() -> None:
    seen = outlook(entry("acme"))
    assert "restart" not in seen.summary
    changed = Outlook({**seen.document, "needs_restart": ["admin", "store"]}, 0.0)
    assert changed.summary.endswith(", to be restarted for changes of admin, store")


def test_trouble_comes_and_goes_as_lines() -> None:
    well, ill = outlook(entry("acme"), entry("globex")), outlook(entry("acme"), dead("globex"))
    assert list(ill.news(well)) == ["globex: check the region. Next attempt in 12 s."]
    assert list(well.news(ill)) == ["globex: has a new token"]
    assert list(ill.news(ill)) == []


@pytest.mark.parametrize("troubled", [0, 1, 10])
@pytest.mark.parametrize("height", [12, 24, 50])
def test_it_fits_the_terminal(troubled: int, height: int) -> None:
    entries = [*(dead(f"dead-{number}") for number in range(troubled)), *(entry(f"org-{n}") for n in range(100))]
    lines = drawn(outlook(*entries), height=height)
    assert len(lines) <= max(height, 17)
    assert any("more; name those that you want to see" in line for line in lines)


def test_long_names_are_folded_and_no_column_is_lost() -> None:
    lines = drawn(outlook(entry("a" * 63), dead("b" * 63)))
    assert all(len(line) <= 80 for line in lines)
    assert any("291/300" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119.4, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2 h"), (172_800.0, "2 d")],
)
def test_a_duration_is_told_in_the_largest_unit_that_leaves_no_small_number(seconds: float, text: str) -> None:
    assert duration(seconds) == text

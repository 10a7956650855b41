"""What every call of the command line pays, and what it says of itself."""

from __future__ import annotations

import pytest

from proxy import __version__
from proxy.cli import COMMANDS
from tests.cli.program import ROOT, run

HEAVY = {"aiohttp", "asyncio", "pydantic", "prometheus_client", "rich", "uvloop", "logging"}

IMPORTED = """
import atexit, sys
atexit.register(lambda: print(sorted(sys.modules), file=sys.stderr))
from proxy.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments,code",
    [(["--version"], 0), (["--help"], 0), (["run", "--help"], 0), (["health", "--url", "http://127.0.0.1:1"], 1)],
)
async def test_what_is_asked_often_or_early_imports_nothing_heavy(arguments: list[str], code: int) -> None:
    ended = await run(*arguments, command=("-c", IMPORTED))
    assert ended.code == code
    imported = set(ended.stderr.replace("'", " ").replace(",", " ").replace("[", " ").split())
    assert "proxy.cli" in imported
    assert imported & HEAVY == set()


async def test_the_version_is_the_packages() -> None:
    ended = await run("--version")
    assert (ended.code, ended.stdout) == (0, f"genesys-auth-proxy {__version__}\n")


async def test_an_unknown_command_exits_2() -> None:
    ended = await run("restart")
    assert ended.code == 2
    assert "No such command 'restart'" in ended.stderr


async def test_the_help_is_the_one_on_file() -> None:
    """If it should have changed, put what this prints into help.txt."""
    helps = []
    for command in ("", *COMMANDS):
        ended = await run(*command.split(), "--help")
        assert ended.code == 0
        helps.append(f"$ {' '.join(filter(None, ['genesys-auth-proxy', command, '--help']))}\n{ended.stdout}")
    print(told := "\n".join(helps))
    assert told == (ROOT / "tests" / "cli" / "help.txt").read_text("utf-8")

"""``completion``: in a real shell, commands, options and tenants are completed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli.completion import SHELLS
from tests.cli.files import write
from tests.cli.program import environment, run

COMPLETE = """
eval "$(genesys-auth-proxy completion bash)"
COMP_WORDS=(genesys-auth-proxy {words})
COMP_CWORD={last}
_genesys_auth_proxy_completion genesys-auth-proxy
echo "${{COMPREPLY[@]}}"
"""

CONFIG = """
include = ["more/*.toml"]
[tenants.acme]
[tenants.alpha]
[tenants.globex]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration, and the program in ``bin``."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "more").mkdir()
    write(tmp_path / "genesys-auth-proxy.toml", CONFIG)
    write(tmp_path / "more" / "one.toml", "[tenants.included]\n")
    program = write(tmp_path / "bin" / "genesys-auth-proxy", f'#!/bin/sh\nexec "{sys.executable}" -m proxy "$@"\n')
    program.chmod(0o755)
    return tmp_path


def completed(folder: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    path = f"{folder}/bin:{environment()['PATH']}"
    ran = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE.format(words=quoted, last=len(words))],
        cwd=folder, env=environment(PATH=path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    return set(ran.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["s"], {"sandbox", "snippet", "schema", "status"}),
        (["run", "--log-l"], {"--log-level"}),
        (["run", "--log-level", "d"], {"debug"}),
        (["snippet", "--sdk", "j"], {"javascript", "java"}),
        (["snippet", "a"], {"acme", "alpha"}),
        (["check", "acme", ""], {"acme", "alpha", "globex", "included"}),
        (["status", "inc"], {"included"}),
        (["status", "--config", "none.toml", ""], set()),
    ],
)
def test_bash_completes(folder: Path, words: list[str], offered: set[str]) -> None:
    assert completed(folder, *words) == offered


@pytest.mark.parametrize("text", ["[tenants", "include = 1", 'tenants = "x"', 'include = ["/abs"]'])
def test_a_configuration_that_is_wrong_completes_nothing(folder: Path, text: str) -> None:
    write(folder / "genesys-auth-proxy.toml", text)
    assert completed(folder, "snippet", "a") == set()


@pytest.mark.parametrize("shell", SHELLS)
async def test_each_shell_has_its_script(shell: str) -> None:
    ended = await run("completion", shell)
    assert (ended.code, ended.stderr) == (0, "")
    assert "_GENESYS_AUTH_PROXY_COMPLETE" in ended.stdout
    assert f"{shell}_complete" in ended.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_script_for_bash_has_no_error_in_it(folder: Path) -> None:
    command = "genesys-auth-proxy completion bash | bash -n"
    path = f"{folder}/bin:{environment()['PATH']}"
    ran = subprocess.run(["sh", "-c", command], env=environment(PATH=path), capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


async def test_another_shell_exits_2() -> None:
    ended = await run("completion", "csh")
    assert ended.code == 2

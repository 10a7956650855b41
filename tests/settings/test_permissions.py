"""Files that secrets stand in, and whether others can read them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from proxy.settings import too_open
from tests.settings.folder import TENANT, Folder

BARE = TENANT.replace('client_secret = "secret"\n', "")


def names(folder: Folder, text: str) -> set[str]:
    files = folder.load(text, {"S": "0123456789abcdef"}).secret_files
    return {str(file.relative_to(folder.path)) for file in files}


def test_files_with_nothing_but_a_secret_and_files_with_one_in_them_are_known(folder: Folder) -> None:
    folder.write("secret", "0123456789abcdef")
    assert names(folder, TENANT) == {"proxy.toml"}
    assert names(folder, f'{BARE}client_secret = {{ env = "S" }}') == set()
    assert names(folder, f'{BARE}client_secret = {{ file = "secret" }}') == {"secret"}
    key = '[access]\ncaller_keys = [{ key = { file = "secret" } }, "fedcba9876543210"]'
    assert names(folder, f'{key}{BARE}client_secret = {{ env = "S" }}') == {"secret", "proxy.toml"}


def test_an_included_file_with_a_secret_is_known(folder: Folder) -> None:
    folder.write("more.toml", TENANT)
    assert names(folder, 'include = ["more.toml"]') == {"more.toml"}


def test_a_sandbox_is_where_every_login_is_on_this_machine_and_nobody_has_a_key(folder: Folder) -> None:
    there = TENANT.replace('"secret"', '{ env = "S" }')
    here = there.replace("acme", "here").replace(
        'region = "eu-central-1"', 'api_url = "http://127.0.0.1:8090"\nlogin_url = "http://127.0.0.1:8090"'
    )
    environ = {"S": "0123456789abcdef"}
    assert folder.load(here, environ).rehearses
    assert not folder.load(here + there, environ).rehearses
    assert not folder.load('[access]\ncaller_keys = ["0123456789abcdef"]' + here, environ).rehearses


@pytest.mark.parametrize(("proxy", "known"), [("http://p:1", False), ("http://u:p@p:1", True), ("", False)])
def test_a_forward_proxys_url_is_a_secret_where_it_has_a_password(folder: Folder, proxy: str, known: bool) -> None:
    text = f'[upstream]\nproxy = "{proxy}"{BARE}client_secret = {{ env = "S" }}'
    assert ("proxy.toml" in names(folder, text)) is known


@pytest.mark.parametrize(
    ("mode", "problem"),
    [(0o600, False), (0o400, False), (0o700, False), (0o640, True), (0o604, True), (0o620, True), (0o602, True)],
)
def test_a_file_that_others_can_read_or_change_is_told(tmp_path: Path, mode: int, problem: bool) -> None:
    file = tmp_path / "secret"
    file.write_text("x")
    file.chmod(mode)
    told = f"{file}: others can read or change the secrets in it (mode {mode:04o}); chmod 600 it, or 400"
    assert too_open([file, tmp_path / "gone"]) == ([told] if problem else [])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("group", "mode", "problem"), [(65534, 0o440, False), (65534, 0o460, True), (1, 0o440, True)])
def test_a_file_of_roots_for_the_processs_own_group_is_its_own(group: int, mode: int, problem: bool) -> None:
    code = (
        "import os, sys; from pathlib import Path; from proxy.settings import too_open\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(len(too_open([Path(sys.argv[1])])))"
    )
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:  # pytest shuts its own to others whenever a run begins
        file = Path(folder, "secret")
        file.write_text("x")
        os.chown(file, 0, group)
        file.chmod(mode)
        Path(folder).chmod(0o755)
        ran = subprocess.run(
            [sys.executable, "-c", code, str(file)], cwd=root, capture_output=True, text=True, timeout=60, check=True
        )
    assert ran.stdout == f"{int(problem)}\n"

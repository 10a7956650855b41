"""aiohttp's parser: what it has no part in, and that its fallback in Python serves as well where it has one.

``make test-parser`` runs all of the tests that it can make a difference to; here are some of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_WITH_PYTHON = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}
_SOME = ("tests/oauth/test_endpoint.py", "tests/sandbox/test_server.py")


def _run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=_ROOT,
        env=_WITH_PYTHON,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_passes_through_is_read_without_it() -> None:
    code = "import sys, proxy.forward.shortcut; print(sorted(m for m in sys.modules if m.startswith('aiohttp')))"
    assert _run("-c", code).strip() == "[]"


@pytest.mark.timeout(300)
def test_its_fallback_in_python_passes_the_same_tests() -> None:
    code = "from aiohttp.http_parser import HttpResponseParser as p, HttpResponseParserPy as q; print(p is q)"
    assert _run("-c", code).strip() == "True"
    output = _run("-m", "pytest", "-q", "-p", "no:cacheprovider", *_SOME)
    assert " passed" in output.splitlines()[-1]

"""Who may import whom in proxy/: the architecture that its package docstring tells, held by a machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROXY = Path(__file__).resolve().parents[2] / "proxy"

MAY_IMPORT = {
    "__init__": set[str](),
    "__main__": {"cli"},
    "errors": set[str](),
    "core": {"errors"},
    "settings": {"core", "errors"},
    "tls": {"errors"},
    "traces": {"core", "errors"},
    "process": set[str](),
    "oauth": {"core", "errors"},
    "wire": {"core", "errors"},
    "forward": {"core", "errors", "wire"},
    "admin": {"core", "errors"},
    "sandbox": {"core", "errors"},
    "app": {"admin", "core", "errors", "forward", "oauth", "process", "settings", "tls", "traces", "wire"},
    "workers": {"admin", "app", "core", "errors", "settings", "wire"},
    "cli": {"app", "core", "errors", "process", "sandbox", "settings", "workers"},
}
"""Beside itself and ``__version__``. The planes meet in ``app`` alone."""

IMPURE = {"aiohttp", "asyncio", "logging", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "ssl"}
IMPURE |= {"subprocess", "tempfile", "threading", "time", "uuid", "uvloop"}


def imports(tree: ast.Module) -> Iterator[str]:
    """Every absolute dotted name that is imported, in functions too; ruff bans the relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def problems(file: Path, source: str) -> Iterator[str]:
    """What is wrong with the module at this path below proxy/."""
    tree, layer = ast.parse(source), file.with_suffix("").parts[0]
    if layer not in MAY_IMPORT:
        yield f"proxy/{file} is of no layer; MAY_IMPORT and proxy/__init__.py tell the layers"
        return
    if not ast.get_docstring(tree):
        yield f"proxy/{file} does not begin with a docstring"
    for name in imports(tree):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package == "proxy" and target not in MAY_IMPORT[layer] | {layer, "__version__"}:
            yield f"proxy/{file} imports {name}; {layer} may import {sorted(MAY_IMPORT[layer])}"
        if layer == "core" and package in IMPURE:
            yield f"proxy/{file} imports {name}; core decides without I/O, clock and randomness"
    if layer == "core" and any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree)):
        yield f"proxy/{file} awaits; core decides without I/O"


def test_every_module_keeps_to_its_layer() -> None:
    files = [file.relative_to(PROXY) for file in PROXY.rglob("*.py")]
    assert not [problem for file in files for problem in problems(file, (PROXY / file).read_text("utf-8"))]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/tokens.py", '"""A."""\nfrom proxy.oauth.source import Source'),
        ("core/tokens.py", '"""A."""\nfrom proxy import settings'),
        ("core/tokens.py", '"""A."""\ndef now():\n    import time'),
        ("core/tokens.py", '"""A."""\nasync def ask(): pass'),
        ("oauth/source.py", '"""A."""\nimport proxy.forward.handler'),
        ("admin/status.py", '"""A."""\nfrom proxy.settings import load'),
        ("cli/run.py", '"""A."""\nfrom proxy.oauth import source'),
        ("wire/server.py", "import socket"),
        ("utils.py", '"""A."""'),
    ],
)
def test_a_module_that_leaves_its_layer_is_found(file: str, source: str) -> None:
    assert len(list(problems(Path(file), source))) == 1


def test_a_module_that_keeps_to_its_layer_passes() -> None:
    source = '"""A."""\nfrom proxy import __version__, errors\nfrom proxy.wire.server import Server\nimport time'
    assert not list(problems(Path("forward/handler.py"), source))

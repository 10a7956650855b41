"""``snippet``: what is pasted works, and names this proxy."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import tree_sitter_c_sharp
import tree_sitter_go
import tree_sitter_hcl
import tree_sitter_java
from tree_sitter import Language, Parser

from proxy.app import Proxy
from proxy.cli.snippet import SDKS
from proxy.sandbox import Sandbox
from proxy.settings import load
from tests.cli.files import append, change, read, write
from tests.cli.program import PATIENCE, ROOT, Ended, environment, run

JAVASCRIPT = ROOT / "tests" / "sdk" / "javascript"


@pytest.fixture
async def url(config: Path) -> AsyncIterator[str]:
    """A running proxy for the sandbox's orgs."""
    proxy = Proxy(load(config))
    await proxy.start()
    yield proxy.url
    await proxy.drain()


async def execute(program: str, file: Path, **variables: str) -> Ended:
    """Runs a file in its folder, which is the home too, so that nobody's own SDK settings count."""
    process = await asyncio.create_subprocess_exec(
        program,
        file,
        cwd=file.parent,
        env=environment(HOME=str(file.parent), **variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(3 * PATIENCE):  # the Python SDK has thousands of modules
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


async def snippet(config: Path, sdk: str, *arguments: str, tenant: str = "globex") -> str:
    ended = await run("snippet", tenant, "--sdk", sdk, "--config", config, *arguments)
    assert ended.code == 0, ended.stderr
    return ended.stdout


async def test_the_python_snippet_calls_the_tenants_api(
    sandbox: Sandbox, config: Path, url: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "program.py", await snippet(config, "python", "--url", url))
    ended = await execute(sys.executable, file)
    assert (ended.code, ended.stdout) == (0, "globex\n"), ended.stderr[-2000:]
    assert sandbox.ledger.refused() == {}


@pytest.mark.needs("javascript-sdk")
async def test_the_javascript_snippet_calls_the_tenants_api(
    sandbox: Sandbox, config: Path, url: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "program.js", await snippet(config, "javascript", "--url", url))
    ended = await execute("node", file, NODE_PATH=str(JAVASCRIPT / "node_modules"))
    assert (ended.code, ended.stdout) == (0, "globex\n"), ended.stderr[-2000:]
    assert sandbox.ledger.refused() == {}


@pytest.mark.parametrize("sdk", SDKS)
async def test_every_snippet_names_the_gateway_whole(config: Path, sdk: str) -> None:
    text = await snippet(config, sdk, "--url", "https://proxy.example")
    assert "proxy.example" in text
    assert re.search(r"\b443\b", text)
    assert text.count('"t/globex"') == 2
    assert re.search(r'"https"', text)


GRAMMARS = {
    "java": tree_sitter_java.language,
    "dotnet": tree_sitter_c_sharp.language,
    "go": tree_sitter_go.language,
    "terraform": tree_sitter_hcl.language,
}


def whole(sdk: str, text: str) -> str:
    """A snippet in a file of its language: what stands between imports and the end is statements of a function."""
    imports = "".join(line for line in text.splitlines(keepends=True) if line.startswith(("import ", "//")))
    statements = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("import ", "//")))
    match sdk:
        case "java":
            return f"{imports}class Program {{ static void main(String[] arguments) {{\n{statements}\n}} }}\n"
        case "go":
            return f"package main\n{imports}func main() {{\n{statements}\n}}\n"
    return text


def wrong(sdk: str, text: str) -> bool:
    """Whether a file breaks its language's grammar."""
    return Parser(Language(GRAMMARS[sdk]())).parse(whole(sdk, text).encode()).root_node.has_error


@pytest.mark.parametrize("sdk", GRAMMARS)
async def test_the_snippets_that_are_not_run_keep_to_their_languages_grammar(config: Path, sdk: str) -> None:
    text = await snippet(config, sdk, "--url", "http://127.0.0.1:8080")
    assert not wrong(sdk, text)
    at = text.rindex('"')
    assert wrong(sdk, text[:at] + text[at + 1 :]), "a quote that is missing is found"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
async def test_a_shell_can_read_the_snippet_for_the_cli(config: Path) -> None:
    text = await snippet(config, "cli", "--url", "http://127.0.0.1:8080")
    file = write(config.parent / "gc.sh", text)
    ended = await execute("bash", file)  # gc is not installed: all that comes before it has happened
    assert "gc: command not found" in ended.stderr
    assert json.loads(read(config.parent / "gateway.json"))["port"] == "8080"
    assert tomllib.loads(read(config.parent / ".gc" / "config.toml"))["globex"]["client_secret"] == "proxy"


async def test_the_snippet_for_the_cli_is_a_profile_and_a_gateway_file(config: Path) -> None:
    text = await snippet(config, "cli", "--url", "http://127.0.0.1:8080")
    profile, gateway = re.findall(r"<<'END'\n(.*?)\nEND\n", text, re.DOTALL)
    assert tomllib.loads(profile).keys() == {"globex"}
    assert json.loads(gateway) == {
        "protocol": "http",
        "host": "127.0.0.1",
        "port": "8080",
        "pathParams": {"login": "t/globex", "api": "t/globex"},
    }


async def test_the_region_stands_where_a_tool_wants_one(config: Path) -> None:
    change(config, "[tenants.globex]", '[tenants.globex]\nregion = "mypurecloud.de"')
    assert 'aws_region         = "eu-central-1"\n' in await snippet(config, "terraform", "--url", "http://a.example")


async def test_the_only_tenant_need_not_be_named(config: Path) -> None:
    ended = await run("snippet", "--sdk", "go", "--url", "http://a.example", "--config", config)
    assert ended.code == 2
    assert "Invalid value for TENANT: say which: acme, globex" in ended.stderr
    write(config, read(config).partition("[tenants.globex]")[0])
    ended = await run("snippet", "--sdk", "go", "--url", "http://a.example", "--config", config)
    assert ended.code == 0
    assert "t/acme" in ended.stdout


@pytest.mark.parametrize("host,shown", [("127.0.0.1", '"127.0.0.1"'), ("::1", '"[::1]"'), ("localhost", '"localhost"')])
async def test_the_address_is_the_configured_one(config: Path, host: str, shown: str) -> None:
    change(config, "[listen]\nport = 0", f'[listen]\nhost = "{host}"\nport = 18080')
    text = await snippet(config, "python")
    assert f"gateway.host = {shown}\ngateway.port = 18080\n" in text


async def test_an_address_that_means_everywhere_becomes_this_machine(config: Path) -> None:
    change(config, "[listen]\nport = 0", '[access]\nopen = true\n[listen]\nhost = "0.0.0.0"\nport = 18080')
    assert 'gateway.host = "127.0.0.1"\n' in await snippet(config, "python")


async def test_a_caller_key_has_its_place_in_the_path_and_is_not_shown(config: Path) -> None:
    key = "0123456789abcdef-secret"
    append(config, f'[access]\ncaller_keys = ["{key}"]\n')
    ended = await run("snippet", "globex", "--sdk", "java", "--url", "http://127.0.0.1:8080", "--config", config)
    assert ended.stdout.count('"k/CALLER-KEY/t/globex"') == 2
    assert "in place of CALLER-KEY" in ended.stderr
    assert key not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (["globex", "--sdk", "python"], "listen.port: expected a fixed port for a snippet (got 0), or --url"),
        (["nobody", "--sdk", "python"], "no tenant is called 'nobody'; there are: acme, globex"),
        (["globex", "--sdk", "cobol"], "'cobol' is not one of 'python', "),
        (["globex", "--sdk", "go", "--url", "ftp://x"], "Invalid value for --url"),
        (["globex", "--sdk", "go", "--url", "http://x/path"], "expected a URL without a path"),
    ],
)
async def test_what_cannot_be_written_exits_2(config: Path, arguments: list[str], expected: str) -> None:
    ended = await run("snippet", *arguments, "--config", config)
    assert (ended.code, ended.stdout) == (2, "")
    assert expected in ended.stderr


def migrated(language: str, url: str) -> str:
    """The program in README after its migration to the proxy, at this URL."""
    text = (ROOT / "README.md").read_text("utf-8").partition("### From a program that logs in itself")[2]
    [block, *_] = re.findall(rf"^{language}:\n\n```diff\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line[1:] for line in block.splitlines() if not line.startswith("-")]
    assert len(lines) < len(block.splitlines()), "something is taken out"
    return "\n".join(lines).replace("8080", url.rpartition(":")[2]).replace("t/acme", "t/globex")


async def test_a_python_program_migrated_as_readme_says_calls_the_tenants_api(url: str, tmp_path: Path) -> None:
    ended = await execute(sys.executable, write(tmp_path / "program.py", migrated("Python", url)))
    assert (ended.code, ended.stdout) == (0, "globex\n"), ended.stderr[-2000:]


@pytest.mark.needs("javascript-sdk")
async def test_a_javascript_program_migrated_as_readme_says_calls_the_tenants_api(url: str, tmp_path: Path) -> None:
    file = write(tmp_path / "program.js", migrated("JavaScript", url))
    ended = await execute("node", file, NODE_PATH=str(JAVASCRIPT / "node_modules"))
    assert (ended.code, ended.stdout) == (0, "globex\n"), ended.stderr[-2000:]

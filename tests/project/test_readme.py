"""README tells the truth: what it quotes is today's, and what it shows in a terminal happens when it is typed."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy import errors
from proxy.cli import COMMANDS
from proxy.cli.snippet import SDKS
from proxy.forward.rescue import explain
from proxy.sandbox import ACME
from proxy.settings import load
from tests.bench.programs import free_port
from tests.project.quoted import README, ROOT, filled, output

TEXT = README.read_text("utf-8")
LEFT_OUT = "…"

Shown = tuple[str, list[str]]
"""A command and the lines that follow it."""


def fenced(language: str) -> list[str]:
    """The contents of each code block in a language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return found


def shown() -> list[Shown]:
    """Every command in README with the output that it shows there, in order."""
    found: list[Shown] = []
    for line in "".join(fenced("console")).splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """A line without its numbers, and without the spaces that go with their width."""
    return re.sub(r"[\s─]+", " ", re.sub(r"\d[\d,]*(\.\d+)?", "0", line)).strip()


def fits(told: list[str], said: list[str]) -> bool:
    """Whether a program said what README tells, but for what "…" leaves out: lines, or the end of one."""
    pattern = "".join(r"(?:.*\n)*" if line == LEFT_OUT else _pattern(line) for line in told if line.strip())
    return re.fullmatch(pattern, "".join(f"{shape(line)}\n" for line in said if line.strip())) is not None


def _pattern(line: str) -> str:
    return re.escape(shape(line.removesuffix(LEFT_OUT))) + (r".*\n" if line.endswith(LEFT_OUT) else r"\n")


@pytest.mark.parametrize(
    ("told", "said", "expected"),
    [
        (["a 1", "b"], ["a 22.5", "", "b"], True),
        (["a 1", "b"], ["a 1"], False),
        (["a 1"], ["a 1", "b"], False),
        (["a", "…"], ["a", "b"], True),
        (["a", "…", "c"], ["a", "b", "b", "c"], True),
        (["a", "…", "c"], ["a", "b"], False),
        (["a…"], ["a and more"], True),
        (["b…"], ["a and more"], False),
        ([], ["a"], False),
    ],
)
def test_what_fits_fits(told: list[str], said: list[str], expected: bool) -> None:
    assert fits(told, said) == expected


# --- what it quotes ---


def test_help_snippets_and_tables_of_keys_are_todays() -> None:
    """If not: python -m tests.project.quoted"""
    assert filled(TEXT) == TEXT
    assert len(re.findall("<!-- quoted: ", TEXT)) == len(re.findall("<!-- end -->", TEXT)) == 5


def test_the_transcript_of_the_demo_has_the_shape_of_todays() -> None:
    [told] = [lines for command, lines in shown() if command == "make demo"]
    said = {shape(line) for line in output("demo", "--duration", "3").splitlines()}
    lines = [line for line in told if line != LEFT_OUT]
    assert len(lines) > 5
    for line in lines:
        assert shape(line) in said
    assert "0 failed; clients saw 0 x 401" in lines[-1]


def test_every_answer_of_the_proxys_own_is_in_the_table_of_failures() -> None:
    table = TEXT.partition("## What happens on each failure\n")[2].partition("\n## ")[0]
    told = {(int(status), code) for status, code in re.findall(r"`(\d{3}) ([a-z.]+)`", table)}
    assert told == set(own_answers())


def test_every_event_of_the_log_is_in_its_table() -> None:
    table = TEXT.partition("| event | level |")[2].partition("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    told = {event for row in rows for event in re.findall(r"`([a-z_.]+)`", row[0])}
    source = "".join(file.read_text("utf-8") for file in (ROOT / "proxy").rglob("*.py"))
    assert told == set(re.findall(r'"event": \\?"([a-z_.]+)', source))


NEVER_ANSWERED = (errors.ConfigurationError, errors.StoreError, errors.LoginFailed, errors.ClientClosed)


def own_answers() -> Iterator[tuple[int, str]]:
    for error in subclasses(errors.ProxyError):
        if error is errors.TokenError or issubclass(error, NEVER_ANSWERED):
            continue  # never answered to a client, or only as one of its kinds
        if issubclass(error, errors.MethodNotAllowed):
            made: errors.ProxyError = error("", allowed=())
        else:
            made = error("", error="") if issubclass(error, errors.TokenError) else error("")
        failure = explain(made)
        assert (failure.retry_after is not None) == (failure.status == 503), "README says so"
        yield failure.status, failure.code
    failure = explain(ValueError())
    yield failure.status, failure.code


def subclasses(error: type[errors.ProxyError]) -> Iterator[type[errors.ProxyError]]:
    for inner in error.__subclasses__():
        yield inner
        yield from subclasses(inner)


def test_every_sdk_of_the_snippets_is_named() -> None:
    assert "`--sdk` is one of " + ", ".join(f"`{sdk}`" for sdk in SDKS) in " ".join(TEXT.split())


def test_every_configuration_in_it_loads(tmp_path: Path) -> None:
    examples = fenced("toml")
    assert examples
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "acme").write_text("secret\n")
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example, "utf-8")
        variables = {
            name: pem if name.endswith("_PRIVATE_KEY") else "a-secret-of-some-length"
            for name in re.findall(r'env = "(\w+)"', example)
        }
        assert load(file, variables).tenants.keys() == tomllib.loads(example)["tenants"].keys()


# --- what it points to ---


def test_every_threat_names_tests_that_there_are() -> None:
    table = TEXT.partition("### Threats\n")[2].partition("\n\nNot held off")[0].strip().splitlines()[2:]
    assert len(table) >= 15
    for row in table:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.split(" | ")[-1])
        assert named, f"no test shows it: {row}"
        for file, test in named:
            defined = {
                node.name
                for node in ast.parse((ROOT / file).read_text("utf-8")).body
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert test in defined, f"{file} has no {test}"


def test_every_link_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(targets) > 10
    for target in targets:
        if target.startswith("#"):
            assert target.removeprefix("#") in anchors, target
        else:
            assert (ROOT / target).exists(), target


def test_every_make_target_in_it_exists() -> None:
    named = {command.split()[1] for command in re.findall(r"(?:`|\$ )(make [a-z][^`\n]*)", TEXT)}
    assert {"demo", "test", "check", "bench"} <= named
    for target in named:
        ran = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr


def test_every_command_of_the_program_in_it_exists() -> None:
    named = set(re.findall(r"(?:`|\$ )genesys-auth-proxy ([a-z]\w*)", TEXT))
    assert named <= set(COMMANDS)
    assert {"run", "check", "init", "snippet", "health", "sandbox", "schema"} <= named


def test_its_container_commands_are_the_dockerfiles() -> None:
    head = " ".join(
        line.removeprefix("# ") for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] == "#"
    )
    commands = [command for command, _ in shown() if command.startswith("docker ")]
    assert len(commands) == 2
    for command in commands:
        assert command in head


def test_it_names_no_path_of_the_machine_it_was_written_on() -> None:
    assert not re.search(r"(?<![\w.*/>])/(?:home|root|tmp|work|Users|mnt)\b", TEXT)


# --- what it shows in a terminal ---


class Terminal:
    """Where README's commands are typed: a folder with the project's config/, the command on the PATH, and ports
    that are free in place of those in README.

    A program that goes on is left running until the next of its kind, or the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {port: str(free_port()) for port in ("8080", "8081", "8090")}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._may_say_more: dict[str, bool] = {}
        program = folder / "bin" / "genesys-auth-proxy"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m proxy "$@"\n')
        program.chmod(0o755)
        dropped = {"GENESYS_AUTH_PROXY_CONFIG", "FORCE_COLOR", "TERM", "COLUMNS", "ACME_CLIENT_SECRET"}
        self._environment = {name: value for name, value in os.environ.items() if name not in dropped}
        self._environment |= {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
        }
        shutil.copytree(ROOT / "config", folder / "config")
        self.rewrite(folder / "config" / "demo.toml")

    def rewrite(self, file: Path) -> None:
        file.write_text(self._here(file.read_text("utf-8")), "utf-8")

    def _here(self, text: str) -> str:
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    def type(self, command: str, told: list[str]) -> list[str]:
        """Types a command, and returns what it wrote; of a program that goes on, as many lines as it told."""
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            assert value == LEFT_OUT, "a secret has no place in README"
            self._environment[name] = ACME.clients[0].secret or ""
            return []
        words = shlex.split(command)
        if words[:2] in (["genesys-auth-proxy", "sandbox"], ["genesys-auth-proxy", "run"]):
            return self._go_on(words[1], command, told)
        ran = subprocess.run(
            ["sh", "-c", self._here(command)],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout.splitlines()

    def _go_on(self, kind: str, command: str, told: list[str]) -> list[str]:
        self.end(kind)
        options = ["--port", self._ports["8090"]] if kind == "sandbox" else []
        self._running[kind] = process = subprocess.Popen(
            [*shlex.split(command), *options],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        self._may_say_more[kind] = LEFT_OUT in told
        return [process.stdout.readline().rstrip("\n") for line in told if line != LEFT_OUT]

    def end(self, *kinds: str) -> None:
        """Ends what goes on, and sees that README told all that it wrote."""
        for kind in kinds or tuple(self._running):
            process = self._running.pop(kind, None)
            if process is None:
                continue
            process.terminate()
            try:
                more, _ = process.communicate(timeout=10)
            finally:
                process.kill()
            assert self._may_say_more[kind] or not more, f"{kind} wrote more:\n{more}"

    def fill_in(self) -> None:
        """What README says to do after ``init``: the org's region and client, here the sandbox's."""
        file = self.folder / "genesys-auth-proxy.toml"
        starter = file.read_text("utf-8")
        url = f"http://127.0.0.1:{self._ports['8090']}"
        text = re.sub(r"region = .*", f'api_url = "{url}"\nlogin_url = "{url}"', starter)
        text = re.sub(r'client_id = "[0-]*"', f'client_id = "{ACME.clients[0].id}"', text)
        assert text.count(url) == 2
        assert ACME.clients[0].id in text
        file.write_text(self._here(f"{text}\n[admin]\nport = 8081\n"), "utf-8")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.end()


ELSEWHERE = re.compile(r"make |docker |\. \.venv/bin/activate$|genesys-auth-proxy --help$")
"""What other tests here hold to be true, and the environment that make sets up, for which bin/ stands here."""


@pytest.mark.needs("curl")
def test_what_it_shows_in_a_terminal_happens_when_it_is_typed(terminal: Terminal) -> None:
    typed = 0
    for command, told in shown():
        if ELSEWHERE.match(command):
            continue
        said = terminal.type(command, told)
        assert fits(told, said), f"{command} wrote\n" + "\n".join(said)
        typed += 1
        if command == "genesys-auth-proxy init":
            terminal.fill_in()
    assert typed >= 15


@pytest.mark.needs("curl")
def test_the_admin_endpoints_and_metrics_in_it_are_those_there_are(terminal: Terminal) -> None:
    endpoints = re.findall(r"^\| `(GET|POST) (/[^`]*)` \|", TEXT, re.MULTILINE)
    assert len(endpoints) >= 7
    metrics = set(re.findall(r"^\| `(genesys_auth_proxy_\w+)(?:\{([a-z,]+)\})?` \|", TEXT, re.MULTILINE))
    terminal.type("genesys-auth-proxy sandbox", ["sandbox on", LEFT_OUT])
    terminal.type("genesys-auth-proxy run --config config/demo.toml", ["listening on", "admin on"])
    call = "curl -s http://127.0.0.1:8080/api/v2/organizations/me"
    for command in (call, "curl -s http://127.0.0.1:8090/sandbox/revoke -d {}", call):
        terminal.type(command, [])
    endpoints.remove(("GET", "/events"))
    terminal.type("curl -sN --max-time 10 http://127.0.0.1:8081/events | head -c 5", ["data:"])  # it has no end
    for method, path in endpoints:
        terminal.type(f"curl -sS --fail -X {method} 'http://127.0.0.1:8081{path}'", [])
    lines = terminal.type("curl -s http://127.0.0.1:8081/metrics", [])
    kinds = dict(re.findall(r"# TYPE (genesys_auth_proxy_\w+) (\w+)", "\n".join(lines)))
    assert {name for name, _ in metrics} == kinds.keys()
    labels = {
        (re.sub(r"_(bucket|count|sum)$", "", name), frozenset(re.findall(r"(\w+)=", inside)) - {"le"})
        for name, inside in re.findall(r"^(genesys_auth_proxy_\w+)\{(.*)\} ", "\n".join(lines), re.MULTILINE)
    }
    told = {(name, frozenset(inside.split(","))) for name, inside in metrics}
    assert labels < told
    # One process without keys, a policy that observes, limits that were met, or WebSockets: nothing to count there.
    assert {name.removeprefix("genesys_auth_proxy_") for name, _ in told - labels} == {
        "caller_requests_total",
        "policy_observed_total",
        "rate_limited_total",
        "websocket_bytes_total",
        "websockets",
        "worker_starts_total",
        "workers",
    }

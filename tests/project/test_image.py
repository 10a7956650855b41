"""The Dockerfile's steps, carried out in a clean directory without a container engine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import proxy

ROOT = Path(__file__).resolve().parents[2]
HOME = "/opt/genesys-auth-proxy"

Step = tuple[str, str]
"""An instruction and its arguments."""


def stages() -> list[list[Step]]:
    """The Dockerfile's stages, each a list of instructions."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Step]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, arguments.strip()))
    return found


def arguments(stage: list[Step], instruction: str) -> list[str]:
    """The arguments of each such instruction."""
    return [arguments for name, arguments in stage if name == instruction]


@dataclass(frozen=True)
class Machine:
    """A directory that stands for the root of the image's first stage."""

    root: Path
    context: Path

    def carry_out(self, stage: list[Step]) -> None:
        workdir, variables = self.root, ""
        for instruction, arguments in stage:
            match instruction:
                case "WORKDIR":
                    workdir = self.root / arguments.lstrip("/")
                    workdir.mkdir(parents=True)
                case "COPY":
                    *sources, target = arguments.split()
                    for source in sources:
                        self._copy(self.context / source, workdir / target)
                case "RUN":
                    command = arguments.replace(HOME, f"{self.root}{HOME}")
                    self._run(f"{variables}{command}", workdir)
                case "ARG":
                    variables += f"{arguments}; "
                case "FROM" | "ENV":
                    pass
                case _:
                    raise AssertionError(f"this test knows no {instruction}")

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)

    def _run(self, command: str, workdir: Path) -> None:
        environment = {
            **os.environ,
            "PATH": f"{self.root}/python/bin:{os.environ['PATH']}",
            "PIP_NO_COMPILE": "1",
        }
        environment.pop("PYTHONPATH", None)
        ran = subprocess.run(
            ["sh", "-c", command], cwd=workdir, env=environment, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a Python of its own, and the files that .dockerignore lets through."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    context = tmp_path / "context"
    context.mkdir()
    for name in (rule.removeprefix("!") for rule in rules if rule.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, context / name)
    root = tmp_path / "root"
    subprocess.run([sys.executable, "-m", "venv", root / "python"], check=True, timeout=300)
    return Machine(root, context)


@pytest.mark.needs("package-index")
@pytest.mark.timeout(900)  # 20 s of work, and what the package index takes
def test_the_first_stage_makes_a_proxy_without_what_built_it(machine: Machine) -> None:
    build, _ = stages()
    machine.carry_out(build)
    home = Path(f"{machine.root}{HOME}")
    ran = subprocess.run([home / "bin" / "genesys-auth-proxy", "--version"], env={}, capture_output=True, text=True)
    assert proxy.__version__ in ran.stdout, ran.stderr
    installed = {path.name for path in home.glob("lib/python*/site-packages/*")}
    assert "aiohttp" in installed
    assert not installed & {"pip", "setuptools", "wheel", "hatchling"}


def test_the_image_takes_only_the_finished_proxy_from_the_first_stage() -> None:
    build, image = stages()
    assert arguments(build, "FROM")[0].removesuffix(" AS build") == arguments(image, "FROM")[0]
    assert arguments(image, "COPY") == [f"--from=build {HOME} {HOME}"]
    assert not any("install " in run and "pip" in run.partition("&&")[2] for run in arguments(image, "RUN"))


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    [user] = arguments(stages()[1], "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_image_starts_and_probes_the_installed_command_without_a_shell() -> None:
    image = stages()[1]
    path = next(word for word in shlex.split(arguments(image, "ENV")[0]) if word.startswith("PATH="))
    assert path == f"PATH={HOME}/bin:$PATH"
    assert arguments(image, "ENTRYPOINT") == ['["genesys-auth-proxy"]']
    assert arguments(image, "CMD") == ['["run"]']
    assert arguments(image, "HEALTHCHECK")[0].endswith('CMD ["genesys-auth-proxy", "health"]')

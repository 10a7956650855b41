"""What users install: locks with hashes and without addresses, one version, a wheel that works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path

import pytest

import proxy

ROOT = Path(__file__).resolve().parents[2]
RUNTIME, TRACES, BUILD, DEV = (
    ROOT / name
    for name in ("requirements.lock", "requirements-traces.lock", "requirements-build.lock", "tests/requirements.lock")
)
NPM = ROOT / "tests/sdk/javascript/package-lock.json"


def pinned(lock: Path) -> dict[str, str]:
    """Each requirement of a lock, by name, with its version."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """The standard output of a command that must succeed."""
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.mark.parametrize("lock", [RUNTIME, TRACES, BUILD, DEV], ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_requirement_of_a_lock_is_pinned_with_hashes(lock: Path) -> None:
    requirements = re.split(r"\n(?=\S)", lock.read_text().strip())
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9-]+==\S+( ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_every_npm_package_is_pinned_with_its_integrity() -> None:
    packages = json.loads(NPM.read_text())["packages"]
    for path, package in packages.items():
        assert not path or package["integrity"].startswith("sha512-"), path
    assert packages["node_modules/purecloud-platform-client-v2"]["version"] == "262.0.0"


@pytest.mark.parametrize("lock", [RUNTIME, TRACES, BUILD, DEV, NPM], ids=lambda lock: str(lock.relative_to(ROOT)))
def test_a_lock_names_no_address(lock: Path) -> None:
    assert "://" not in lock.read_text()


def test_the_tests_run_with_the_versions_that_users_get() -> None:
    users = pinned(RUNTIME) | pinned(TRACES) | pinned(BUILD)
    assert users == {name: version for name, version in pinned(DEV).items() if name in users}


def test_the_locks_hold_every_dependency_that_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["project"]["dependencies"] + project["build-system"]["requires"]
    for extra in project["project"]["optional-dependencies"].values():
        declared += extra
    names = {re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in declared}
    assert names <= (pinned(TRACES) | pinned(BUILD)).keys()


def test_what_the_image_need_not_have_is_in_a_lock_of_its_own() -> None:
    extra = pinned(TRACES).keys() - pinned(RUNTIME).keys()
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "protobuf"} <= extra
    assert pinned(RUNTIME).items() <= pinned(TRACES).items()


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "proxy/__init__.py"


def test_a_wheel_installs_and_tells_its_version(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name == f"genesys_auth_proxy-{proxy.__version__}-py3-none-any.whl"

    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    run(*pip, "--python", environment, "install", "--no-deps", "--no-index", "--no-compile", wheel)
    paths = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    scripts = Path(sysconfig.get_path("scripts", "venv", paths))
    # Its dependencies come from the environment of the tests, whose own path files (the editable install) are
    # not read from here.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))

    where = run(scripts / "python", "-c", "import proxy; print(proxy.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    assert (packages / "proxy" / "py.typed").exists()
    for name in ("page.html", "page.css", "page.js"):
        assert (packages / "proxy" / "admin" / "page" / name).exists()
    assert proxy.__version__ in run(scripts / "genesys-auth-proxy", "--version", cwd=tmp_path)


def test_a_source_distribution_has_what_it_takes_to_build_and_run_it(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert archive.name == f"genesys_auth_proxy-{proxy.__version__}.tar.gz"
    assert {"proxy/py.typed", "proxy/admin/page/page.js", "tests/conftest.py", "LICENSE", "README.md"} <= names
    assert {f"config/{path.name}" for path in (ROOT / "config").iterdir()} <= names
    assert {"Dockerfile", "Makefile", "CHANGELOG.md", "requirements.lock", "requirements-build.lock"} <= names
    assert not [name for name in names if "__pycache__" in name or ".venv" in name or "node_modules" in name]

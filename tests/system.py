"""What tests need of the machine beside Python packages: how to find it, and how to install it where we may.

A test says ``@pytest.mark.needs("node")``; ``tests/conftest.py`` leaves it out where that is missing. Run as
a program, this installs what is missing: Debian packages as root on Debian, npm packages from the lock beside
their ``package.json``. It never fails: what it could not install shows as tests left out.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JAVASCRIPT = ROOT / "tests" / "sdk" / "javascript"

NODE_MAJOR = 18
"""The oldest Node.js release that runs the JavaScript SDK's dependencies; Debian 12 has it."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that some tests use."""

    missing: Callable[[], str | None]
    """Why it can't be used and what to do about it; None where it can."""
    install: Callable[[], None] | None = None
    """Brings it; does nothing where that is not for us. Raises OSError or SubprocessError where it fails."""


def find(*names: str) -> str | None:
    """The path of the first of these programs that is on the PATH."""
    return next(filter(None, map(shutil.which, names)), None)


def chromium() -> str | None:
    """The path of Chromium or a browser made from it."""
    return find("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _debian(*packages: str) -> Callable[[], None]:
    """Installs Debian packages, as root on Debian."""

    def install() -> None:
        if find("apt-get") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
            return
        print(f"For the tests: apt-get install {' '.join(packages)}", flush=True)
        with contextlib.suppress(OSError):  # one source that is down need not matter; installing tells
            _apt_get_update()
        _apt_get("install", "--yes", "--no-install-recommends", *packages)

    return install


@functools.cache
def _apt_get_update() -> None:
    _apt_get("update")


def _apt_get(*arguments: str) -> None:
    # RUNLEVEL=1 keeps invoke-rc.d from starting a service that came with a package; a test starts its own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0", *arguments]
    ran = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    if ran.returncode != 0:
        raise OSError(f"{' '.join(command[:1] + list(arguments))} failed: {ran.stdout.strip()[-2000:]}")


def _program(name: str) -> Need:
    """A program whose Debian package has its name."""

    def missing() -> str | None:
        return None if find(name) else f"{name} is not installed (Debian: apt-get install {name})"

    return Need(missing, _debian(name))


def _promtool_missing() -> str | None:
    return None if find("promtool") else "promtool is not installed (Debian: apt-get install prometheus)"


def _chromium_missing() -> str | None:
    return None if chromium() else "Chromium is not installed (Debian: apt-get install chromium)"


def _node_missing() -> str | None:
    if not (find("node") and find("npm")):
        return f"Node.js {NODE_MAJOR} or newer with npm is not installed (Debian: apt-get install nodejs npm)"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30).stdout
    major = re.match(r"v(\d+)\.", version)
    if major is None or int(major[1]) < NODE_MAJOR:
        return f"Node.js {NODE_MAJOR} or newer is needed; node --version says {version.strip() or 'nothing'}"
    return None


def _lock_digest() -> str:
    return hashlib.sha256((JAVASCRIPT / "package-lock.json").read_bytes()).hexdigest()


def _npm_packages_missing() -> str | None:
    stamp = JAVASCRIPT / "node_modules" / ".lock-sha256"
    if stamp.exists() and stamp.read_text() == _lock_digest():
        return _node_missing()
    return _node_missing() or f"its npm packages are not installed (npm ci in {JAVASCRIPT.relative_to(ROOT)})"


def _install_npm_packages() -> None:
    if _node_missing() is not None:
        return
    print("For the tests: npm ci", flush=True)
    npm = find("npm")
    assert npm is not None
    subprocess.run([npm, "ci", "--loglevel=error"], cwd=JAVASCRIPT, check=True, stdin=subprocess.DEVNULL, timeout=300)
    (JAVASCRIPT / "node_modules" / ".lock-sha256").write_text(_lock_digest())


def _mount_missing() -> str | None:
    """File systems are mounted by root, and not in every container."""
    if find("unshare") is None or find("mount") is None:
        return "mount and unshare are not installed (Debian: apt-get install mount util-linux)"
    with tempfile.TemporaryDirectory() as folder:
        tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        ran = subprocess.run(tried, capture_output=True, timeout=30)
    return None if ran.returncode == 0 else "file systems can't be mounted here; run as root"


def _package_index_missing() -> str | None:
    """One small package of the lock tells whether pip reaches a package index, however pip is configured."""
    lock = (ROOT / "requirements-build.lock").read_text()
    pinned = re.search(r"^pluggy==.*(?:\n +--hash=.*)+", lock, re.MULTILINE)
    assert pinned is not None
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.lock")
        wanted.write_text(pinned[0])
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--retries=0", "--timeout=10", "--no-deps"]
        pip += ["--require-hashes", f"--requirement={wanted}", f"--dest={folder}"]
        ran = subprocess.run(pip, capture_output=True, timeout=60)
    return None if ran.returncode == 0 else "pip reaches no package index"


NEEDS: dict[str, Need] = {
    "chromium": Need(_chromium_missing, _debian("chromium")),
    "curl": _program("curl"),
    "node": Need(_node_missing, _debian("nodejs", "npm")),
    "javascript-sdk": Need(_npm_packages_missing, _install_npm_packages),  # after node: npm installs it
    "oidc-provider": Need(_npm_packages_missing, _install_npm_packages),
    "mount": Need(_mount_missing),
    "promtool": Need(_promtool_missing, _debian("prometheus")),
    "redis-server": _program("redis-server"),
    "package-index": Need(_package_index_missing),
}


def install() -> None:
    """Install what is missing and can be installed here, and print what was done."""
    for name, need in NEEDS.items():
        if need.install is None or need.missing() is None:
            continue
        try:
            need.install()
        except (OSError, subprocess.SubprocessError) as error:
            print(f"For the tests: {name} could not be installed ({error})", flush=True)


if __name__ == "__main__":
    install()

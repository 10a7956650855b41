"""What the process leaves behind and takes, looked at from outside and by itself."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.process import RESERVED_FILES, most_connections

ROOT = Path(__file__).resolve().parents[1]

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells by /proc")


def ran(code: str, *, files: int | None = None) -> str:
    """What a Python program says that does this."""

    def before() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, 4096))

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=before
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@linux
def test_no_image_of_the_memory_is_left_behind() -> None:
    told = ran(
        "import ctypes, resource\n"
        "from proxy.process import keep_private\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
        "keep_private()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert told.splitlines() == ["1", "0 (0, 0)"]


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_the_process_still_sees_what_its_metrics_tell() -> None:
    told = ran(
        "import ctypes, os\n"
        "from prometheus_client import ProcessCollector\n"
        "from proxy.process import keep_private\n"
        "os.setuid(65534)\n"
        "keep_private()\n"
        "print(sorted(metric.name for metric in ProcessCollector(registry=None).collect()))"
    )
    assert "process_open_fds" in told
    assert "process_resident_memory_bytes" in told


def test_it_takes_as_many_files_as_it_may() -> None:
    told = ran(
        "import resource\nfrom proxy.process import raise_open_files\nraise_open_files()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))",
        files=256,
    )
    assert told == "(4096, 4096)"


def test_connections_fit_into_the_files_that_may_be_open() -> None:
    told = ran(
        "from proxy.process import most_connections\nprint(most_connections(10_000), most_connections(10))", files=1024
    )
    assert told == f"{(1024 - RESERVED_FILES) // 2} 10"
    assert most_connections(1) == 1

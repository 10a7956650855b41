"""The benchmark still runs, and what proxy/wire says of other parsers is so."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.bench import heads, report
from tests.bench.programs import ROOT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="CPU time is read from /proc")
def test_the_benchmark_measures_this_proxy() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--only", "genesys", "--quick", "--rounds", "1", "--seconds", "0.3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^genesys-auth-proxy +\d+\.\d µs .* 1\.00 +[\d,]+/s$", ran.stdout, re.MULTILINE), ran.stdout
    assert re.search(r"^genesys-auth-proxy +\d+\.\d\d s +[1-9]\d+ MB$", ran.stdout, re.MULTILINE), ran.stdout
    assert re.search(r"^a line in the log, as JSON +\d+\.\d µs$", ran.stdout, re.MULTILINE), ran.stdout
    assert re.search(r"^genesys-auth-proxy +\d+ µs +-?\d+ µs$", ran.stdout, re.MULTILINE), ran.stdout


@pytest.mark.parametrize(
    ("name", "wire", "llhttp"),
    [
        ("an unknown method (PURR)", True, False),
        ("HTTP/2.0", False, True),
        ("Transfer-Encoding: xchunked, chunked", False, True),
        ("Transfer-Encoding in HTTP/1.0", False, True),
    ],
)
def test_httptools_takes_and_refuses_what_is_said_of_it(name: str, wire: bool, llhttp: bool) -> None:
    assert (name, wire, llhttp) in heads.verdicts()


def test_no_head_that_llhttp_refuses_is_taken_but_for_its_method() -> None:
    assert [name for name, wire, llhttp in heads.verdicts() if wire and not llhttp] == ["an unknown method (PURR)"]


def test_httptools_reads_ahead_and_knows_no_head() -> None:
    assert heads.pipelined() == 3
    assert heads.answers_to_head() == 1


def test_the_plot_is_of_the_run_that_the_table_is_of() -> None:
    """If not: python -c 'from tests.bench import report; report.save(report.load())'"""
    kept = report.load()
    assert report.PLOT.read_text("utf-8") == report.plot(kept)
    assert {"genesys-auth-proxy", "nginx, a fixed token", "Envoy, 1 thread"} <= kept.plain.keys() & kept.tls.keys()
    assert report.ratio(kept.plain, report.OURS) == 1

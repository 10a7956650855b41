"""``init`` and ``schema``: a configuration to begin with, and what may stand in it."""

from __future__ import annotations

import json
from pathlib import Path

from proxy.settings import load, schema, starter
from tests.cli.files import read, write
from tests.cli.program import run


async def test_init_writes_a_configuration_that_loads(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    ended = await run("init", "--config", file)
    assert ended.code == 0
    assert ended.stdout.startswith(f"{file} written.")
    assert read(file) == starter()
    assert load(file, {"ACME_CLIENT_SECRET": "x"}).tenants.keys() == {"acme"}


async def test_init_leaves_a_file_that_exists_as_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.toml", "mine")
    ended = await run("init", "--config", file)
    assert (ended.code, ended.stderr) == (1, f"Error: {file} exists already, and stays as it is\n")
    assert read(file) == "mine"


async def test_init_says_why_a_file_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "new.toml"
    ended = await run("init", "--config", file)
    assert (ended.code, ended.stderr) == (1, f"Error: {file} can't be written (No such file or directory)\n")


async def test_schema_prints_the_json_schema() -> None:
    ended = await run("schema")
    assert ended.code == 0
    assert json.loads(ended.stdout) == schema()

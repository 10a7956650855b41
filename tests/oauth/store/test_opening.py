"""Which store the configuration leads to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.app import open_store
from proxy.errors import ConfigurationError
from proxy.oauth.store.memory import MemoryStore
from proxy.oauth.store.sqlite import SqliteStore
from proxy.settings import Settings, load
from tests.oauth.store.places import as_nobody

TENANT = '[tenants.acme]\nregion = "eu-central-1"\nclient_id = "id"\nclient_secret = "secret"\n'


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder where nobody may write but root."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def settings(folder: Path, store: str = "") -> Settings:
    file = folder / "proxy.toml"
    file.write_text(f"{store}\n{TENANT}")
    file.chmod(0o644)
    return load(file, {})


async def test_the_default_is_a_file_beside_the_configuration(tmp_path: Path) -> None:
    store = await open_store(settings(tmp_path))
    await store.close()
    assert isinstance(store, SqliteStore)
    assert (tmp_path / "tokens.db").exists()


async def test_a_default_that_can_not_be_written_is_made_up_for_loudly(
    read_only: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = settings(read_only)
    with as_nobody():
        store = await open_store(found)
    assert isinstance(store, MemoryStore)
    assert "tokens are kept in memory" in caplog.text
    await store.close()


async def test_a_file_that_the_configuration_names_must_be_writable(read_only: Path) -> None:
    found = settings(read_only, '[store]\nurl = "sqlite:tokens.db"')
    with as_nobody(), pytest.raises(ConfigurationError, match=r"store\.url"):
        await open_store(found)


async def test_a_default_that_is_damaged_is_no_reason_to_go_without(tmp_path: Path) -> None:
    found = settings(tmp_path)
    (tmp_path / "tokens.db").write_bytes(b"x" * 5000)
    with pytest.raises(ConfigurationError, match=r"store\.url"):
        await open_store(found)


async def test_memory_is_what_it_says(tmp_path: Path) -> None:
    store = await open_store(settings(tmp_path, '[store]\nurl = "memory:"'))
    assert isinstance(store, MemoryStore)
    assert not (tmp_path / "tokens.db").exists()
    await store.close()

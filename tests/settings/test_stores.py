"""Where tokens are kept, as the configuration says it."""

from __future__ import annotations

import pytest

from proxy.core.secret import Secret
from proxy.settings.stores import StorePlace
from tests.settings.folder import TENANT, Folder

KEY = "k" * 32


def place(folder: Folder, url: str, environ: dict[str, str] | None = None) -> StorePlace:
    return folder.load(f"[store]\nurl = {url}{TENANT}", environ).store


def test_tokens_are_kept_in_a_file_beside_the_configuration_unless_it_says_otherwise(folder: Folder) -> None:
    settings = folder.load(TENANT)
    assert settings.store == StorePlace("sqlite", folder.path / "tokens.db", chosen=False)
    assert settings.encryption_keys == ()


def test_the_service_managers_folder_for_state_comes_first(folder: Folder) -> None:
    environ = {"STATE_DIRECTORY": "/var/lib/one:/var/lib/two"}
    assert str(folder.load(TENANT, environ).store.path) == "/var/lib/one/tokens.db"
    assert str(place(folder, '"sqlite:other.db"', environ).path) == "/var/lib/one/other.db"
    assert str(place(folder, '"sqlite:/elsewhere/other.db"', environ).path) == "/elsewhere/other.db"


def test_a_file_is_relative_to_the_configuration(folder: Folder) -> None:
    assert place(folder, '"sqlite:state/tokens.db"') == StorePlace("sqlite", folder.path / "state" / "tokens.db")
    assert place(folder, '"sqlite:/var/tokens.db"').path == folder.path.__class__("/var/tokens.db")


def test_nothing_is_kept_on_request(folder: Folder) -> None:
    assert place(folder, '"memory:"') == StorePlace("memory")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost", "redis://localhost:6379/0", "rediss://:word@redis.example.com:6380/1",
        "redis://user:word@[::1]:6379", "unix:///run/redis.sock", "unix://:word@/run/redis.sock?db=1",
    ],
)  # fmt: skip
def test_the_address_of_a_redis_server_is_taken_as_it_is_and_is_a_secret(folder: Folder, url: str) -> None:
    for given, environ in ((f'"{url}"', {}), ('{ env = "URL" }', {"URL": url})):
        found = place(folder, given, environ)
        assert found == StorePlace("redis", url=Secret(url))
        assert "word" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "", "sqlite:", "sqlite", "sqlite://tokens.db", "sqlite:///tokens.db", "memory", "memory:x", "tokens.db",
        "redis:", "redis://", "redis:localhost", "redis://word@:6379", "redis://localhost:x", "redis://localhost:99999",
        "unix://", "unix:run", "postgres://localhost", "http://localhost", "redis://[",
    ],
)  # fmt: skip
def test_any_other_address_is_refused_and_not_shown(folder: Folder, url: str) -> None:
    [problem] = folder.problems(f'[store]\nurl = "{url}"{TENANT}')
    assert problem.startswith("proxy.toml: store.url: expected")
    assert not url or f'"{url}"' not in problem
    assert "word" not in problem


def test_keys_are_read_newest_first(folder: Folder) -> None:
    keys = f'[{{ env = "NEW" }}, "{KEY}"]'
    settings = folder.load(f"[store]\nencryption_keys = {keys}{TENANT}", {"NEW": "n" * 44})
    assert [key.reveal() for key in settings.encryption_keys] == ["n" * 44, KEY]


@pytest.mark.parametrize("key", ["k" * 31, "k" * 31 + "é", "k" * 31 + "\t"])
def test_a_key_that_is_too_short_or_not_plain_is_refused_and_not_shown(folder: Folder, key: str) -> None:
    [problem] = folder.problems(f"[store]\nencryption_keys = ['{key}']{TENANT}")
    assert "store.encryption_keys" in problem
    assert "at least 32" in problem
    assert "kkk" not in problem

"""The schema, the starter and the shipped files agree with the code."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.settings import load, schema, starter
from proxy.settings.stores import StorePlace
from tests.settings.folder import Folder

CONFIG = Path(__file__).parents[2] / "config"
SCHEMA = schema()
SWITCHED_OFF = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    name = node.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = SCHEMA["$defs"][name] if name else node
    return found


def described(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each key of the file with its schema, tenants under the name ``acme``."""
    for name, inner in node["properties"].items():
        inner = resolve(inner)
        if name == "tenants":
            yield from described(resolve(inner["additionalProperties"]), ("tenants", "acme"))
        elif inner.get("properties"):
            yield from described(inner, (*path, name))
        else:
            yield ".".join((*path, name)), inner


KEYS = dict(described(SCHEMA))


def keys_of(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, value in table.items():
        where = ".".join((*path, name))
        if isinstance(value, dict) and where not in KEYS:
            yield from keys_of(value, (*path, name))
        else:
            yield where


def test_every_key_has_a_description_and_no_default_is_null() -> None:
    assert len(KEYS) > 50
    for key, node in KEYS.items():
        assert node.get("description", "").endswith((".", "….")), key
        assert node.get("default", "") is not None, key
        assert {"type", "anyOf", "const", "enum"} & set(node), key


def test_every_table_is_closed_and_the_schema_is_json() -> None:
    text = json.dumps(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "null" not in text
    assert SCHEMA["additionalProperties"] is False
    assert all(node["additionalProperties"] is False for node in SCHEMA["$defs"].values())


def test_the_starter_loads_once_its_variable_is_set(folder: Folder) -> None:
    settings = folder.load(starter(), {"ACME_CLIENT_SECRET": "x"})
    assert settings.routing.default_tenant == "acme"
    (problem,) = folder.problems(starter())
    assert "ACME_CLIENT_SECRET is not set" in problem


def test_the_demo_configuration_loads() -> None:
    assert list(load(CONFIG / "demo.toml", {}).tenants) == ["acme", "globex"]


# --- reference.toml ---


def test_the_reference_loads_as_it_is() -> None:
    assert load(CONFIG / "reference.toml", {"ACME_SECRET": "x"}).tenants


def test_the_reference_has_every_key_and_no_other() -> None:
    text = (CONFIG / "reference.toml").read_text("utf-8")
    found = {key for key in keys_of(tomllib.loads(SWITCHED_OFF.sub("", text))) if not key.startswith("defaults.")}
    assert found == {key for key in KEYS if not key.startswith("defaults.")}


def test_the_defaults_in_the_reference_are_the_codes(folder: Folder) -> None:
    reference = load(CONFIG / "reference.toml", {"ACME_SECRET": "x"})
    shortest = folder.load(
        """
        [tenants.acme]
        region = "eu-central-1"
        client_id = "00000000-0000-0000-0000-000000000000"
        client_secret = "x"
        """
    )
    assert reference.store == StorePlace("sqlite", CONFIG / "tokens.db", chosen=False)
    same = replace(shortest, sources={}, secret_files=(), store=reference.store)
    assert replace(reference, sources={}, secret_files=()) == same


def test_a_key_with_a_default_is_switched_on_in_the_reference() -> None:
    text = (CONFIG / "reference.toml").read_text("utf-8")
    switched_on = set(keys_of(tomllib.loads(text)))
    missing = {key for key, node in KEYS.items() if "default" in node and not key.startswith("defaults.")} - switched_on
    assert missing == {"include", "listen.unix_socket_mode", "listen.unix_socket_users"}


def test_what_is_switched_off_in_the_reference_loads_when_switched_on(folder: Folder) -> None:
    text = SWITCHED_OFF.sub("", (CONFIG / "reference.toml").read_text("utf-8"))
    problems = folder.problems(text, {"ACME_SECRET": "x"})
    advice = 'does not exist; write the secret there or use { env = "…" }'
    assert problems == [
        'proxy.toml: listen.tls_certificate: file "certificate.pem" does not exist; expected PEM',
        'proxy.toml: listen.tls_key: file "key.pem" does not exist; expected PEM',
        'proxy.toml: listen.client_ca: file "client-ca.pem" does not exist; expected certificates in PEM',
        'proxy.toml: upstream.ca_file: file "corporate-ca.pem" does not exist; expected certificates in PEM',
        f'proxy.toml: tenants.acme.refresh_token: file "/run/secrets/acme-refresh-token" {advice}',
        f'proxy.toml: tenants.acme.private_key: file "/run/secrets/acme.pem" {advice}',
        f'proxy.toml: tenants.acme.assertion: file "/run/assertions/acme" {advice}',
    ]


@pytest.mark.parametrize("name", ["reference.toml", "demo.toml"])
def test_a_shipped_file_keeps_to_the_width_of_a_terminal(name: str) -> None:
    assert max(map(len, (CONFIG / name).read_text("utf-8").splitlines())) <= 120

"""Whatever a file holds, it loads or it is a ``ConfigurationError``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ConfigurationError
from proxy.settings import load, schema

DEFINED: dict[str, Any] = schema()["$defs"]
SECTIONS = {
    "listen": "ListenSettings",
    "admin": "AdminSettings",
    "access": "AccessSettings",
    "limits": "LimitsSettings",
    "upstream": "UpstreamSettings",
    "routing": "RoutingSettings",
    "log": "LogSettings",
    "defaults": "TenantTable",
}

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    words
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), float("inf"), float("-inf"), float("nan"), 0.0, 1e300])
    | st.sampled_from(
        ["https://a.example", "http://127.0.0.1:1", "https://u:p@x", "wss://x", "eu-central-1", "::1", "[::1", "*",
         "fill", "client_credentials", "acme", "\0", "a\nb", "GET /a/**", "https://a.example:99999", "%", "a.b"]
    )
)  # fmt: skip
references = st.fixed_dictionaries({}, optional={"env": scalars, "file": scalars, "other": scalars})
values = st.recursive(
    scalars | references,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def tables(name: str) -> st.SearchStrategy[Any]:
    known = st.fixed_dictionaries({}, optional=dict.fromkeys(DEFINED[name]["properties"], values))
    return known | st.dictionaries(words, values, max_size=2) | values


tenant_tables = st.dictionaries(
    st.sampled_from(["acme", "b", "[key]", "", "Ä"]) | words, tables("TenantTable"), max_size=3
)
documents = st.fixed_dictionaries(
    {},
    optional={name: tables(definition) for name, definition in SECTIONS.items()}
    | {"tenants": tenant_tables | values, "other": values, "include": values},
)


def toml(value: object) -> str:
    """A value as TOML, tables inline."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            return "{" + ", ".join(f"{toml(name)} = {toml(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


def attempt(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "proxy.toml")
        path.write_bytes(content)
        problems = ["none"]
        try:
            load(path, {"a": "b"})
        except ConfigurationError as error:
            problems = error.problems
        assert problems
        assert all(len(problem.splitlines()) == 1 for problem in problems)


@settings(max_examples=300, deadline=None)
@given(documents)
def test_any_table_loads_or_is_a_configuration_error(document: dict[str, Any]) -> None:
    attempt("\n".join(f"{name} = {toml(value)}" for name, value in document.items()).encode("utf-8"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | words.map(lambda text: text.encode("utf-8")))
def test_any_bytes_load_or_are_a_configuration_error(content: bytes) -> None:
    attempt(content)

"""The configuration described for people and editors: a JSON Schema and a file to begin with."""

from __future__ import annotations

from typing import Any

from proxy.settings.model import ConfigurationFile


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the configuration file, with a description of every key."""
    generated = _plain(ConfigurationFile.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "genesys-auth-proxy configuration",
        **generated,
    }


def _plain(node: Any) -> Any:
    """Without what only pydantic needs: titles that repeat the key, and null, which TOML does not have."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: item for key, item in node.items() if not _noise(key, item)}
    match [choice for choice in kept.pop("anyOf", []) if choice != {"type": "null"}]:
        case []:
            pass
        case [choice]:
            kept = {**choice, **kept}
        case choices:
            kept["anyOf"] = choices
    return {key: _plain(item) for key, item in kept.items()}


def _noise(key: str, value: object) -> bool:
    # A property named "title" is a table, a title is a string.
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)


def starter() -> str:
    """A short configuration to begin with; it loads once its environment variable is set."""
    return _STARTER


_STARTER = """\
# Configuration of genesys-auth-proxy. `genesys-auth-proxy schema` lists every key.

[listen]
host = "127.0.0.1"
port = 8080

# One section for each Genesys Cloud org. Clients reach this one at http://127.0.0.1:8080/t/acme/
# (and without /t/acme while it is the only one).
[tenants.acme]
region = "eu-central-1"                            # or its domain, mypurecloud.de
client_id = "00000000-0000-0000-0000-000000000000" # OAuth client of that org, grant type Client Credentials
client_secret = { env = "ACME_CLIENT_SECRET" }     # or { file = "/run/secrets/acme" }
"""

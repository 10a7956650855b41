"""A folder with a configuration in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.errors import ConfigurationError
from proxy.settings import Settings, TenantSettings, load

TENANT = """
[tenants.acme]
region = "eu-central-1"
client_id = "id"
client_secret = "secret"
"""
"""The shortest section that makes a tenant."""


class Folder:
    """Files beside ``proxy.toml``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.main = path / "proxy.toml"

    def write(self, name: str, text: str | bytes) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return file

    def load(self, text: str | bytes, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings of this text."""
        return load(self.write("proxy.toml", text), environ or {})

    def tenant(self, keys: str, environ: Mapping[str, str] | None = None) -> TenantSettings:
        """The only tenant, whose section has these keys beside the ones it needs."""
        return self.load(TENANT + keys, environ).tenants["acme"]

    def problems(self, text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
        """Every problem with this text, the folder's own path left out."""
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, environ)
        return [problem.replace(f"{self.path}/", "") for problem in caught.value.problems]

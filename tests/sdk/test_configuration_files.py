"""The SDKs' own configuration files: ``~/.genesyscloudpython/config`` and ``~/.genesyscloudjavascript/config``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.sdk.drivers import run_sdk
from tests.support.stages import Tenant

pytestmark = pytest.mark.asyncio(loop_scope="module")

SDKS = ["python", pytest.param("javascript", marks=pytest.mark.needs("javascript-sdk"))]


@pytest.mark.parametrize("name", SDKS)
async def test_a_program_without_a_word_about_the_proxy_goes_through_it(
    name: str, tenant: Tenant, tmp_path: Path
) -> None:
    proxy, path = tenant.stage.proxy, tenant.path.removeprefix("/")
    keys = {"host": proxy.host, "protocol": "http", "port": proxy.port}
    keys |= {"path_params_login": path, "path_params_api": path}
    folder = tmp_path / f".genesyscloud{name}"
    folder.mkdir()
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    (folder / "config").write_text(f"[general]\nlive_reload_config = false\n[gateway]\n{lines}", "utf-8")
    async with run_sdk(name, tmp_path) as sdk:
        await sdk.do("client_credentials", client_id="any", secret="any")
        assert await sdk.do("organization") == tenant.name
        tenant.revoke()
        assert await sdk.do("write", external_id=name)
    assert (await tenant.status())["requests"].keys() == {"200"}


@pytest.mark.needs("javascript-sdk")
async def test_the_file_may_be_json(tenant: Tenant, tmp_path: Path) -> None:
    """And one of the two paths may be forgotten in it."""
    proxy = tenant.stage.proxy
    folder = tmp_path / ".genesyscloudjavascript"
    folder.mkdir()
    gateway = {"host": proxy.host, "protocol": "http", "port": proxy.port, "path_params_api": f"t/{tenant.name}"}
    (folder / "config").write_text(json.dumps({"gateway": gateway}), "utf-8")
    async with run_sdk("javascript", tmp_path) as sdk:
        await sdk.do("client_credentials", client_id="any", secret="any")
        assert await sdk.do("organization") == tenant.name

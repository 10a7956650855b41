"""The forward proxy as the file, a secret or the environment names it."""

from __future__ import annotations

import pytest

from proxy.core.detour import ForwardProxy
from proxy.settings import Settings
from tests.settings.folder import TENANT, Folder

CORP = ForwardProxy("proxy.corp", 3128)


def way(settings: Settings, host: str = "api.example.com") -> ForwardProxy | None:
    return settings.upstream.detours.to(host, 443)


def test_without_a_word_there_is_none(folder: Folder) -> None:
    assert way(folder.load(TENANT)) is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_the_environment_names_it_where_the_file_does_not(folder: Folder, name: str) -> None:
    environ = {name: "http://proxy.corp:3128", "NO_PROXY": "a.example, b.example"}
    settings = folder.load(TENANT, environ)
    assert way(settings) == CORP
    assert way(settings, "x.b.example") is None
    assert way(folder.load(f'[upstream]\nproxy = ""{TENANT}', environ)) is None
    other = folder.load(f'[upstream]\nproxy = "http://other:1"\nno_proxy = ["c.example"]{TENANT}', environ)
    assert way(other) == ForwardProxy("other", 1)
    assert way(other, "x.b.example") == ForwardProxy("other", 1)
    assert way(other, "c.example") is None


def test_the_lower_case_name_wins_as_it_does_elsewhere(folder: Folder) -> None:
    environ = {"HTTPS_PROXY": "http://other:1", "https_proxy": "http://proxy.corp:3128", "HTTP_PROXY": "http://no:1"}
    assert way(folder.load(TENANT, environ)) == CORP


def test_it_may_be_a_secret(folder: Folder) -> None:
    folder.write("proxy", "http://user:hunter2@proxy.corp:3128\n")
    settings = folder.load(f'[upstream]\nproxy = {{ file = "proxy" }}{TENANT}')
    found = way(settings)
    assert found is not None
    assert found.credential is not None
    assert found.credential.reveal() == "Basic dXNlcjpodW50ZXIy"
    assert "hunter2" not in repr(settings)
    assert "dXNlcjpod" not in repr(settings)
    assert folder.path / "proxy" in settings.sources


@pytest.mark.parametrize("url", ["https://user:hunter2@proxy.corp", "http://user:hunter2@proxy.corp/x", "hunter2:x:y"])
def test_what_is_no_proxy_is_refused_without_a_word_of_it(folder: Folder, url: str) -> None:
    expected = "expected a URL such as http://proxy.corp:3128, without path"
    assert folder.problems(f'[upstream]\nproxy = "{url}"{TENANT}') == [f"proxy.toml: upstream.proxy: {expected}"]
    assert folder.problems(TENANT, {"HTTPS_PROXY": url}) == [
        f'environment variable HTTPS_PROXY: {expected}; or say upstream.proxy = ""'
    ]

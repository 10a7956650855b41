"""Caller keys as the file tells them: bare secrets, and tables with a name and tenants."""

from __future__ import annotations

import pytest

from proxy.core.secret import Secret
from proxy.settings import CallerKeySettings
from tests.settings.folder import TENANT, Folder

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"


def keys(folder: Folder, value: str) -> tuple[CallerKeySettings, ...]:
    return folder.load(f"[access]\ncaller_keys = [{value}]{TENANT}", {"KEY": KEY}).access.caller_keys


def problems(folder: Folder, value: str) -> list[str]:
    return folder.problems(f"[access]\ncaller_keys = [{value}]{TENANT}", {"KEY": KEY})


def test_a_bare_key_has_no_name_and_is_for_every_tenant(folder: Folder) -> None:
    assert keys(folder, f'"{KEY}"') == (CallerKeySettings(Secret(KEY)),)


def test_a_table_names_a_key_and_keeps_it_to_tenants(folder: Folder) -> None:
    folder.write("key", f"{OTHER}\n")
    assert keys(
        folder,
        '{ key = { env = "KEY" }, name = "web", tenants = ["acme"] }, { key = { file = "key" }, name = "web" }',
    ) == (
        CallerKeySettings(Secret(KEY), "web", ("acme",)),
        CallerKeySettings(Secret(OTHER), "web"),
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('{ key = "short" }', "expected at least 16 visible ASCII characters, such as openssl rand -hex 16 makes"),
        (
            '{ name = "web" }',
            'expected a string, { env = "NAME" } or { file = "path" } (got a table with another key)',
        ),
        (f'{{ key = "{KEY}", nmae = "web" }}', "expected no other keys than key, name and tenants (got 1 more)"),
        (f'{{ key = "{KEY}", name = 5 }}', "name: expected a string (got a number)"),
        (f'{{ key = "{KEY}", name = "{KEY}!" }}', "name: expected 1 to 63 lower-case letters, digits, - and _"),
        (f'{{ key = "{KEY}", tenants = [] }}', "tenants: expected a list of tenants' names, at least one"),
        (f'{{ key = "{KEY}", tenants = "acme" }}', "tenants: expected a list of tenants' names, at least one"),
        (f'{{ key = "{KEY}", tenants = [5] }}', "tenants: expected a list of tenants' names, at least one"),
        (f'{{ key = "{KEY}", tenants = ["ACME"] }}', 'tenants: expected the name of a tenant (got "ACME")'),
        (
            f'{{ key = "{KEY}", tenants = ["acne"] }}',
            'tenants: expected the name of a tenant (got "acne"); did you mean acme?',
        ),
    ],
)
def test_any_other_table_is_refused(folder: Folder, value: str, problem: str) -> None:
    assert problems(folder, value) == [f"proxy.toml: access.caller_keys[0]: {problem}"]


def test_what_is_wrong_with_one_key_hides_nothing_of_the_others(folder: Folder) -> None:
    found = f'"short", {{ key = "{KEY}", tenants = ["acne"] }}, "{OTHER}", "tiny", {{ key = "{KEY}" }}'
    short = "expected at least 16 visible ASCII characters, such as openssl rand -hex 16 makes"
    assert problems(folder, found) == [
        f"proxy.toml: access.caller_keys[0]: {short}",
        f"proxy.toml: access.caller_keys[3]: {short}",
        'proxy.toml: access.caller_keys[1]: tenants: expected the name of a tenant (got "acne"); did you mean acme?',
        "proxy.toml: access.caller_keys[4]: expected each key once",
    ]


def test_a_key_is_given_once(folder: Folder) -> None:
    assert problems(folder, f'"{OTHER}", {{ env = "KEY" }}, {{ key = "{KEY}", name = "web" }}') == [
        "proxy.toml: access.caller_keys[2]: expected each key once"
    ]


def test_a_tenant_that_is_no_good_is_not_reported_twice(folder: Folder) -> None:
    text = f'[access]\ncaller_keys = [{{ key = "{KEY}", tenants = ["globex"] }}]{TENANT}[tenants]\nglobex = 5'
    assert all("caller_keys" not in problem for problem in folder.problems(text))


def test_no_key_shows(folder: Folder) -> None:
    assert KEY not in repr(keys(folder, f'{{ key = "{KEY}", name = "web" }}'))

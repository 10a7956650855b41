"""Secrets: where they come from, and that no problem ever shows one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from proxy.core.secret import Secret
from proxy.settings import load, schema
from tests.settings.folder import TENANT, Folder

BARE = '[tenants.acme]\nregion = "eu-central-1"\nclient_id = "id"\nclient_secret = '


def secret(folder: Folder, value: str, environ: dict[str, str] | None = None) -> str:
    found = folder.load(BARE + value, environ).tenants["acme"].client_secret
    assert found is not None
    return found.reveal()


def test_a_secret_is_a_literal_a_variable_or_a_file(folder: Folder) -> None:
    folder.write("acme.secret", "from file")
    assert secret(folder, '"literal"') == "literal"
    assert secret(folder, '{ env = "ACME" }', {"ACME": "from env"}) == "from env"
    assert secret(folder, '{ file = "acme.secret" }') == "from file"


def test_variables_are_those_of_the_process_unless_others_are_given(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "ACME", "from process")
    path = folder.write("proxy.toml", BARE + '{ env = "ACME" }')
    assert load(path).tenants["acme"].client_secret == Secret("from process")


@pytest.mark.parametrize(("content", "text"), [("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x"), (" x ", " x ")])
def test_line_ends_after_a_files_secret_are_no_part_of_it(folder: Folder, content: str, text: str) -> None:
    folder.write("acme.secret", content)
    assert secret(folder, '{ file = "acme.secret" }') == text


def test_a_secrets_file_is_relative_to_the_file_that_names_it(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("etc/key", "k" * 16)
    folder.write("etc/tenants.d/acme.secret", "nearby")
    folder.write("etc/tenants.d/acme.toml", BARE + '{ file = "acme.secret" }')
    text = 'include = ["tenants.d/*.toml"]\n[access]\ncaller_keys = [{ file = "key" }]'
    main = folder.write("etc/proxy.toml", text)
    monkeypatch.chdir(folder.path)
    settings = load(main.relative_to(folder.path), {})
    assert settings.tenants["acme"].client_secret == Secret("nearby")
    names = ["proxy.toml", "key", "tenants.d/acme.toml", "tenants.d/acme.secret"]
    assert tuple(settings.sources) == tuple(folder.path / "etc" / name for name in names)


def test_a_file_of_two_tenants_is_watched_once(folder: Folder) -> None:
    file = folder.write("shared.secret", "x")
    text = BARE + '{ file = "shared.secret" }\n'
    settings = folder.load(text + text.replace("acme", "globex"))
    assert tuple(settings.sources) == (folder.main, file)


def test_an_absolute_path_is_taken_as_it_is(folder: Folder, tmp_path: Path) -> None:
    file = folder.write("run/acme", "x")
    assert secret(folder, f'{{ file = "{file}" }}') == "x"


@pytest.mark.parametrize(
    "name", ["hunter2hunter2", "JBSWY3DPEHPK3PXP", "aB3dE5fG7hI9jK1l", "acme_secret", "A" * 3 + "1234"]
)
def test_a_secret_that_stands_where_a_variables_name_should_is_not_told(folder: Folder, name: str) -> None:
    (problem,) = folder.problems(f'{BARE}{{ env = "{name}" }}')
    assert name not in problem
    assert problem.startswith(
        "proxy.toml: tenants.acme.client_secret: the variable that env names is not set; export it"
    )


VARIABLE = "tenants.acme.client_secret: environment variable ACME_SECRET is not set; export it or use"


def test_a_variable_that_is_not_set_says_what_to_do(folder: Folder) -> None:
    assert folder.problems(BARE + '{ env = "ACME_SECRET" }') == [f'proxy.toml: {VARIABLE} {{ file = "…" }}']


def test_a_file_that_is_not_there_says_what_to_do(folder: Folder) -> None:
    assert folder.problems(BARE + '{ file = "acme.secret" }') == [
        (
            'proxy.toml: tenants.acme.client_secret: file "acme.secret" does not exist; '
            'write the secret there or use { env = "…" }'
        )
    ]


FORMS = 'expected a string, { env = "NAME" } or { file = "path" }'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('""', "expected a secret (got an empty string)"),
        ('{ env = "EMPTY" }', "expected a secret (got environment variable EMPTY, which is empty)"),
        ('{ file = "empty" }', 'expected a secret (got file "empty", which is empty)'),
        ('{ file = "newline" }', 'expected a secret (got file "newline", which is empty)'),
        ('{ file = "long" }', 'file "long" is longer than 65536 bytes; expected one line'),
        ('{ file = "binary" }', 'file "binary" is not UTF-8 text'),
        ('{ file = "folder" }', 'file "folder" can\'t be read (Is a directory)'),
        ('{ file = "a\\u0000b" }', 'file "a\\u0000b" can\'t be read (not a usable path)'),
        ('{ file = "two" }', "expected one line of printable ASCII characters (RFC 6749 A.2)"),
        ('"schlüssel"', "expected one line of printable ASCII characters (RFC 6749 A.2)"),
        ('{ env = "ODD" }', "expected one line of printable ASCII characters (RFC 6749 A.2)"),
        ('{ env = "" }', "expected the name of an environment variable after env"),
        ("5", f"{FORMS} (got a number)"),
        ("{}", f"{FORMS} (got a table with another key)"),
        ("{ env = 5 }", f"{FORMS} (got a table that gives no name)"),
        ('{ env = "A", file = "b" }', f"{FORMS} (got both env and file)"),
        ('{ fil = "empty" }', f"{FORMS} (got the key fil; did you mean file?)"),
        ('{ file = "empty", evn = "A" }', f"{FORMS} (got a table with another key)"),
        ('{ hunter2-in-the-wrong-place = "x" }', f"{FORMS} (got a table with another key)"),
    ],
)
def test_an_empty_or_unusable_secret_is_refused(folder: Folder, value: str, message: str) -> None:
    folder.write("empty", "")
    folder.write("newline", "\n")
    folder.write("long", "x" * 65_537)
    folder.write("binary", b"\xff")
    folder.write("two", "one\ntwo")
    folder.write("folder/x", "")
    assert folder.problems(BARE + value, {"EMPTY": "", "ODD": "\udcff"}) == [
        f"proxy.toml: tenants.acme.client_secret: {message}"
    ]


# --- ${NAME}, which nothing fills in ---


HERE = "nothing fills in ${ACME_SECRET} here"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("${ACME_SECRET}", "ACME_SECRET"),
        ("${ACME_SECRET:-none}", "ACME_SECRET"),
        ("${ACME_SECRET?unset}", "ACME_SECRET"),
        ("${hunter2hunter2}", "NAME"),
    ],
)
def test_a_variable_that_nothing_fills_in_is_no_secret(folder: Folder, text: str, name: str) -> None:
    problem = f'expected the secret itself or {{ env = "{name}" }}: nothing fills in ${{{name}}} here'
    assert folder.problems(f'{BARE}"{text}"') == [f"proxy.toml: tenants.acme.client_secret: {problem}"]


@pytest.mark.parametrize("text", ["$ACME_SECRET", "${ACME SECRET}", "${}", "x${ACME_SECRET}", "{ACME_SECRET}"])
def test_what_may_be_a_secret_is_one(folder: Folder, text: str) -> None:
    assert secret(folder, f'"{text}"') == text


def test_nor_is_it_where_it_stands_in_a_file_or_a_variable(folder: Folder) -> None:
    folder.write("acme.secret", "${ACME_SECRET}\n")
    held = "which holds ${ACME_SECRET}, filled in by nobody)"
    for value, origin in (
        ('{ file = "acme.secret" }', 'file "acme.secret"'),
        ('{ env = "A" }', "environment variable A"),
    ):
        (problem,) = folder.problems(BARE + value, {"A": "${ACME_SECRET}"})
        assert problem == f"proxy.toml: tenants.acme.client_secret: expected a secret (got {origin}, {held}"


@pytest.mark.parametrize(
    "key", ["client_id", "org_id", "resource_server", "token_headers.X-Key", "token_parameters.a", "key_id"]
)
def test_nor_is_it_any_other_text_of_a_token_request(folder: Folder, key: str) -> None:
    text = f'[tenants.acme]\n{key} = "${{ACME_SECRET}}"'
    assert any(problem.endswith(f"expected the text itself: {HERE}") for problem in folder.problems(text))


@pytest.mark.parametrize("value", ['"{}"', '{{ file = "address" }}'])
@pytest.mark.parametrize(
    ("key", "address"),
    [("store.url", "redis://:${ACME_SECRET}@redis/0"), ("upstream.proxy", "http://u:${ACME_SECRET}@proxy:3128")],
)
def test_an_address_is_whole(folder: Folder, key: str, address: str, value: str) -> None:
    folder.write("address", address)
    (problem,) = folder.problems(f"{key} = {value.format(address)}\n{TENANT}")
    assert problem == f'proxy.toml: {key}: expected the whole address, for instance as {{ env = "…" }}: {HERE}'


def test_a_long_secret_is_accepted(folder: Folder) -> None:
    folder.write("long", "x" * 65_536)
    assert len(secret(folder, '{ file = "long" }')) == 65_536


def test_the_settings_do_not_show_secrets(folder: Folder) -> None:
    text = f"""
    [access]
    caller_keys = ["hunter2-hunter2-hunter2"]
    {TENANT}
    token_headers = {{ X-Key = "hunter2" }}
    token_parameters = {{ password = "hunter2" }}
    """
    settings = folder.load(text.replace('"secret"', '"hunter2"'))
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.access)


# --- no problem shows a secret ---


SCHEMA = schema()


def secret_keys(node: dict[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """Every key of the schema that takes ``{ env = … }``, itself or in a list."""
    defined = SCHEMA["$defs"]
    found = []
    for name, inner in node.get("properties", {}).items():
        where = (*path, name)
        inner = defined.get(inner.get("$ref", "").rpartition("/")[2], inner)
        further = inner.get("additionalProperties")
        if isinstance(further, dict) and "$ref" in further:
            found += secret_keys(defined[further["$ref"].rpartition("/")[2]], (*where, "acme"))
        elif "properties" in inner:
            found += secret_keys(inner, where)
        elif any("env" in choice.get("properties", {}) for choice in inner.get("items", inner).get("anyOf", [])):
            found.append(".".join(where))
    return found


KEYS = [*secret_keys(SCHEMA), "tenants.acme.token_headers.X-Key"]
WORD = "hunter2"
SHAPES = [
    f'"{WORD}\\n"',
    f'"{WORD}ü"',
    f'["{WORD}\\n"]',
    f'["{WORD}", 5]',
    f'[["{WORD}"]]',
    f'{{ text = "{WORD}" }}',
    f'{{ env = "{WORD}-" }}',
    f'{{ env = ["{WORD}"] }}',
    f'{{ env = "PATH", file = "{WORD}" }}',
    '{ env = "OURS" }',
    f'{{ env = "OURS", default = "{WORD}" }}',
    '{ file = "ours" }',
    f'[{{ env = "OURS" }}, "{WORD}"]',
    f'[{{ text = "{WORD}" }}]',
]


def test_the_schema_knows_which_keys_are_secret() -> None:
    tenants = ("refresh_token", "client_secret", "private_key", "assertion")
    assert secret_keys(SCHEMA) == [
        "access.caller_keys",
        "store.url",
        "store.encryption_keys",
        "upstream.proxy",
        *(f"{table}.{key}" for table in ("defaults", "tenants.acme") for key in tenants),
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("key", KEYS)
def test_no_problem_shows_a_secret(folder: Folder, key: str, shape: str) -> None:
    folder.write("ours", f"{WORD}\n{WORD}")
    problems = folder.problems(f"{key} = {shape}", {"OURS": f"{WORD}\n"})
    assert any(f": {key}" in problem for problem in problems)
    assert WORD not in "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        f'{BARE}"x"\nclient_secert = "{WORD}"',
        f'{BARE}"x"\nclient_secert = {{ a = "{WORD}" }}',
        f'{BARE}"x"\ntoken_parameters = {{ password = [["{WORD}"]] }}',
        f'{BARE}"x"\ntoken_parameters = {{ client_secret = "{WORD}" }}',
        f'{BARE}"x"\ntoken_parameters = "{WORD}"',
        f'client_secret = "{WORD}"',
        f'[tenants]\nacme = "{WORD}"',
        f'tenants = "{WORD}"',
        f'access = "{WORD}"',
        f'[listen]\nport = "{WORD}"',
        f'[access]\nopen = "{WORD}"',
        f'{BARE}"x"\nrefresh_ahead = "{WORD}"',
        f'{BARE}"{WORD}',
        f'{BARE}{WORD}"',
        f'{BARE}"{WORD}" "',
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown_either(folder: Folder, text: str) -> None:
    assert WORD not in "\n".join(folder.problems(text))

"""Files: what is read, what is included, what is said of a file that can't be used."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy.errors import ConfigurationError
from proxy.settings import Settings, load
from tests.settings.folder import TENANT, Folder


def other(name: str) -> str:
    return TENANT.replace("acme", name)


def test_the_shortest_configuration_is_one_tenant(folder: Folder) -> None:
    settings = folder.load(TENANT)
    assert list(settings.tenants) == ["acme"]
    assert tuple(settings.sources) == (folder.main,)


def test_equal_files_give_equal_settings_and_a_change_different_ones(folder: Folder) -> None:
    once = folder.load(TENANT)
    assert folder.load(TENANT) == once
    assert folder.load("[listen]\nport = 0" + TENANT) != once
    assert folder.load(TENANT.replace('"secret"', '"another"')) != once


def test_settings_can_not_be_changed(folder: Folder) -> None:
    settings = folder.load(TENANT)
    for item in fields(settings):
        with pytest.raises(FrozenInstanceError):
            setattr(settings, item.name, None)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings.listen, "port", 1)  # noqa: B010 (mypy would refuse the plain assignment)
    with pytest.raises(FrozenInstanceError):
        setattr(settings.tenants["acme"], "client_id", "x")  # noqa: B010
    with pytest.raises(TypeError, match="assignment"):
        settings.tenants["acme"].token_headers["X"] = "x"  # type: ignore[index]  # that mypy refuses is meant
    with pytest.raises(TypeError, match="assignment"):
        settings.tenants["new"] = settings.tenants["acme"]  # type: ignore[index]  # the same


def test_a_byte_order_mark_is_no_part_of_the_file(folder: Folder) -> None:
    assert folder.load(b"\xef\xbb\xbf" + TENANT.encode()).tenants


# --- files that can't be used ---


def test_a_missing_file_is_answered_with_how_to_create_one(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.problems == [f'{path}: no such file; create one with "genesys-auth-proxy init"']


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't be read \(Is a directory\)"):
        load(tmp_path)


def test_a_path_with_a_zero_byte_is_a_problem_like_any_other() -> None:
    with pytest.raises(ConfigurationError, match=r"can't be read \(not a usable path\)"):
        load(Path("a\0b"))


def test_a_syntax_error_names_line_and_column(folder: Folder) -> None:
    assert folder.problems("[listen]\nport 8080") == [
        "proxy.toml: line 2, column 6: Expected '=' after a key in a key/value pair"
    ]


def test_a_syntax_error_at_the_end_says_so(folder: Folder) -> None:
    assert folder.problems("[listen") == ["proxy.toml: end of document: Expected ']' at the end of a table declaration"]


def test_a_file_that_is_not_utf_8_is_refused(folder: Folder) -> None:
    assert folder.problems(b"# \xff") == ["proxy.toml: expected UTF-8 text (byte 3 is none)"]


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 20_000])
def test_what_the_parser_can_not_take_is_a_problem_like_any_other(folder: Folder, value: str) -> None:
    assert folder.problems(f"a = {value}") == ["proxy.toml: expected shorter numbers and less nesting"]


# --- all problems at once ---


def test_every_problem_is_found_at_once_on_a_line_of_its_own(folder: Folder) -> None:
    text = """
    lisen = 1
    [listen]
    port = 65536
    prot = 1
    [admin]
    host = "a b"
    [routing]
    default_tenant = "acme"
    [tenants.acme]
    region = "eu-centrl-1"
    client_secret = { env = "ACME_SECRET" }
    allow = ["GET /a", "get /b", "GET c"]
    """
    advice = 'export it or use { file = "…" }'
    problems = folder.problems(text)
    assert sorted(problem for problem in problems if ".region" not in problem) == [
        'proxy.toml: admin.host: expected a host name or an IP address, without port (got "a b")',
        "proxy.toml: lisen: unknown key; did you mean listen?",
        "proxy.toml: listen.port: expected at most 65535 (got 65536)",
        "proxy.toml: listen.prot: unknown key; did you mean port?",
        (
            'proxy.toml: tenants.acme.allow[1]: expected a method or * and a path, such as "GET /api/v2/users/**" '
            '(got "get /b")'
        ),
        (
            'proxy.toml: tenants.acme.allow[2]: expected a method or * and a path, such as "GET /api/v2/users/**" '
            '(got "GET c")'
        ),
        "proxy.toml: tenants.acme.client_id: expected the id of the org's OAuth client",
        f"proxy.toml: tenants.acme.client_secret: environment variable ACME_SECRET is not set; {advice}",
    ]
    assert [problem for problem in problems if 'the nearest is eu-central-1 (got "eu-centrl-1")' in problem]


def test_a_refused_value_is_not_also_said_to_be_missing(folder: Folder) -> None:
    problems = folder.problems("[tenants.acme]\nregion = 1\nclient_id = 2\nclient_secret = 3")
    assert [problem.split(": ")[1] for problem in problems] == [
        "tenants.acme.region",
        "tenants.acme.client_id",
        "tenants.acme.client_secret",
    ]


@pytest.mark.parametrize("end", ["\\n", "\\u2028", "\\u0085"])
def test_an_odd_value_stays_on_its_line(folder: Folder, end: str) -> None:
    (problem,) = folder.problems(f'[admin]\nhost = "a{end}b"{TENANT}')
    assert len(problem.splitlines()) == 1


def test_a_long_value_is_shown_in_part(folder: Folder) -> None:
    (problem,) = folder.problems(f'[admin]\nhost = "{"x" * 79}yz"{TENANT}')
    assert problem.endswith(f'(got "{"x" * 79}…")')
    (problem,) = folder.problems(f'[admin]\nhost = "{"x" * 79}y"{TENANT}')
    assert problem.endswith(f'(got "{"x" * 79}y")')


def test_an_odd_key_is_quoted_and_stays_on_its_line(folder: Folder) -> None:
    (problem,) = folder.problems(TENANT + '"a\\nb.c" = 1')
    assert problem == 'proxy.toml: tenants.acme."a\\nb.c": unknown key'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('colour = "red"', "colour: unknown key"),
        ("[tenant.acme]\nx = 1", "tenant: unknown key; did you mean tenants?"),
        ("[Listen]\nport = 1", "Listen: unknown key; did you mean listen?"),
        ("[limits]\nrequest_timout = 1", "limits.request_timout: unknown key; did you mean request_timeout?"),
        ("[defaults]\nregio = 1", "defaults.regio: unknown key; did you mean region?"),
        ("[tenants.b]\nclientid = 1", "tenants.b.clientid: unknown key; did you mean client_id?"),
        ("caller_keys = []", "caller_keys: unknown key here; it belongs in [access]"),
        ('client_id = "x"', "client_id: unknown key here; it belongs in [tenants.NAME]"),
        ("[listen]\nopen = true", "listen.open: unknown key here; it belongs in [access]"),
        ("[pool]\nurl = 1", "pool: unknown key"),
        ("[listen]\nunix_sockte = 1", "listen.unix_sockte: unknown key; did you mean unix_socket?"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_or_its_place(folder: Folder, text: str, problem: str) -> None:
    assert f"proxy.toml: {problem}" in folder.problems(f"{text}\n{TENANT}")


@pytest.mark.parametrize("section", ["listen", "admin", "access", "limits", "upstream", "routing", "log", "defaults"])
def test_a_section_is_a_table(folder: Folder, section: str) -> None:
    assert folder.problems(f"{section} = 5\n{TENANT}") == [f"proxy.toml: {section}: expected a table (got a number)"]


# --- tenants in the file ---


def test_no_tenant_at_all_is_answered_with_how_to_add_one(folder: Folder) -> None:
    advice = "add a section [tenants.NAME] with region, client_id and client_secret"
    assert folder.problems("") == [f"proxy.toml: tenants: no tenant is configured; {advice}"]
    assert folder.problems("tenants = {}") == [f"proxy.toml: tenants: no tenant is configured; {advice}"]


@pytest.mark.parametrize("text", ['tenants = "x"', '[tenants]\nacme = "x"'])
def test_tenants_of_another_shape_are_one_problem(folder: Folder, text: str) -> None:
    (problem,) = folder.problems(f'{text}\n[routing]\ndefault_tenant = "acme"')
    assert problem.endswith("expected a table (got a string)")


@pytest.mark.parametrize("name", ["a", "0", "acme", "a-b_c", "a" * 63, "t0"])
def test_a_name_that_can_be_a_host_label_and_a_path_segment_is_accepted(folder: Folder, name: str) -> None:
    assert list(folder.load(other(name)).tenants) == [name]


@pytest.mark.parametrize("name", ["", "Acme", "-a", "a-", "_a", "a_", "a" * 64, "a.b", "a b", "a/b", "ä", "a\\n"])
def test_any_other_name_is_refused(folder: Folder, name: str) -> None:
    (problem,) = folder.problems(TENANT.replace("acme", f'"{name}"'))
    assert problem.endswith(
        "expected a name of 1 to 63 lower-case letters, digits, - and _, the first and last a letter or digit"
    )


# --- include ---


def test_included_files_add_tenants_in_order(folder: Folder) -> None:
    folder.write("tenants.d/b.toml", other("b"))
    folder.write("tenants.d/a.toml", other("z") + other("y"))
    folder.write("more/c.toml", other("c"))
    folder.write("tenants.d/ignored.txt", "?")
    settings = folder.load('include = ["tenants.d/*.toml", "more/c.toml"]' + TENANT)
    assert list(settings.tenants) == ["acme", "z", "y", "b", "c"]
    names = ["proxy.toml", "tenants.d/a.toml", "tenants.d/b.toml", "more/c.toml"]
    assert tuple(settings.sources) == tuple(folder.path / name for name in names)


def test_the_files_of_a_pattern_are_read_in_sorted_order(folder: Folder) -> None:
    names = [f"t{number:02}" for number in range(40)]
    for name in reversed(names):
        folder.write(f"tenants.d/{name}.toml", other(name))
    assert list(folder.load('include = ["tenants.d/*"]').tenants) == names


def test_tenants_may_stand_in_included_files_only(folder: Folder) -> None:
    folder.write("a.toml", other("a"))
    settings = folder.load('include = ["a.toml"]')
    assert settings.routing.default_tenant == "a"


def test_a_pattern_is_relative_to_the_file_that_includes(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("etc/tenants.d/a.toml", other("a"))
    folder.write("tenants.d/b.toml", other("b"))
    main = folder.write("etc/proxy.toml", 'include = ["tenants.d/*.toml"]')
    monkeypatch.chdir(folder.path)
    assert list(load(main.relative_to(folder.path), {}).tenants) == ["a"]


def test_a_pattern_may_be_absolute_or_lead_upwards(folder: Folder) -> None:
    folder.write("a.toml", other("a"))
    folder.write("b.toml", other("b"))
    main = folder.write("etc/proxy.toml", f'include = ["../a.toml", "{folder.path}/b.toml"]')
    assert list(load(main, {}).tenants) == ["a", "b"]


def test_brackets_in_the_folders_own_name_are_no_pattern(folder: Folder) -> None:
    folder.write("[x]/a.toml", other("a"))
    main = folder.write("[x]/proxy.toml", 'include = ["*.toml"]')
    assert list(load(main, {}).tenants) == ["a"]


def test_a_file_found_twice_is_read_once_and_the_including_file_not_again(folder: Folder) -> None:
    folder.write("a.toml", other("a"))
    assert list(folder.load('include = ["*.toml", "a.toml"]').tenants) == ["a"]


def test_a_pattern_may_match_nothing(folder: Folder) -> None:
    assert folder.load('include = ["tenants.d/*.toml"]' + TENANT).tenants


def test_a_named_file_must_be_there(folder: Folder) -> None:
    assert folder.problems('include = ["a.toml"]') == ['proxy.toml: include[0]: no such file (got "a.toml")']


def test_a_pattern_that_can_not_be_searched_matches_nothing(folder: Folder) -> None:
    assert folder.load('include = ["a\\u0000/*"]' + TENANT).tenants


def test_an_unusable_pattern_is_a_problem_like_any_other(folder: Folder) -> None:
    (problem,) = folder.problems('include = ["a\\u0000b"]' + TENANT)
    assert problem.startswith("proxy.toml: include[0]: no such file")


@pytest.mark.parametrize("key", ['include = ["b.toml"]', "[defaults]\nscope = []", "[listen]\nport = 1", "[x]"])
def test_an_included_file_holds_tenants_only(folder: Folder, key: str) -> None:
    folder.write("a.toml", f"{key}\n{other('a')}")
    (problem,) = folder.problems('include = ["a.toml"]')
    assert problem.startswith("a.toml: ")
    assert "holds [tenants.NAME] sections only; move this to the file that includes it" in problem


def test_a_tenant_defined_twice_names_both_files(folder: Folder) -> None:
    folder.write("a.toml", TENANT)
    folder.write("b.toml", TENANT)
    assert folder.problems('include = ["a.toml", "b.toml"]') == [
        f"b.toml: tenants.acme: {folder.path / 'a.toml'} has this tenant already".replace(f"{folder.path}/", "")
    ]
    assert folder.problems('include = ["a.toml"]' + TENANT) == [
        "a.toml: tenants.acme: proxy.toml has this tenant already"
    ]


def test_problems_of_an_included_file_name_that_file(folder: Folder) -> None:
    folder.write("a.toml", '[tenants.a]\nregion = 5\nregoin = "x"\nclient_id = "x"')
    folder.write("b.toml", "?")
    problems = folder.problems('include = ["*.toml"]\n[routing]\ndefault_tenant = "b"')
    assert problems == [
        "a.toml: tenants.a.region: expected a string (got a number)",
        "a.toml: tenants.a.regoin: unknown key; did you mean region?",
        "b.toml: line 1, column 1: Invalid statement",
        'a.toml: tenants.a.client_secret: expected the OAuth client\'s secret, e.g. { env = "ACME_SECRET" }',
    ]


def test_defaults_apply_to_included_tenants(folder: Folder) -> None:
    folder.write("a.toml", '[tenants.a]\nclient_id = "x"\nclient_secret = "x"')
    settings = folder.load('include = ["a.toml"]\n[defaults]\nregion = "us-west-2"')
    assert settings.tenants["a"].region == "usw2.pure.cloud"


def test_ten_thousand_tenants_load_within_seconds(folder: Folder) -> None:
    # A quadratic step would take minutes: the timeout of the test is the check.
    text = "".join(other(f"t{number}") for number in range(10_000))
    settings: Settings = folder.load('[routing]\ndefault_tenant = "t1"\n' + text)
    assert len(settings.tenants) == 10_000
    few = "".join(other(f"t{number}") for number in range(3_000))
    broken = folder.problems(few.replace('client_id = "id"', "client_idd = 1"))
    assert len(broken) == 6_000

"""The sections beside the tenants: every key's default, its limits and what is said beyond them."""

from __future__ import annotations

import pytest

from proxy.settings import (
    AccessSettings,
    AdminSettings,
    LimitsSettings,
    ListenSettings,
    LogSettings,
    RoutingSettings,
    UpstreamSettings,
)
from tests.settings.folder import TENANT, Folder

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBfDCCASGgAwIBAgIUMjALKQKW5qadJBreRWwIoJ12nJowCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHVGVzdCBDQTAgFw0yNjExMjIyMzQzMjZaGA8yMTI2MTAyOTIz
NDMyNlowEjEQMA4GA1UEAwwHVGVzdCBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABPseReE3saxlT94QLYrD6CIf52Ng+NmlUFN1ETUUgRs/JYMaOoY/b4T8GnPD
1C2z0pxUr/CIoFhwKm3DyHMw1jajUzBRMB0GA1UdDgQWBBStesDy6Xgb8yJcGYWP
wlKyEej+cjAfBgNVHSMEGDAWgBStesDy6Xgb8yJcGYWPwlKyEej+cjAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQDbDrG1rPKFp2vqxaxuaxuJa4Ng
kvaoWnhQEX+h0d4WBQIhAPB8Op8A7qW5J9JTNlsiBXQ18chK5HW2/c1QKFo6HGWx
-----END CERTIFICATE-----
"""
"""Self-signed; its private key was thrown away."""


def test_every_section_has_defaults(folder: Folder) -> None:
    settings = folder.load(TENANT)
    assert settings.listen == ListenSettings(host="127.0.0.1", port=8080)
    assert settings.admin == AdminSettings(host="127.0.0.1", port=8081)
    assert settings.access == AccessSettings(allowed_hosts=(), allowed_origins=(), caller_keys=(), open=False)
    assert settings.limits == LimitsSettings(
        request_timeout=15,
        connect_timeout=5,
        idle_timeout=75,
        tunnel_idle_timeout=3600,
        replay_buffer=524_288,
        max_header_bytes=65_536,
    )
    assert settings.upstream == UpstreamSettings(ca_file=None)
    assert settings.routing == RoutingSettings(default_tenant="acme", tenant_header="X-Genesys-Tenant")
    assert settings.log == LogSettings(access="failed", access_share=1)


# --- listen and admin ---


@pytest.mark.parametrize("section", ["listen", "admin"])
@pytest.mark.parametrize("port", [0, 1, 65_535])
def test_a_port_is_accepted(folder: Folder, section: str, port: int) -> None:
    assert getattr(folder.load(f"[{section}]\nport = {port}{TENANT}"), section).port == port


@pytest.mark.parametrize("section", ["listen", "admin"])
@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("-1", "expected at least 0 (got -1)"),
        ("65536", "expected at most 65535 (got 65536)"),
        ("0x" + "f" * 5000, "expected at most 65535 (got a very large number)"),
        ('"8080"', "expected a whole number (got a string)"),
        ("8080.0", "expected a whole number (got a number)"),
        ("true", "expected a whole number (got true)"),
        ("[8080]", "expected a whole number (got a list)"),
        ("2026-01-01", "expected a whole number (got a date or time)"),
    ],
)
def test_any_other_port_is_refused(folder: Folder, section: str, port: str, message: str) -> None:
    assert folder.problems(f"[{section}]\nport = {port}{TENANT}") == [f"proxy.toml: {section}.port: {message}"]


@pytest.mark.parametrize(
    ("host", "kept"), [("localhost", "localhost"), ("127.0.0.2", "127.0.0.2"), ("::1", "::1"), ("[::1]", "::1")]
)
def test_loopback_needs_no_caller_keys(folder: Folder, host: str, kept: str) -> None:
    assert folder.load(f'[listen]\nhost = "{host}"{TENANT}').listen.host == kept


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example", "x.localhost"])
def test_anywhere_else_needs_caller_keys_or_the_word_open(folder: Folder, host: str) -> None:
    text = f'[listen]\nhost = "{host}"{TENANT}'
    (problem,) = folder.problems(text)
    assert problem.startswith("proxy.toml: listen.host: expected a loopback address: elsewhere anybody")
    assert "access.caller_keys" in problem
    assert "access.open = true" in problem
    assert folder.load(f'[access]\ncaller_keys = ["0123456789abcdef"]\n{text}').listen.host == host
    assert folder.load(f"[access]\nopen = true\n{text}").access.open
    assert folder.problems(f"[access]\nopen = false\n{text}") == [problem]


@pytest.mark.parametrize("access", ['caller_keys = ["short"]', 'open = "yes"'])
def test_refused_access_keys_are_not_also_said_to_be_missing(folder: Folder, access: str) -> None:
    (problem,) = folder.problems(f'[access]\n{access}\n[listen]\nhost = "0.0.0.0"{TENANT}')
    assert problem.startswith("proxy.toml: access.")


def test_caller_keys_and_open_exclude_each_other(folder: Folder) -> None:
    assert folder.problems(f'[access]\nopen = true\ncaller_keys = ["0123456789abcdef"]{TENANT}') == [
        "proxy.toml: access.open: expected false where caller_keys are given"
    ]


def test_the_admin_port_may_be_reached_from_elsewhere(folder: Folder) -> None:
    assert folder.load(f'[admin]\nhost = "0.0.0.0"{TENANT}').admin.host == "0.0.0.0"


def test_the_two_ports_differ(folder: Folder) -> None:
    assert folder.problems(f"[admin]\nport = 8080{TENANT}") == [
        "proxy.toml: admin.port: expected another port than listen.port (got 8080)"
    ]
    assert folder.load(f'[admin]\nport = 8080\nhost = "127.0.0.2"{TENANT}').admin.port == 8080
    assert folder.load(f"[listen]\nport = 0\n[admin]\nport = 0{TENANT}").admin.port == 0


# --- access ---


def test_allowed_hosts_are_kept_in_lower_case_as_they_stand_in_host(folder: Folder) -> None:
    settings = folder.load(f'[access]\nallowed_hosts = ["Gateway.Example", "192.0.2.1", "2001:DB8::1"]{TENANT}')
    assert settings.access.allowed_hosts == ("gateway.example", "192.0.2.1", "[2001:db8::1]")


@pytest.mark.parametrize("host", ["gateway.example:8080", "*.example", "http://gateway.example", ""])
def test_an_allowed_host_is_a_host_without_port(folder: Folder, host: str) -> None:
    assert folder.problems(f'[access]\nallowed_hosts = ["a.example", "{host}"]{TENANT}') == [
        f'proxy.toml: access.allowed_hosts[1]: expected a host name or an IP address, without port (got "{host}")'
    ]


def test_allowed_origins_are_kept_as_browsers_write_them(folder: Folder) -> None:
    text = f'[access]\nallowed_origins = ["https://Chat.Example:443", "http://localhost:3000"]{TENANT}'
    assert folder.load(text).access.allowed_origins == ("https://chat.example", "http://localhost:3000")


@pytest.mark.parametrize("origin", ["*", "null", "https://chat.example/", "chat.example"])
def test_an_allowed_origin_is_a_serialized_origin(folder: Folder, origin: str) -> None:
    (problem,) = folder.problems(f'[access]\nallowed_origins = ["{origin}"]{TENANT}')
    assert problem.startswith("proxy.toml: access.allowed_origins[0]: expected ")
    assert problem.endswith(f'(got "{origin}")')


@pytest.mark.parametrize("key", ["allowed_hosts", "allowed_origins", "caller_keys"])
def test_a_list_is_expected(folder: Folder, key: str) -> None:
    assert folder.problems(f'[access]\n{key} = "https://a.example"{TENANT}') == [
        f"proxy.toml: access.{key}: expected a list (got a string)"
    ]


def test_a_caller_key_has_at_least_sixteen_visible_characters(folder: Folder) -> None:
    settings = folder.load(
        f'[access]\ncaller_keys = ["0123456789abcdef", {{ env = "KEY" }}]{TENANT}', {"KEY": "+/" * 9}
    )
    assert [caller.key.reveal() for caller in settings.access.caller_keys] == ["0123456789abcdef", "+/" * 9]


@pytest.mark.parametrize("key", ["0123456789abcde", "0123456789 abcdef", "0123456789äabcdef", "0123456789abcdef\\n"])
def test_any_other_caller_key_is_refused(folder: Folder, key: str) -> None:
    assert folder.problems(f'[access]\ncaller_keys = ["0123456789abcdef", "{key}"]{TENANT}') == [
        (
            "proxy.toml: access.caller_keys[1]: expected at least 16 visible ASCII characters, "
            "such as openssl rand -hex 16 makes"
        )
    ]


@pytest.mark.parametrize("value", ['"true"', "1", "[]"])
def test_open_is_true_or_false(folder: Folder, value: str) -> None:
    (problem,) = folder.problems(f"[access]\nopen = {value}{TENANT}")
    assert problem.startswith("proxy.toml: access.open: expected true or false (got ")


# --- limits ---

TIMES = ["request_timeout", "connect_timeout", "idle_timeout", "tunnel_idle_timeout"]


@pytest.mark.parametrize("key", TIMES)
@pytest.mark.parametrize("value", ["1", "0.001", "86400"])
def test_a_time_is_a_number_of_seconds(folder: Folder, key: str, value: str) -> None:
    assert getattr(folder.load(f"[limits]\n{key} = {value}{TENANT}").limits, key) == float(value)


@pytest.mark.parametrize("key", TIMES)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "expected more than 0 (got 0)"),
        ("-1.5", "expected more than 0 (got -1.5)"),
        ("86400.1", "expected at most 86400 (got 86400.1)"),
        ("nan", "expected a finite number"),
        ("inf", "expected a finite number"),
        ('"15s"', "expected a number (got a string)"),
        ("true", "expected a number (got true)"),
    ],
)
def test_any_other_time_is_refused(folder: Folder, key: str, value: str, message: str) -> None:
    assert folder.problems(f"[limits]\n{key} = {value}{TENANT}") == [f"proxy.toml: limits.{key}: {message}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("replay_buffer", 0),
        ("replay_buffer", 1_073_741_824),
        ("max_header_bytes", 1024),
        ("max_header_bytes", 1_048_576),
    ],
)
def test_a_size_is_a_number_of_bytes(folder: Folder, key: str, value: int) -> None:
    assert getattr(folder.load(f"[limits]\n{key} = {value}{TENANT}").limits, key) == value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("replay_buffer", -1, "expected at least 0 (got -1)"),
        ("replay_buffer", 1_073_741_825, "expected at most 1073741824 (got 1073741825)"),
        ("max_header_bytes", 1023, "expected at least 1024 (got 1023)"),
        ("max_header_bytes", 1_048_577, "expected at most 1048576 (got 1048577)"),
    ],
)
def test_any_other_size_is_refused(folder: Folder, key: str, value: int, message: str) -> None:
    assert folder.problems(f"[limits]\n{key} = {value}{TENANT}") == [f"proxy.toml: limits.{key}: {message}"]


# --- upstream ---


def test_a_ca_file_is_found_beside_the_configuration_and_watched(folder: Folder) -> None:
    folder.write("tls/ca.pem", CERTIFICATE)
    settings = folder.load(f'[upstream]\nca_file = "tls/ca.pem"{TENANT}')
    assert settings.upstream.ca_file == folder.path / "tls/ca.pem"
    assert tuple(settings.sources) == (folder.main, folder.path / "tls/ca.pem")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pem", 'file "missing.pem" does not exist; expected certificates in PEM'),
        ("empty.pem", 'file "empty.pem" holds no certificates in PEM'),
        ("text.pem", 'file "text.pem" holds no certificates in PEM'),
        ("broken.pem", 'file "broken.pem" holds no certificates in PEM'),
        ("a\\u0000b", 'file "a\\u0000b" can\'t be read (not a usable path)'),
    ],
)
def test_a_ca_file_that_can_not_be_loaded_is_refused(folder: Folder, name: str, message: str) -> None:
    folder.write("empty.pem", "")
    folder.write("text.pem", "certificate")
    folder.write("broken.pem", CERTIFICATE.replace("MIIB", "AAAA"))
    assert folder.problems(f'[upstream]\nca_file = "{name}"{TENANT}') == [f"proxy.toml: upstream.ca_file: {message}"]


# --- routing ---


def test_the_only_tenant_is_the_default_one_of_several_is_not(folder: Folder) -> None:
    assert folder.load(TENANT).routing.default_tenant == "acme"
    two = TENANT + TENANT.replace("acme", "globex")
    assert folder.load(two).routing.default_tenant is None
    assert folder.load(f'[routing]\ndefault_tenant = "globex"{two}').routing.default_tenant == "globex"


def test_the_default_tenant_exists(folder: Folder) -> None:
    assert folder.problems(f'[routing]\ndefault_tenant = "acne"{TENANT}') == [
        'proxy.toml: routing.default_tenant: expected the name of a tenant (got "acne"); did you mean acme?'
    ]


def test_the_tenant_header_is_kept_beside_the_default_tenant(folder: Folder) -> None:
    assert folder.load(f'[routing]\ntenant_header = "X-Org"{TENANT}').routing == RoutingSettings(
        default_tenant="acme", tenant_header="X-Org"
    )


@pytest.mark.parametrize("name", ["", "X Org", "X-Org:", "X-Örg", "X\\n"])
def test_the_tenant_header_is_a_field_name(folder: Folder, name: str) -> None:
    (problem,) = folder.problems(f'[routing]\ntenant_header = "{name}"{TENANT}')
    assert problem.startswith("proxy.toml: routing.tenant_header: expected a field name (RFC 9110 5.1) (got ")


@pytest.mark.parametrize("name", ["Authorization", "host", "Connection", "Content_Length", "X-Proxy-Key", "Origin"])
def test_the_tenant_header_is_no_field_with_a_meaning_of_its_own(folder: Folder, name: str) -> None:
    assert folder.problems(f'[routing]\ntenant_header = "{name}"{TENANT}') == [
        f"proxy.toml: routing.tenant_header: expected another field than {name}, which is the proxy's to decide"
    ]


# --- log ---


@pytest.mark.parametrize("access", ["failed", "all", "none"])
@pytest.mark.parametrize("share", [0, 0.01, 1])
def test_what_is_logged_of_requests_is_accepted(folder: Folder, access: str, share: float) -> None:
    log = folder.load(f'[log]\naccess = "{access}"\naccess_share = {share}{TENANT}').log
    assert (log.access, log.access_share) == (access, share)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("access", '"some"'),
        ("access", "true"),
        ("access_share", "1.01"),
        ("access_share", "-0.01"),
        ("access_share", "nan"),
    ],
)
def test_anything_else_is_not(folder: Folder, key: str, value: str) -> None:
    (problem,) = folder.problems(f"[log]\n{key} = {value}{TENANT}")
    assert problem.startswith(f"proxy.toml: log.{key}: expected ")

"""Ways in as the file tells them: a socket's mode and users, certificates, and who is let in by whom."""

from __future__ import annotations

import os
import pwd
import ssl
from pathlib import Path

import pytest
import trustme

from proxy.settings import exposed
from tests.settings.folder import TENANT, Folder

OPEN = "[access]\nopen = true\n"
KEYS = '[access]\ncaller_keys = ["0123456789abcdef"]\n'


@pytest.fixture
def pair(folder: Folder) -> Folder:
    """A folder with a certificate, its key, and the authority of both."""
    issuer = trustme.CA()
    leaf = issuer.issue_cert("localhost")
    folder.write("cert.pem", leaf.cert_chain_pems[0].bytes())
    folder.write("key.pem", leaf.private_key_pem.bytes())
    folder.write("ca.pem", issuer.cert_pem.bytes())
    return folder


PAIR = 'tls_certificate = "cert.pem"\ntls_key = "key.pem"\n'


def test_the_files_of_tls_are_relative_and_watched(pair: Folder) -> None:
    settings = pair.load(f'[listen]\n{PAIR}client_ca = "ca.pem"{TENANT}')
    listen = settings.listen
    files = (listen.tls_certificate, listen.tls_key, listen.client_ca)
    assert files == tuple(pair.path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    assert set(files) <= set(settings.sources)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ('tls_certificate = "cert.pem"', "tls_certificate: expected tls_key beside it"),
        ('tls_key = "key.pem"', "tls_key: expected tls_certificate beside it"),
        ('client_ca = "ca.pem"', "client_ca: expected tls_certificate beside it"),
        (
            'tls_certificate = "ca.pem"\ntls_key = "key.pem"',
            "tls_certificate: expected a certificate in PEM, and in tls_key its private key",
        ),
        (
            'tls_certificate = "key.pem"\ntls_key = "cert.pem"',
            "tls_certificate: expected a certificate in PEM, and in tls_key its private key",
        ),
        (
            'tls_certificate = "cert.pem"\ntls_key = "none.pem"',
            'tls_key: file "none.pem" does not exist; expected PEM',
        ),
        (f'{PAIR}client_ca = "key.pem"', 'client_ca: file "key.pem" holds no certificates in PEM'),
    ],
)
def test_files_that_do_not_fit_are_named(pair: Folder, keys: str, problem: str) -> None:
    assert pair.problems(f"[listen]\n{keys}{TENANT}") == [f"proxy.toml: listen.{problem}"]


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(pair: Folder) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key((pair.path / "key.pem").read_bytes(), None)
    coded = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"x"))
    pair.write("key.pem", coded)
    assert pair.problems(f"[listen]\n{PAIR}{TENANT}") == [
        "proxy.toml: listen.tls_key: expected a private key that is not encrypted"
    ]


def test_client_certificates_are_enough_to_listen_anywhere(pair: Folder) -> None:
    pair.load(f'[listen]\nhost = "0.0.0.0"\n{PAIR}client_ca = "ca.pem"{TENANT}')
    (problem,) = pair.problems(f'[listen]\nhost = "0.0.0.0"\n{PAIR}{TENANT}')
    assert problem.startswith("proxy.toml: listen.host: expected a loopback address")


@pytest.mark.parametrize(
    ("keys", "tcp"),
    [
        ("", True),
        ('unix_socket = "s"', False),
        ('unix_socket = "s"\nport = 8080', True),
        ('unix_socket = "s"\nhost = "127.0.0.1"', True),
    ],
)
def test_the_port_is_open_beside_a_socket_only_where_it_is_given(folder: Folder, keys: str, tcp: bool) -> None:
    listen = folder.load(f"[listen]\n{keys}{TENANT}").listen
    assert listen.tcp is tcp
    assert listen.unix_socket == (folder.path / "s" if "unix" in keys else None)


@pytest.mark.parametrize("mode", ['"0660"', '"660"', "0o660"])
def test_a_mode_is_octal(folder: Folder, mode: str) -> None:
    assert (
        folder.load(f'[listen]\nunix_socket = "s"\nunix_socket_mode = {mode}{TENANT}').listen.unix_socket_mode == 0o660
    )


@pytest.mark.parametrize("mode", ['"0999"', '"rw"', "-1", "0o1777", "true", '""', '"00660"'])
def test_any_other_mode_is_refused(folder: Folder, mode: str) -> None:
    assert folder.problems(f'[listen]\nunix_socket = "s"\nunix_socket_mode = {mode}{TENANT}') == [
        'proxy.toml: listen.unix_socket_mode: expected a file\'s mode in octal digits, such as "0660"'
    ]


def test_users_are_names_or_numbers(folder: Folder) -> None:
    me = pwd.getpwuid(os.getuid())
    text = f'[listen]\nunix_socket = "s"\nunix_socket_users = ["{me.pw_name}", 12345]{TENANT}'
    assert folder.load(text).listen.unix_socket_users == (me.pw_uid, 12345)
    assert folder.problems(f'[listen]\nunix_socket = "s"\nunix_socket_users = ["no such user"]{TENANT}') == [
        (
            "proxy.toml: listen.unix_socket_users[0]: expected the name or the number of a user of this machine "
            '(got "no such user")'
        )
    ]


@pytest.mark.parametrize("key", ['unix_socket_mode = "0660"', "unix_socket_users = [0]"])
def test_a_mode_and_users_need_a_socket(folder: Folder, key: str) -> None:
    (problem,) = folder.problems(f"[listen]\n{key}{TENANT}")
    assert problem.endswith("expected unix_socket beside it")


@pytest.mark.parametrize("mode", ["0666", "0602", "0601", "0607"])
def test_a_socket_for_everybody_needs_keys_users_or_the_word_open(folder: Folder, mode: str) -> None:
    text = f'[listen]\nunix_socket = "s"\nunix_socket_mode = "{mode}"\n'
    (problem,) = folder.problems(text + TENANT)
    assert problem.startswith("proxy.toml: listen.unix_socket_mode: expected no rights for others")
    folder.load(f"{text}unix_socket_users = [0]{TENANT}")
    folder.load(text + OPEN + TENANT)
    folder.load(text + KEYS + TENANT)


@pytest.mark.parametrize("path", ["", "x" * 200, "a\\u0000b"])
def test_a_path_that_no_socket_can_have_is_refused(folder: Folder, path: str) -> None:
    assert folder.problems(f'[listen]\nunix_socket = "{path}"{TENANT}') == [
        "proxy.toml: listen.unix_socket: expected a path of 1 to 103 bytes"
    ]


def test_the_context_of_a_test_pair_is_one_that_openssl_takes(pair: Folder) -> None:
    """Or the problems above would tell nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(pair.path, "cert.pem"), Path(pair.path, "key.pem"))


# --- the admin port ---


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "admin.example.com"])
def test_an_admin_port_that_others_reach_is_warned_of_unless_the_network_is_trusted(folder: Folder, host: str) -> None:
    text = f'[admin]\nhost = "{host}"\n{TENANT}'
    (warning,) = exposed(folder.load(text))
    assert warning.startswith(f"{folder.main}: admin.host: whoever reaches {host} sees ")
    assert exposed(folder.load(f"{OPEN}{text}")) == []
    assert exposed(folder.load(f"{KEYS}{text}")) == [warning]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_an_admin_port_of_this_machine_is_not(folder: Folder, host: str) -> None:
    assert exposed(folder.load(f'[admin]\nhost = "{host}"\n{TENANT}')) == []

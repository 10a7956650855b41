"""Whether the ways in fit together: nobody is let in whom the configuration does not plainly mean to let in."""

from __future__ import annotations

from proxy.core.urls import is_loopback
from proxy.settings.model import AccessSettings, ListenSettings, Settings
from proxy.settings.problems import quoted

OTHERS = 0o007
"""Of a file's mode: everybody who is neither its user nor of its group."""


def misfits(listen: ListenSettings, access: AccessSettings) -> list[tuple[str, str]]:
    """What is wrong with ``[listen]``, as keys and messages."""
    return _tls(listen) + unguarded(listen, access)


def unguarded(listen: ListenSettings, access: AccessSettings) -> list[tuple[str, str]]:
    """Where anybody would be let in, as keys and messages."""
    found = []
    known = bool(access.caller_keys) or access.open
    if listen.tcp and not (is_loopback(listen.host) or listen.client_ca or known):
        message = (
            "expected a loopback address: elsewhere anybody who reaches the port acts as the tenants; give "
            "access.caller_keys or listen.client_ca, or say access.open = true if the network in front is trusted "
            f"(got {quoted(listen.host)})"
        )
        found.append(("host", message))
    return found + _unix(listen, known=known)


def exposed(settings: Settings) -> list[str]:
    """What is to be warned of: others than this machine reach the admin port, and nobody says that they may."""
    host = settings.admin.host
    if is_loopback(host) or settings.access.open:
        return []
    warning = (
        f"whoever reaches {host} sees every tenant's state, has tokens refreshed and the configuration reloaded, "
        "without a password; let in probes and Prometheus alone"
    )
    return [f"{settings.file}: admin.host: {warning}"]


def _tls(listen: ListenSettings) -> list[tuple[str, str]]:
    if listen.tls_certificate is None:
        return [
            (key, "expected tls_certificate beside it")
            for key in ("tls_key", "client_ca")
            if getattr(listen, key) is not None
        ]
    if listen.tls_key is None:
        return [("tls_certificate", "expected tls_key beside it")]
    import ssl  # OpenSSL takes its time to load, and most configurations name no certificate

    def encrypted() -> str:
        raise ValueError("expected a private key that is not encrypted")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listen.tls_certificate, listen.tls_key, encrypted)
    except ValueError as error:
        return [("tls_key", str(error))]
    except OSError:
        return [("tls_certificate", "expected a certificate in PEM, and in tls_key its private key")]
    return []


def _unix(listen: ListenSettings, *, known: bool) -> list[tuple[str, str]]:
    if listen.unix_socket is None:
        keys = sorted(listen.model_fields_set & {"unix_socket_mode", "unix_socket_users"})
        return [(key, "expected unix_socket beside it") for key in keys]
    if listen.unix_socket_mode & OTHERS and not (listen.unix_socket_users or known):
        message = (
            "expected no rights for others: every user of the machine acts as the tenants; give unix_socket_users or "
            f"access.caller_keys, or say access.open = true (got {listen.unix_socket_mode:04o})"
        )
        return [("unix_socket_mode", message)]
    return []

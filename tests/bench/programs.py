"""The programs of the benchmark: each is started in a session of its own, bounded in time, and ended by its id."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import trustme

ROOT = Path(__file__).resolve().parents[2]

TOKEN = "bench-token-bench-token-bench-token-bench-token"
"""What the login issues and the upstream demands: whoever forwards without it is answered 401, and the run fails."""

PATH = "/api/v2/users/me?expand=presence"

ANSWER = json.dumps(
    {
        "id": "3f6c5d1e-0a0b-4c1d-9e2f-7a8b9c0d1e2f",
        "name": "Some User",
        "email": "some.user@example.com",
        "version": 3,
        "selfUri": "/api/v2/users/3f6c5d1e",
    }
)

ISSUED = json.dumps({"access_token": TOKEN, "token_type": "bearer", "expires_in": 86_400})

BIG = "/api/v2/downloads/big"
BIG_BYTES = 100_000_000
"""What downloads are measured with."""

LONGEST_RUN = 420
"""Seconds after which every program ends whatever becomes of the benchmark, and the benchmark too."""

_STARTING = 60.0


@contextlib.contextmanager
def program(*command: str | Path, log: Path) -> Iterator[int]:
    """A program for as long as the context lasts; its id, which is its process group's too.

    ``timeout`` stands above it, so that nothing outlives the benchmark for long even where that is killed.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["timeout", "--kill-after=2", str(LONGEST_RUN), *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return


def free_port() -> int:
    """A port that was free just now, of those that systems give nobody who asks for any."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for(port: int, path: str, log: Path, fields: dict[str, str] | None = None) -> None:
    """Waits until a program answers 200.

    :raises ChildProcessError: it does not; with the end of its log
    """
    due, last = time.monotonic() + _STARTING, "nothing"
    while time.monotonic() < due:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path, headers=fields or {})
            status = connection.getresponse().status
            if status == 200:
                return
            last = str(status)
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise ChildProcessError(f"it answers {last} on port {port}:\n{log.read_text(errors='replace')[-2000:]}")


# --- the upstream ---


class Api(NamedTuple):
    """API and login in one."""

    kind: str
    """nginx; or asyncio, which has neither TLS nor large answers."""
    port: int
    tls_port: int
    ca: Path
    """The authority that vouches for it."""

    def url(self, *, tls: bool) -> str:
        return f"https://127.0.0.1:{self.tls_port}" if tls else f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[Api]:
    """The API: nginx, or where there is none a small asyncio server."""
    nginx = shutil.which("nginx")
    api = Api("asyncio" if nginx is None else "nginx", free_port(), free_port(), folder / "ca.pem")
    authority, log = trustme.CA(), folder / "upstream.log"
    authority.cert_pem.write_to_path(api.ca)
    certificate = folder / "upstream.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    with (folder / "big").open("wb") as big:
        big.truncate(BIG_BYTES)
    folder.chmod(0o755)  # root's nginx reads it as another user
    if nginx is None:
        command: list[str | Path] = [sys.executable, "-m", "tests.bench.upstream", str(api.port)]
    else:
        values = {"port": api.port, "tls": api.tls_port, "certificate": certificate, "folder": folder}
        command = _nginx(nginx, folder / "upstream", _NGINX_UPSTREAM % values)
    with program(*command, log=log):
        wait_for(api.port, PATH, log, {"Authorization": f"Bearer {TOKEN}"})
        yield api


def _nginx(nginx: str, folder: Path, servers: str) -> list[str | Path]:
    folder.mkdir()
    temporary = "".join(
        f" {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX % {"folder": folder, "temporary": temporary, "servers": servers}, "utf-8")
    return [nginx, "-p", folder, "-c", configuration, "-e", "stderr"]


_NGINX = """\
worker_processes 1; daemon off; pid %(folder)s/pid; error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s;%(temporary)s
  %(servers)s
}
"""

_FIELDS = {
    "inin-ratelimit-count": "12",
    "inin-ratelimit-allowed": "300",
    "inin-ratelimit-reset": "42",
    "ININ-Correlation-Id": "3f6c5d1e-0a0b-4c1d-9e2f-7a8b9c0d1e2f",
    "Cache-Control": "no-cache, no-store, must-revalidate",
}

RATE_LIMIT = "".join(f"{name}: {value}\r\n" for name, value in _FIELDS.items())
"""Fields that every answer of the API has, as lines."""

_NGINX_UPSTREAM = (
    "server { listen 127.0.0.1:%(port)d; listen 127.0.0.1:%(tls)d ssl; default_type application/json;\n"
    "ssl_certificate %(certificate)s; ssl_certificate_key %(certificate)s; client_max_body_size 0;\n"
    f"location = {BIG} {{ alias %(folder)s/big; }}\n"
    f"location = /oauth/token {{ return 200 '{ISSUED}'; }}\n"
    f'location / {{ if ($http_authorization != "Bearer {TOKEN}") {{ return 401; }}\n'
    + "".join(f'add_header {name} "{value}";' for name, value in _FIELDS.items())
    + f" return 200 '{ANSWER}'; }} }}"
)


# --- what stands in front of it ---


@contextlib.contextmanager
def ours(folder: Path, api: Api, access: str = "failed", *, tls: bool = False) -> Iterator[tuple[int, int]]:
    """This proxy with its defaults; its id and port. So for all that follow.

    :param access: which requests it logs
    :param tls: to the upstream
    """
    port, name = free_port(), f"ours-{access}{'-tls' * tls}"
    log, configuration = folder / f"{name}.log", folder / f"{name}.toml"
    configuration.write_text(
        f'[listen]\nport = {port}\n[admin]\nport = 0\n[upstream]\nca_file = "{api.ca}"\n[tenants.acme]\n'
        f'api_url = "{api.url(tls=tls)}"\nlogin_url = "{api.url(tls=tls)}"\n'
        f'client_id = "bench"\nclient_secret = "bench-secret"\n[log]\naccess = "{access}"\n',
        "utf-8",
    )
    with program(sys.executable, "-m", "proxy", "run", "--config", configuration, log=log) as pid:
        wait_for(port, f"/t/acme{PATH}", log)
        yield pid, port


@contextlib.contextmanager
def nginx(folder: Path, api: Api, *, tls: bool = False) -> Iterator[tuple[int, int]]:
    """nginx with a fixed token: what passing on costs without anything that keeps a token."""
    port, name = free_port(), f"nginx{'-tls' * tls}"
    log = folder / f"{name}.log"
    servers = f"""\
upstream api {{ server {api.url(tls=tls).partition("//")[2]}; keepalive 64; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port}; location /t/acme/ {{
  proxy_pass http{"s" * tls}://api/; proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_set_header Authorization "Bearer {TOKEN}"; }} }}"""
    with program(*_nginx(_found("nginx"), folder / name, servers), log=log) as pid:
        wait_for(port, f"/t/acme{PATH}", log)
        yield pid, port


@contextlib.contextmanager
def haproxy(folder: Path, api: Api, *, tls: bool = False) -> Iterator[tuple[int, int]]:
    """HAProxy with a fixed token and one thread, as nginx has one worker."""
    port, name = free_port(), f"haproxy{'-tls' * tls}"
    log, configuration = folder / f"{name}.log", folder / f"{name}.cfg"
    server = api.url(tls=tls).partition("//")[2] + (f" ssl verify required ca-file {api.ca}" if tls else "")
    configuration.write_text(
        "global\n  nbthread 1\n  maxconn 2000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n"
        f"  timeout server 300s\nfrontend client\n  bind 127.0.0.1:{port}\n"
        f'  http-request set-header Authorization "Bearer {TOKEN}"\n'
        "  http-request replace-path /t/acme(/.*) \\1\n  default_backend api\n"
        f"backend api\n  http-reuse always\n  server api {server}\n",
        "utf-8",
    )
    with program(_found("haproxy"), "-db", "-f", configuration, log=log) as pid:
        wait_for(port, f"/t/acme{PATH}", log)
        yield pid, port


def _found(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


@contextlib.contextmanager
def envoy(
    folder: Path, api: Api, binary: str | None, *, concurrency: int | None, tls: bool = False
) -> Iterator[tuple[int, int]]:
    """Envoy with its credential injector, which gets the token by client credentials itself.

    :param binary: where it is; None where it is not installed
    :param concurrency: worker threads; None leaves that to Envoy, which takes one for each CPU
    """
    if binary is None:
        raise FileNotFoundError("Envoy is not installed; make bench installs it")
    name = f"envoy-{concurrency or 'default'}{'-tls' * tls}"
    port, log, configuration = free_port(), folder / f"{name}.log", folder / f"{name}.json"
    configuration.write_text(json.dumps(_envoy(port, api, tls=tls)), "utf-8")
    command: list[str | Path] = [binary, "-c", configuration, "-l", "error", "--disable-hot-restart"]
    if concurrency is not None:
        command += ["--concurrency", str(concurrency)]
    with program(*command, log=log) as pid:
        wait_for(port, f"/t/acme{PATH}", log)
        yield pid, port


def _envoy(port: int, api: Api, *, tls: bool) -> dict[str, Any]:
    extensions = "type.googleapis.com/envoy.extensions"
    oauth2 = {
        "@type": f"{extensions}.http.injected_credentials.oauth2.v3.OAuth2",
        "token_endpoint": {"cluster": "api", "timeout": "5s", "uri": f"{api.url(tls=tls)}/oauth/token"},
        "client_credentials": {"client_id": "bench", "client_secret": {"name": "secret"}},
    }
    injector = {
        "@type": f"{extensions}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.oauth2", "typed_config": oauth2},
    }
    route = {"match": {"prefix": "/t/acme/"}, "route": {"cluster": "api", "prefix_rewrite": "/"}}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"},
            },
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    endpoint = {"endpoint": {"address": _address(api.tls_port if tls else api.port)}}
    cluster: dict[str, Any] = {
        "name": "api",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "api", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if tls:
        trusted = {"trusted_ca": {"filename": str(api.ca)}}
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{extensions}.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"validation_context": trusted},
            },
        }
    secret = {"name": "secret", "generic_secret": {"secret": {"inline_string": "bench-secret"}}}
    return {
        "static_resources": {
            "listeners": [{"address": _address(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster],
            "secrets": [secret],
        }
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

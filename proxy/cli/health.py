"""``health``: whether a running proxy answers; a container's HEALTHCHECK.

It starts every few seconds, so it reads only ``[admin]`` of the file, and imports nothing of the program.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from proxy.cli.options import config_option
from proxy.errors import ConfigurationError

ADMIN_HOST = "127.0.0.1"
ADMIN_PORT = 8081
"""The defaults of ``settings.AdminSettings``, which takes longer to import than the probe to run."""

TIMEOUT = 3.0
"""Seconds for the answer; an event loop that takes longer is not healthy."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@click.command()
@config_option
@click.option("--url", metavar="URL", help="The admin port, e.g. http://127.0.0.1:8081; default: as configured.")
@click.pass_context
def health(ctx: click.Context, config: Path, url: str | None) -> None:
    """Ask a running proxy whether it is alive.

    Exit code 0 if it is, 1 if it isn't.
    """
    import http.client

    named = ctx.get_parameter_source("config") is not click.core.ParameterSource.DEFAULT
    host, port = _parsed(url) if url is not None else admin_address(config, named=named)
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise click.ClickException(f"no proxy answers on {where} ({reason})") from None
    finally:
        connection.close()
    if status != 200:
        raise click.ClickException(f"{where} answers {status}")
    click.echo(f"alive on {where}")


def _parsed(url: str) -> tuple[str, int]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname:
            return parts.hostname, parts.port or ADMIN_PORT
    except ValueError:
        pass  # a port that is none
    raise click.BadParameter(f"expected http://HOST:PORT (got {url})", param_hint="--url")


def admin_address(file: Path, *, named: bool) -> tuple[str, int]:
    """Where the file says the admin port is; on this machine if it listens everywhere.

    :param named: somebody named this file; one that nobody named need not be there
    """
    import tomllib

    def wrong(problem: str) -> NoReturn:
        raise ConfigurationError([f"{file}: {problem}"])

    try:
        content = tomllib.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        if not named:
            return ADMIN_HOST, ADMIN_PORT
        wrong("no such file; name the admin port with --url")
    except OSError as error:
        wrong(f"can't be read ({error.strerror})")
    except ValueError as error:
        wrong(str(error))
    admin = content.get("admin", {})
    if not isinstance(admin, dict):
        wrong("admin: expected a table")
    host, port = admin.get("host", ADMIN_HOST), admin.get("port", ADMIN_PORT)
    if not isinstance(host, str) or not isinstance(port, int):
        wrong("admin: expected a text for host and a number for port")
    if port == 0:
        wrong("admin.port: 0 is any free port; name the one that was printed with --url")
    return _EVERYWHERE.get(host, host), port

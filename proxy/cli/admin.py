"""Where a running proxy's admin port is, and what it answers; for commands that ask one.

``health`` starts every few seconds, so this reads only ``[admin]`` of the file, and imports nothing of the program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from proxy.cli.options import config_option
from proxy.errors import ConfigurationError

ADMIN_HOST = "127.0.0.1"
ADMIN_PORT = 8081
"""The defaults of ``settings.AdminSettings``, which takes longer to import than the probe to run."""

PROGRAM = "genesys-auth-proxy"
"""The ``Server`` of the admin port's answers."""

TIMEOUT = 3.0
"""Seconds for the answer; an event loop that takes longer is not healthy."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class AdminPort(NamedTuple):
    """A running proxy's admin port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of what it answers.

        :raises click.ClickException: it does not, or is no admin port
        """
        import http.client

        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.getheader("Server") != PROGRAM:
                raise click.ClickException(f"{self} is no admin port of a {PROGRAM}")
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise click.ClickException(f"no proxy answers on {self} ({reason})") from None
        finally:
            connection.close()


def admin_options(function: Any) -> Any:
    """``--config`` and ``--url``, given to the command as ``config`` and ``url``."""
    url = click.option(
        "--url", metavar="URL", help="The admin port, e.g. http://127.0.0.1:8081; default: as configured."
    )
    return config_option(url(function))


def admin_port(ctx: click.Context, config: Path, url: str | None) -> AdminPort:
    """The admin port that the command's options name.

    :raises ConfigurationError: the file does not tell
    """
    if url is not None:
        return _parsed(url)
    named = ctx.get_parameter_source("config") is not click.core.ParameterSource.DEFAULT
    return _configured(config, named=named)


def _parsed(url: str) -> AdminPort:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname:
            return AdminPort(parts.hostname, parts.port or ADMIN_PORT)
    except ValueError:
        pass  # a port that is none
    raise click.BadParameter(f"expected http://HOST:PORT (got {url})", param_hint="--url")


def _configured(file: Path, *, named: bool) -> AdminPort:
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
            return AdminPort(ADMIN_HOST, ADMIN_PORT)
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
    return AdminPort(_EVERYWHERE.get(host, host), port)

"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxy.errors import ConfigurationError

if TYPE_CHECKING:
    from proxy.sandbox import Faults
    from proxy.settings import Settings, TenantSettings

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_FILE = "genesys-auth-proxy.toml"
VARIABLE = "GENESYS_AUTH_PROXY_CONFIG"


def config_option(function: F) -> F:
    """``--config FILE``, given to the command as ``config: Path``."""
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        envvar=VARIABLE,
        default=DEFAULT_FILE,
        help=f"Configuration file; default: ./{DEFAULT_FILE}, or what ${VARIABLE} names.",
    )(function)


def tenant_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The configured tenants' names that begin so, for a shell to complete; none where the file can't be read."""
    import tomllib

    file = Path(ctx.params.get("config") or DEFAULT_FILE)
    try:
        content = tomllib.loads(file.read_text("utf-8-sig"))
        patterns = content.get("include", [])
        included = [tomllib.loads(path.read_text("utf-8-sig")) for text in patterns for path in file.parent.glob(text)]
        names = [name for part in (content, *included) for name in part.get("tenants", {})]
    except (OSError, ValueError, TypeError, AttributeError, NotImplementedError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def log_options(function: F) -> F:
    """``--log-level`` and ``--log-format``, given to the command as ``log_level`` and ``log_format``."""
    level = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        metavar="LEVEL",
        help="What goes to stderr: debug, info (the default), warning or error.",
    )
    style = click.option(
        "--log-format",
        type=click.Choice(["auto", "text", "json"]),
        default="auto",
        metavar="FORMAT",
        help="text, json, or auto (the default): text on a terminal, JSON elsewhere.",
    )
    return level(style(function))


def permissions_option(function: F) -> F:
    """``--check-permissions MODE``, given to the command as ``check_permissions``."""
    return click.option(
        "--check-permissions",
        type=click.Choice(["warn", "strict", "off"]),
        default="warn",
        metavar="MODE",
        help="Files with secrets that others can read: warn of them (the default; no sandbox's), strict: end with "
        "an error, or off.",
    )(function)


def check_files(settings: Settings, mode: str) -> list[str]:
    """What is to be warned of, one sentence for each file that others can read; none where only a sandbox's can be.

    :raises ConfigurationError: with the same, where the mode is ``strict``, a sandbox's or not
    """
    from proxy.settings import too_open

    if mode == "off" or (mode == "warn" and settings.rehearses):
        return []
    found = too_open(settings.secret_files)
    if found and mode == "strict":
        raise ConfigurationError(found)
    return found


def fault_option(function: F) -> F:
    """``--fault NAME[=VALUE]``, any number of them, given to the command as ``fault: tuple[str, ...]``."""
    return click.option(
        "--fault",
        metavar="NAME[=VALUE]",
        multiple=True,
        help="What goes wrong in the sandbox from the start, e.g. token_status=503; may be repeated.",
    )(function)


def set_faults(faults: Faults, wanted: tuple[str, ...]) -> None:
    """Puts the faults of ``--fault`` in force.

    :raises click.BadParameter: there is no such fault, or it takes no such value
    """
    for text in wanted:
        name, _, value = text.partition("=")
        try:
            faults.set(name, _value(value))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--fault") from None


def _value(text: str) -> object:
    """A JSON value, or the text itself; None where there is none."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def tenants_named(settings: Settings, names: tuple[str, ...]) -> list[TenantSettings]:
    """The tenants with these names; all of them where none is named.

    :raises click.BadParameter: one of them is not configured; the message names those that are
    """
    for name in names:
        if name not in settings.tenants:
            known = ", ".join(settings.tenants)
            raise click.BadParameter(f"no tenant is called {name!r}; there are: {known}", param_hint="TENANT")
    return [settings.tenants[name] for name in dict.fromkeys(names or settings.tenants)]

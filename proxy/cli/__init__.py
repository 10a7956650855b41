"""The command line: each command is a module of its own, imported when it is called.

Exit codes: 0 done · 1 it did not work · 2 the command line or the configuration is wrong · 130 and 143 ended
by SIGINT and SIGTERM. A command's module imports what is heavy in its functions, so that ``--help``,
``--version`` and ``health`` pay for none of it.
"""

from __future__ import annotations

from importlib import import_module

import click

from proxy import __version__
from proxy.errors import ConfigurationError

PROGRAM = "genesys-auth-proxy"

COMMANDS = ("run", "demo", "sandbox", "check", "login", "status", "snippet", "init", "schema", "health", "completion")
"""Each the name of a module here and of the command in it, in the order that people need them."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"proxy.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Keeps Genesys Cloud OAuth tokens fresh, as a proxy in front of the API."""


def main() -> None:
    """Does what the command line says, and exits."""
    commands(prog_name=PROGRAM)

"""``completion``: what a shell needs to complete this program's commands, options and tenants."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")

_SOURCED = {
    "bash": 'eval "$(genesys-auth-proxy completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(genesys-auth-proxy completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "genesys-auth-proxy completion fish > ~/.config/fish/completions/genesys-auth-proxy.fish",
}


@click.command(epilog="\b\n" + "\n".join(f"{shell}:  {line}" for shell, line in _SOURCED.items()))
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL: bash, zsh or fish.

    Load it at the start of the shell:
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, "click knows all of SHELLS"
    root = ctx.find_root()
    name = root.info_name or ""
    variable = f"_{name}_COMPLETE".replace("-", "_").upper()
    # Not source(): it runs the shell to look at its version, and writes a warning.
    completer = made(root.command, {}, name, variable)
    click.echo(completer.source_template % completer.source_vars())

"""``sandbox``: only the Genesys Cloud look-alike, until a signal ends it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from proxy.cli.options import fault_option

if TYPE_CHECKING:
    from proxy.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class _Wishes:
    host: str
    port: int
    token_lifetime: float
    idle_timeout: float | None
    rate_limit: int
    jwt: bool
    fault: tuple[str, ...]


@click.command()
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="P",
    default=8090,
    show_default=True,
    help="Port; 0 takes any free one.",
)
@click.option(
    "--token-lifetime", type=float, metavar="S", default=86_400, show_default=True, help="Seconds a token lives."
)
@click.option("--idle-timeout", type=float, metavar="S", help="Seconds after which an unused token is refused.")
@click.option(
    "--rate-limit",
    type=click.IntRange(0),
    metavar="N",
    default=300,
    show_default=True,
    help="Calls a minute for each token; 0: no limit.",
)
@click.option("--jwt", is_flag=True, help="Issue access tokens that are JWTs.")
@fault_option
def sandbox(
    host: str,
    port: int,
    token_lifetime: float,
    idle_timeout: float | None,
    rate_limit: int,
    jwt: bool,
    fault: tuple[str, ...],
) -> None:
    """Run the Genesys Cloud look-alike alone.

    It plays login, API, guest REST and web messaging for two orgs with made-up credentials. Ctrl-C ends it.
    """
    from proxy.cli.logs import log_to_stderr
    from proxy.cli.loop import run_loop

    log_to_stderr()
    run_loop(_run(_Wishes(host, port, token_lifetime, idle_timeout, rate_limit, jwt, fault)))


async def _run(wishes: _Wishes) -> None:
    from proxy.cli.loop import Signals
    from proxy.cli.options import set_faults
    from proxy.sandbox import Sandbox, SandboxOptions

    signals = Signals()
    cloud = Sandbox(
        SandboxOptions(
            token_lifetime=wishes.token_lifetime,
            idle_timeout=wishes.idle_timeout,
            rate_limit=wishes.rate_limit or None,
            org_rate_limit=3_000 if wishes.rate_limit else None,
            jwt_tokens=wishes.jwt,
        )
    )
    set_faults(cloud.faults, wishes.fault)
    try:
        await cloud.start(wishes.host, wishes.port)
    except OSError as error:
        # asyncio's own text repeats the call; a name that is not found has no number of the system's.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        where = f"can't listen on {wishes.host} port {wishes.port} ({reason})"
        raise click.ClickException(f"{where}; --host and --port name another address") from None
    click.echo(_welcome(cloud))
    await signals.stop()
    await cloud.close()


def _welcome(cloud: Sandbox) -> str:
    from proxy.cli.orgs import tenants_toml

    url, options = cloud.base_url, cloud.options
    tenants = "\n".join(f"    {line}".rstrip() for line in tenants_toml(url, options.orgs).splitlines())
    return f"""\
sandbox on {url}

Tokens live {options.token_lifetime:,.0f} s. Its two orgs, as tenants of a configuration; nothing here is a real secret:

{tenants}

What goes wrong is controlled on the same port:

    curl {url}/sandbox                  orgs, and the faults there are
    curl {url}/sandbox/ledger           what it saw
    curl {url}/sandbox/revoke -d '{{"org": "acme"}}'
    curl {url}/sandbox/faults -d '{{"name": "token_status", "value": 503, "count": 3}}'
    curl {url}/sandbox/faults -X DELETE

Ctrl-C ends it."""

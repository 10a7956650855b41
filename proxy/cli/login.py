"""``login``: a person logs in for a tenant, in a browser, and the tenant's refresh token is theirs from then on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import config_option

if TYPE_CHECKING:
    from proxy.core.grants import Code
    from proxy.core.login import Login
    from proxy.core.organization import Told
    from proxy.settings import Settings, TenantSettings

PATIENCE = 600.0
"""Seconds for a person to log in."""


@click.command()
@click.argument("tenant")
@config_option
@click.option("--no-browser", is_flag=True, help="Open none; ask for the address that a browser elsewhere ends at.")
@click.option("--org", metavar="NAME", help="Org to log in to; passed on to the login page, as are the next two.")
@click.option("--provider", metavar="NAME", help="Identity provider of the org's single sign-on.")
@click.option("--target", metavar="ORG_ID", help="Org that trusts this one, and is to be opened.")
def login(
    tenant: str, config: Path, no_browser: bool, org: str | None, provider: str | None, target: str | None
) -> None:
    """Log in for a tenant and keep its refresh token.

    For tenants with the grant refresh_token. The OAuth client must have the tenant's redirect_uri, exactly. A proxy
    that runs on the same store goes on with the new refresh token by itself.
    """
    from proxy.cli.loop import run_loop
    from proxy.cli.options import tenants_named
    from proxy.errors import LoginFailed, StoreError, TokenError
    from proxy.settings import load

    settings = load(config)
    (wanted,) = tenants_named(settings, (tenant,))
    _check(settings, wanted)
    given = {"org": org, "provider": provider, "target": target}
    parameters = {name: value for name, value in given.items() if value is not None}
    try:
        told = run_loop(_log_in(settings, wanted, parameters, browser=not no_browser))
    except LoginFailed as failed:
        raise click.ClickException(f"{tenant}: {failed}.") from None
    except (TokenError, StoreError) as error:
        raise click.ClickException(f"{tenant}: {str(error).removeprefix(f'Tenant {tenant}: ')}") from None
    click.echo(f"{tenant}: logged in; {_organization(told)}")


def _check(settings: Settings, tenant: TenantSettings) -> None:
    if tenant.grant != "refresh_token":
        message = f'its grant is "{tenant.grant}"; a login is of use with grant = "refresh_token" only'
        raise click.BadParameter(f"{tenant.name}: {message}", param_hint="TENANT")
    if settings.store.kind == "memory":
        message = 'a login is kept in the store, and store.url = "memory:" would end with this command'
        raise click.BadParameter(f"{tenant.name}: {message}", param_hint="TENANT")


async def _log_in(settings: Settings, tenant: TenantSettings, parameters: dict[str, str], *, browser: bool) -> Told:
    from proxy import app

    store = await app.open_store(settings)  # first: what can't be kept is not asked for
    endpoint = app.token_endpoint(settings)
    try:
        code = await (_from_browser(tenant, parameters) if browser else _from_paste(tenant, parameters))
        return await app.log_in(store, endpoint, tenant, code)
    finally:
        await endpoint.close()
        await store.close()


def _begin(tenant: TenantSettings, redirect_uri: str) -> Login:
    import secrets

    from proxy import app
    from proxy.core.login import Login
    from proxy.core.secret import Secret

    state, verifier = Secret(secrets.token_urlsafe(32)), Secret(secrets.token_urlsafe(48))
    return Login(app.client_of(tenant), f"{tenant.login_url}/oauth/authorize", redirect_uri, state, verifier)


async def _from_browser(tenant: TenantSettings, parameters: dict[str, str]) -> Code:
    import asyncio
    import webbrowser

    from proxy.cli.loopback import Loopback

    loopback = Loopback(tenant.redirect_uri)
    try:
        await loopback.open()
    except OSError as error:
        raise click.ClickException(
            f"can't listen at redirect_uri {tenant.redirect_uri} ({error.strerror}); end what does, change it here and "
            "in the OAuth client, or use --no-browser"
        ) from None
    try:
        begun = _begin(tenant, loopback.redirect_uri)
        loopback.expect(begun)
        page = begun.page(parameters)
        click.echo(f"Log in at this page; a browser is opened if there is one:\n{page}")
        await asyncio.to_thread(webbrowser.open, page)
        return await loopback.code(PATIENCE)
    finally:
        await loopback.close()


async def _line() -> str:
    """The next line of the standard input; empty at its end. Cancelled, it holds up no end of the program."""
    import asyncio
    import threading

    loop = asyncio.get_running_loop()
    read: asyncio.Future[str] = loop.create_future()

    def tell(line: str) -> None:
        if not read.done():
            read.set_result(line)

    # Not of the loop's own threads, which are waited for at the end, as for a person who presses no key any more.
    threading.Thread(
        target=lambda: loop.call_soon_threadsafe(tell, sys.stdin.readline()), name="standard input", daemon=True
    ).start()
    return await read


async def _from_paste(tenant: TenantSettings, parameters: dict[str, str]) -> Code:
    from proxy.errors import LoginFailed

    begun = _begin(tenant, tenant.redirect_uri.replace(":0/", ":8085/"))  # a port that a browser goes to
    click.echo(
        f"Log in at this page, on any machine:\n{begun.page(parameters)}\n"
        f"In the end the browser is sent to {begun.redirect_uri}, where nobody answers. Paste that address here:"
    )
    while line := await _line():
        if not line.strip():
            continue
        try:
            return begun.code(line.strip())
        except LoginFailed as failed:
            if failed.final:
                raise
            click.echo(f"No: {failed}.")
    raise LoginFailed("no address was pasted", final=True)


def _organization(told: Told) -> str:
    if told.id is None:
        return "whose it is, the API does not tell; with org_id, the proxy asks before it uses a token"
    return f"it belongs to organization {told.id}" + ("" if told.name is None else f" ({told.name})")

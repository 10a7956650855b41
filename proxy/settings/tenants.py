"""From a tenant's table to a tenant: ``[defaults]`` applied, the region's URLs filled in."""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from proxy.core import regions
from proxy.settings.model import TenantSettings, TenantTable

URLS = ("api_url", "login_url", "webmessaging_url", "cdn_url")


def merged(own: TenantTable, defaults: TenantTable) -> TenantTable:
    """A tenant's table over ``[defaults]``: each key as a whole, the tenant's own first.

    A region of its own also beats the URLs of ``[defaults]``: they would lead this org's secret elsewhere.
    """
    inherited = defaults.model_fields_set - own.model_fields_set
    if "region" in own.model_fields_set:
        inherited = inherited.difference(URLS)
    if not inherited:
        return own
    return own.model_copy(update={key: getattr(defaults, key) for key in inherited})


def lacking(table: TenantTable, broken: Collection[str]) -> list[tuple[str, str]]:
    """What a merged table still needs, as keys and messages.

    :param broken: keys that are there but were refused already
    """
    found = []
    located = table.region is not None or (table.api_url is not None and table.login_url is not None)
    if not located and not {"region", "api_url", "login_url"} & set(broken):
        found.append(("region", "expected the org's region, e.g. eu-central-1, or api_url and login_url"))
    if table.client_id is None and "client_id" not in broken:
        found.append(("client_id", "expected the id of the org's OAuth client"))
    if table.client_secret is None and "client_secret" not in broken:
        found.append(("client_secret", 'expected the OAuth client\'s secret, e.g. { env = "ACME_SECRET" }'))
    return found + _twice(table)


def _twice(table: TenantTable) -> list[tuple[str, str]]:
    # RFC 6749 3.2: a parameter is sent once.
    found = []
    if table.scope and "scope" in table.token_parameters:
        found.append(("token_parameters", "expected no scope beside the key scope"))
    if table.resource_server is not None:
        if "resourceServer" in table.token_parameters:
            found.append(("token_parameters", "expected no resourceServer beside the key resource_server"))
        if "resource_server" in (name.lower().replace("-", "_") for name in table.token_headers):
            found.append(("token_headers", "expected no resource_server beside the key resource_server"))
    return found


def resolved(name: str, table: TenantTable) -> TenantSettings:
    """The tenant of a merged table that lacks nothing."""
    assert table.client_id is not None
    assert table.client_secret is not None
    urls = _urls(table)
    return TenantSettings(
        name=name,
        region=table.region,
        api_url=urls.api,
        login_url=urls.login,
        webmessaging_url=urls.webmessaging,
        cdn_url=urls.cdn,
        grant=table.grant,
        client_id=table.client_id,
        client_secret=table.client_secret,
        scope=table.scope,
        resource_server=table.resource_server,
        token_parameters=MappingProxyType(dict(table.token_parameters)),
        token_headers=MappingProxyType(dict(table.token_headers)),
        org_id=table.org_id,
        refresh_ahead=table.refresh_ahead,
        keep_warm=table.keep_warm,
        authorization=table.authorization,
        allow=table.allow,
        deny=table.deny,
    )


def _urls(table: TenantTable) -> regions.RegionUrls:
    if table.region is not None:
        base = regions.urls_of(table.region)
    else:
        assert table.api_url is not None
        assert table.login_url is not None
        base = regions.RegionUrls(table.api_url, table.login_url, webmessaging=table.api_url, cdn=table.api_url)
    return regions.RegionUrls(
        api=table.api_url or base.api,
        login=table.login_url or base.login,
        webmessaging=table.webmessaging_url or base.webmessaging,
        cdn=table.cdn_url or base.cdn,
    )

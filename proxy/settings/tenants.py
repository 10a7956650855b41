"""From a tenant's table to a tenant: ``[defaults]`` applied, the region's URLs filled in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from proxy.core import regions
from proxy.core.grants import SigningKey
from proxy.core.lineage import digest
from proxy.settings.model import TenantSettings, TenantTable
from proxy.settings.problems import quoted

URLS = ("api_url", "login_url", "webmessaging_url", "cdn_url")

_MAKE_A_TOKEN = (
    "login_url", "client_id", "client_secret", "client_auth", "fallback_grant", "signing_key", "assertion", "subject",
    "audience", "scope", "resource_server", "token_parameters", "token_headers", "org_id",
)  # fmt: skip
"""Of a tenant's settings, beside grant and refresh token; ``core.grants.Client.key`` is made of the same."""


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
    if not {"grant", "client_auth"} & set(broken):
        found += [(key, message) for key, message in _unproven(table) if key not in broken]
    return found + _twice(table)


def _unproven(table: TenantTable) -> Iterator[tuple[str, str]]:
    """What the client authentication and the grant need, and the table does not have."""
    if table.client_auth.startswith("client_secret") and table.client_secret is None:
        yield "client_secret", 'expected the OAuth client\'s secret, e.g. { env = "ACME_SECRET" }'
    if table.client_auth == "none" and "client_credentials" in _grants(table):
        # RFC 6749 4.4
        yield "client_auth", "expected client authentication: the grant client_credentials rests on nothing else"
    if "saml2_bearer" in _grants(table) and table.assertion is None:
        yield "assertion", 'expected a SAML assertion for this grant, e.g. { file = "acme.saml" }'
    if _signs(table) and table.private_key is None:
        needs = "grant jwt_bearer needs it, or an assertion"
        needs = "client_auth private_key_jwt needs it" if table.client_auth == "private_key_jwt" else needs
        yield "private_key", f'expected the client\'s private key, e.g. {{ file = "acme.pem" }}: {needs}'
    if _signs_grant(table) and table.subject is None:
        yield "subject", "expected whom the token is for: grant jwt_bearer needs it, or an assertion"
    if table.token_pool_size > 1 and table.grant != "client_credentials":
        yield "token_pool_size", f"expected 1 with grant {table.grant}: what it asks with is good for one token"
    key, algorithm = table.private_key, table.signing_algorithm
    if key is not None and algorithm is not None and algorithm not in key.algorithms:
        yield "signing_algorithm", f"expected {' or '.join(key.algorithms)} with this key (got {quoted(algorithm)})"


def _grants(table: TenantTable) -> set[str]:
    """The grant, and the one that is there for when a refresh token is refused."""
    grants: set[str] = {table.grant}
    if table.grant == "refresh_token" and table.fallback_grant is not None:
        grants.add(table.fallback_grant)
    return grants


def _signs_grant(table: TenantTable) -> bool:
    return "jwt_bearer" in _grants(table) and table.assertion is None


def _takes_assertion(table: TenantTable) -> bool:
    return bool({"saml2_bearer", "jwt_bearer"} & _grants(table))


def _signs(table: TenantTable) -> bool:
    return table.client_auth == "private_key_jwt" or _signs_grant(table)


def unlike_twins(tables: Mapping[str, TenantTable]) -> Iterator[tuple[str, str, list[str]]]:
    """Tenants with the refresh token of one before them, which would get other tokens with it: the tenant, the one
    before, and the keys in which they differ. A refresh token is used once, so that only one of them could have it;
    those that differ in nothing have their tokens in common.

    :param tables: merged, and lacking nothing
    """
    first: dict[str, str] = {}
    for name, table in tables.items():
        if table.grant != "refresh_token" or table.refresh_token is None:
            continue
        before = first.setdefault(digest(table.refresh_token), name)
        if before != name:
            one, other = resolved(before, tables[before]), resolved(name, table)
            if differing := [key for key in _MAKE_A_TOKEN if getattr(one, key) != getattr(other, key)]:
                yield name, before, differing


def idle(table: TenantTable, own: Collection[str], broken: Collection[str]) -> list[tuple[str, str]]:
    """The tenant's own keys that would do nothing beside its others, with messages.

    :param table: merged
    :param own: the keys that do not come from ``[defaults]``
    :param broken: keys that are there but were refused already
    """
    if {"grant", "client_auth", "assertion"} & set(broken):
        return []
    signing = "expected only with client_auth private_key_jwt, or with grant jwt_bearer and no assertion"
    refreshes = table.grant == "refresh_token"
    needed = {
        "refresh_token": (refreshes, "expected only with grant refresh_token"),
        "fallback_grant": (refreshes, "expected only with grant refresh_token"),
        "client_secret": (
            table.client_auth.startswith("client_secret"),
            "expected only with client_auth client_secret_…",
        ),
        "private_key": (_signs(table), signing),
        "key_id": (_signs(table), signing),
        "signing_algorithm": (_signs(table), signing),
        "audience": (_signs(table), signing),
        "assertion": (_takes_assertion(table), "expected only with grant saml2_bearer or jwt_bearer"),
        "subject": (_signs_grant(table), "expected only with grant jwt_bearer and no assertion"),
    }
    return [(key, message) for key, (used, message) in needed.items() if key in own and not used]


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
    signs = _signs(table)
    urls = _urls(table)
    return TenantSettings(
        name=name,
        region=table.region,
        api_url=urls.api,
        login_url=urls.login,
        webmessaging_url=urls.webmessaging,
        cdn_url=urls.cdn,
        grant=table.grant,
        refresh_token=table.refresh_token if table.grant == "refresh_token" else None,
        fallback_grant=table.fallback_grant if table.grant == "refresh_token" else None,
        redirect_uri=table.redirect_uri,
        client_id=table.client_id,
        client_auth=table.client_auth,
        client_secret=table.client_secret if table.client_auth.startswith("client_secret") else None,
        signing_key=_signing_key(table) if signs else None,
        assertion=table.assertion if _takes_assertion(table) else None,
        subject=table.subject if _signs_grant(table) else None,
        audience=table.audience if signs else None,
        scope=table.scope,
        resource_server=table.resource_server,
        token_parameters=MappingProxyType(dict(table.token_parameters)),
        token_headers=MappingProxyType(dict(table.token_headers)),
        org_id=table.org_id,
        refresh_ahead=table.refresh_ahead,
        token_pool_size=table.token_pool_size,
        keep_warm=table.keep_warm,
        authorization=table.authorization,
        guest_refresh=table.guest_refresh,
        allow=table.allow,
        deny=table.deny,
        policy=table.policy,
    )


def _signing_key(table: TenantTable) -> SigningKey:
    assert table.private_key is not None
    return SigningKey(table.private_key.pem, table.signing_algorithm or table.private_key.algorithms[0], table.key_id)


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

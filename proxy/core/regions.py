"""The regions of Genesys Cloud: an org lives in one, and each has hosts of its own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from proxy.core.urls import BaseUrl, parse_host

REGIONS: Mapping[str, str] = MappingProxyType(
    {
        "us-east-1": "mypurecloud.com",
        "us-east-2": "use2.us-gov-pure.cloud",
        "us-west-2": "usw2.pure.cloud",
        "ca-central-1": "cac1.pure.cloud",
        "mx-central-1": "mxc1.pure.cloud",
        "sa-east-1": "sae1.pure.cloud",
        "eu-central-1": "mypurecloud.de",
        "eu-central-2": "euc2.pure.cloud",
        "eu-west-1": "mypurecloud.ie",
        "eu-west-2": "euw2.pure.cloud",
        "eusc-de-east-1": "edee1.eusc-pure.cloud",
        "me-central-1": "mec1.pure.cloud",
        "ap-south-1": "aps1.pure.cloud",
        "ap-southeast-1": "apse1.pure.cloud",
        "ap-southeast-2": "mypurecloud.com.au",
        "ap-northeast-1": "mypurecloud.jp",
        "ap-northeast-2": "apne2.pure.cloud",
        "ap-northeast-3": "apne3.pure.cloud",
    }
)
"""Domain by alias. The list grows, so every domain is accepted; only an alias must be known."""

_DOMAINS = frozenset(REGIONS.values())
_SERVICES = ("api.", "login.", "apps.", "webmessaging.", "api-cdn.", "streaming.")


@dataclass(frozen=True, slots=True)
class RegionUrls:
    """The hosts of one region that a tenant's traffic goes to."""

    api: BaseUrl
    login: BaseUrl
    webmessaging: BaseUrl
    cdn: BaseUrl


def domain_of(region: str) -> str:
    """The domain that an alias or a domain names, in lower case.

    :raises ValueError: an alias that is not known, with the nearest one, or no domain at all
    """
    name = region.lower()
    if name in REGIONS:
        return REGIONS[name]
    if "." not in name:
        raise ValueError(_unknown(name))
    for service in _SERVICES:
        domain = name.removeprefix(service)
        if domain != name and domain in _DOMAINS:
            raise ValueError(f"expected the region's domain, {domain}, without a host before it")
    try:
        domain = parse_host(name)
    except ValueError:
        domain = ""
    # A domain takes a host name before it, which an address does not.
    if "." not in domain or ":" in domain or domain.replace(".", "").isdigit():
        raise ValueError("expected a region such as eu-central-1 or a domain such as mypurecloud.de")
    return domain


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.replace("_", "-"), REGIONS, n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    return f"expected a domain or one of {', '.join(REGIONS)}{hint}"


@lru_cache(maxsize=64)
def urls_of(domain: str) -> RegionUrls:
    """The URLs of a region by its domain."""

    def at(service: str) -> BaseUrl:
        return BaseUrl("https", f"{service}.{domain}", 443)

    return RegionUrls(at("api"), at("login"), at("webmessaging"), at("api-cdn"))

"""The table of regions, and what an operator may write for one."""

from __future__ import annotations

import pytest

from proxy.core.regions import REGIONS, domain_of, urls_of


def test_every_alias_gives_its_domain() -> None:
    assert len(REGIONS) == len(set(REGIONS.values())) == 18
    assert {alias: domain_of(alias) for alias in REGIONS} == REGIONS


def test_every_known_domain_is_a_region() -> None:
    assert [domain_of(domain) for domain in REGIONS.values()] == list(REGIONS.values())


@pytest.mark.parametrize(
    ("alias", "domain"),
    [
        ("us-east-1", "mypurecloud.com"),
        ("eu-central-1", "mypurecloud.de"),
        ("ap-southeast-2", "mypurecloud.com.au"),
        ("us-east-2", "use2.us-gov-pure.cloud"),
        ("eusc-de-east-1", "edee1.eusc-pure.cloud"),
        ("EU-Central-1", "mypurecloud.de"),
        ("MyPureCloud.DE", "mypurecloud.de"),
        ("moon1.pure.cloud", "moon1.pure.cloud"),
    ],
)
def test_an_alias_or_any_domain_is_a_region(alias: str, domain: str) -> None:
    assert domain_of(alias) == domain


def test_an_unknown_alias_is_answered_with_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"us-east-1, .*; the nearest is eu-central-1$"):
        domain_of("eu_central_1")


def test_an_alias_that_resembles_none_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"us-east-1, .*ap-northeast-3$"):
        domain_of("zzz")


@pytest.mark.parametrize("host", ["api.mypurecloud.de", "login.usw2.pure.cloud", "apps.mypurecloud.com.au"])
def test_a_host_of_a_region_is_answered_with_its_domain(host: str) -> None:
    with pytest.raises(ValueError, match=f"region's domain, {host.partition('.')[2]},"):
        domain_of(host)


@pytest.mark.parametrize(
    "region", ["", ".", "https://mypurecloud.de", "mypurecloud.de/x", "a..b", "10.0.0.1", "::1", "::ffff:1.2.3.4"]
)
def test_what_is_neither_alias_nor_domain_is_refused(region: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        domain_of(region)


def test_a_region_has_four_hosts() -> None:
    urls = urls_of("mypurecloud.de")
    assert [str(url) for url in (urls.api, urls.login, urls.webmessaging, urls.cdn)] == [
        "https://api.mypurecloud.de",
        "https://login.mypurecloud.de",
        "https://webmessaging.mypurecloud.de",
        "https://api-cdn.mypurecloud.de",
    ]

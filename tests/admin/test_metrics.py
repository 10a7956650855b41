"""The metrics: every name and label, what they count, and how many series thousands of tenants make."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from prometheus_client.samples import Sample

from proxy.admin.metrics import OWN_HISTOGRAMS, Metrics
from proxy.core.report import DURATION_BUCKETS, ProxyReport, Tally, TenantReport
from tests.admin.fakes import busy, dead, report, tenant

_SERIES = len(DURATION_BUCKETS) + 3  # a last bucket, count and sum
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_DURATION = "genesys_auth_proxy_request_duration_seconds"


def _text(shown: ProxyReport, metrics: Metrics | None = None, accept: str = _OPENMETRICS) -> str:
    return b"".join((metrics or Metrics()).text(shown, accept)[1]).decode()


def _families(shown: ProxyReport, metrics: Metrics | None = None) -> dict[str, Metric]:
    families = openmetrics(_text(shown, metrics))  # type: ignore[no-untyped-call]
    return {family.name: family for family in families}


def _values(family: Metric) -> dict[tuple[str, ...], float]:
    """By label values, in the order of the labels' names."""
    return {tuple(value for _, value in sorted(s.labels.items())): s.value for s in family.samples}


def _counts(shown: ProxyReport, metrics: Metrics) -> dict[str, float]:
    """Observations per tenant label of the request durations."""
    family = _families(shown, metrics)[_DURATION]
    return {s.labels["tenant"]: s.value for s in family.samples if s.name == f"{_DURATION}_count"}


def _observed(times: int) -> Tally:
    tally = Tally()
    for _ in range(times):
        tally.count(200, 0.1)
    return tally


def test_every_metric_has_its_name_type_and_labels() -> None:
    found = {
        name: (family.type, family.unit, {frozenset(sample.labels) for sample in family.samples})
        for name, family in _families(report(tenant(tally=busy()))).items()
        if name.startswith("genesys_auth_proxy_")
    }
    bucket, whole = frozenset({"tenant", "le"}), frozenset({"tenant"})
    assert found == {
        "genesys_auth_proxy_build": ("info", "", {frozenset({"version", "python"})}),
        "genesys_auth_proxy_connections": ("gauge", "", {frozenset({"side"})}),
        "genesys_auth_proxy_requests": ("counter", "", {frozenset({"tenant", "code"})}),
        "genesys_auth_proxy_caller_requests": ("counter", "", {frozenset({"caller", "code"})}),
        "genesys_auth_proxy_workers": ("gauge", "", {frozenset()}),
        "genesys_auth_proxy_worker_starts": ("counter", "", {frozenset()}),
        "genesys_auth_proxy_rate_limited": ("counter", "", {frozenset({"tenant", "outcome"})}),
        "genesys_auth_proxy_policy_observed": ("counter", "", {whole}),
        "genesys_auth_proxy_requests_under_way": ("gauge", "", {whole}),
        "genesys_auth_proxy_websockets": ("gauge", "", {whole}),
        "genesys_auth_proxy_websocket_bytes": ("counter", "", {frozenset({"tenant", "direction"})}),
        "genesys_auth_proxy_replays": ("counter", "", {frozenset({"tenant", "outcome"})}),
        "genesys_auth_proxy_token_requests": ("counter", "", {frozenset({"tenant", "grant", "outcome"})}),
        "genesys_auth_proxy_token_expiry_timestamp_seconds": ("gauge", "seconds", {whole}),
        "genesys_auth_proxy_upstream_rate_limit_remaining": ("gauge", "", {whole}),
        "genesys_auth_proxy_token_refresh_duration_seconds": ("histogram", "seconds", {bucket, whole}),
        "genesys_auth_proxy_request_duration_seconds": ("histogram", "seconds", {bucket, whole}),
    }


def test_counters_are_exposed_with_the_suffix_total() -> None:
    lines = _text(report(tenant(tally=busy()))).splitlines()
    assert 'genesys_auth_proxy_requests_total{code="200",tenant="acme"} 2.0' in lines
    assert 'genesys_auth_proxy_replays_total{outcome="accepted",tenant="acme"} 1.0' in lines
    labels = 'grant="refresh_token",outcome="invalid_grant",tenant="acme"'
    assert f"genesys_auth_proxy_token_requests_total{{{labels}}} 1.0" in lines


def test_the_values_are_the_reports() -> None:
    families = _families(report(tenant(tally=busy())))
    assert _values(families["genesys_auth_proxy_requests"]) == {
        ("403", ""): 4,
        ("101", "acme"): 1,
        ("200", "acme"): 2,
        ("401", "acme"): 1,
    }
    assert _values(families["genesys_auth_proxy_caller_requests"]) == {("web", "200"): 5, ("web", "503"): 1}
    assert _values(families["genesys_auth_proxy_policy_observed"]) == {("acme",): 2}
    assert _values(families["genesys_auth_proxy_workers"]) == {(): 1}
    assert _values(families["genesys_auth_proxy_worker_starts"]) == {(): 4}
    assert _values(families["genesys_auth_proxy_rate_limited"]) == {("passed_on", "acme"): 4, ("waited", "acme"): 5}
    assert _values(families["genesys_auth_proxy_requests_under_way"]) == {("acme",): 3}
    assert _values(families["genesys_auth_proxy_websockets"]) == {("acme",): 2}
    bytes_ = {("received", "acme"): 11, ("sent", "acme"): 12}
    assert _values(families["genesys_auth_proxy_websocket_bytes"]) == bytes_
    assert _values(families["genesys_auth_proxy_connections"]) == {("client",): 3, ("upstream",): 2}
    assert _values(families["genesys_auth_proxy_token_expiry_timestamp_seconds"]) == {("acme",): 1_800_003_000}
    assert _values(families["genesys_auth_proxy_upstream_rate_limit_remaining"]) == {("acme",): 291}
    assert families["genesys_auth_proxy_build"].samples[0].labels["version"] == "1.2.3"


def test_buckets_are_cumulative_and_end_with_all() -> None:
    family = _families(report(tenant(tally=busy())))[_DURATION]
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert (buckets["0.005"], buckets["0.1"], buckets["0.25"], buckets["15.0"], buckets["+Inf"]) == (
        1,
        1,
        3,
        3,
        4,
    )
    rest = {s.name: s.value for s in family.samples if not s.name.endswith("_bucket")}
    assert rest == {f"{_DURATION}_count": 4, f"{_DURATION}_sum": pytest.approx(20.452)}


def test_a_tenant_without_a_token_or_a_rate_limit_has_no_such_gauge() -> None:
    families = _families(report(dead()))
    assert not families["genesys_auth_proxy_token_expiry_timestamp_seconds"].samples
    assert not families["genesys_auth_proxy_upstream_rate_limit_remaining"].samples


def test_without_tenants_every_name_is_still_told() -> None:
    assert _families(report()).keys() == _families(report(tenant(tally=busy()))).keys()


def test_the_process_is_measured_as_well() -> None:
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= _families(report()).keys()


def test_a_client_that_asks_for_nothing_gets_prometheus_text() -> None:
    content_type, pieces = Metrics().text(report(tenant(tally=busy())), "")
    text = b"".join(pieces).decode()
    assert content_type.startswith("text/plain")
    assert "# EOF" not in text
    samples = {sample.name for family in plain(text) for sample in family.samples}
    assert {
        "genesys_auth_proxy_requests_total",
        f"{_DURATION}_bucket",
        "genesys_auth_proxy_build_info",
    } <= samples


def test_openmetrics_ends_with_its_mark_once() -> None:
    text = _text(report(tenant()))
    assert text.endswith("# EOF\n")
    assert text.count("# EOF") == 1


def test_a_tenants_odd_name_stays_one_label() -> None:
    name = 'a"b\\c\nd# HELP }'
    family = _families(report(tenant(name, tally=busy())))["genesys_auth_proxy_token_expiry_timestamp_seconds"]
    assert [sample.labels for sample in family.samples] == [{"tenant": name}]


@pytest.mark.parametrize("accept", [_OPENMETRICS, "text/plain"])
def test_each_family_has_one_head_however_many_tenants(accept: str) -> None:
    text = _text(report(*(tenant(f"t{number}", tally=busy()) for number in range(101))), accept=accept)
    heads = Counter(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(heads.values()) == {1}
    assert text.count('code="200",tenant=') == 101


def test_histograms_are_bounded_and_the_rest_summed_without_a_tenant() -> None:
    tenants = [tenant(f"t{number}", tally=_observed(1)) for number in range(10)]
    counts = _counts(report(*tenants), Metrics(own_histograms=3))
    assert counts == {"t0": 1, "t1": 1, "t2": 1, "": 7}


def test_at_the_bound_there_is_no_rest() -> None:
    tenants = [tenant(f"t{number}", tally=_observed(1)) for number in range(3)]
    assert "" not in _counts(report(*tenants), Metrics(own_histograms=3))
    assert _counts(report(*tenants, tenant("t3")), Metrics(own_histograms=3))[""] == 0


def test_the_rest_counts_what_came_since_once() -> None:
    metrics, tally = Metrics(own_histograms=0), _observed(2)
    shown = report(tenant(tally=tally), tenant("beta", tally=_observed(1)))
    assert _counts(shown, metrics) == {"": 3}
    assert _counts(shown, metrics) == {"": 3}
    tally.count(200, 3.0)
    family = _families(shown, metrics)[_DURATION]
    samples: dict[str, Sample] = {s.name + s.labels.get("le", ""): s for s in family.samples}
    assert samples[f"{_DURATION}_count"].value == 4
    assert samples[f"{_DURATION}_sum"].value == pytest.approx(3.3)
    assert (samples[f"{_DURATION}_bucket2.5"].value, samples[f"{_DURATION}_bucket5.0"].value) == (3, 4)


def test_the_rest_never_falls_when_tenants_go_or_begin_anew() -> None:
    metrics = Metrics(own_histograms=0)
    acme, beta = tenant("acme", tally=_observed(5)), tenant("beta", tally=_observed(2))
    assert _counts(report(acme, beta), metrics) == {"": 7}
    assert _counts(report(beta), metrics) == {"": 7}
    assert _counts(report(replace(acme, tally=_observed(1)), beta), metrics) == {"": 8}
    assert _counts(report(replace(acme, tally=_observed(1)), replace(beta, tally=_observed(1))), metrics) == {"": 9}
    assert _counts(report(), metrics) == {"": 9}


def test_a_tenant_that_comes_back_counts_as_a_new_one() -> None:
    metrics = Metrics(own_histograms=1)
    first, second = tenant("first"), tenant("second", tally=_observed(2))
    assert _counts(report(first, second), metrics) == {"first": 0, "": 2}
    assert _counts(report(first), metrics) == {"first": 0, "": 2}
    assert _counts(report(first, replace(second, tally=_observed(2))), metrics) == {"first": 0, "": 4}
    assert _counts(report(), metrics) == {"": 4}
    assert _counts(report(second), metrics) == {"second": 2, "": 4}


def test_a_tenant_keeps_its_side_of_the_bound_when_others_come_and_go() -> None:
    metrics = Metrics(own_histograms=2)
    a, b, c, new = (tenant(name, tally=_observed(1)) for name in ("a", "b", "c", "new"))
    assert _counts(report(a, b, c), metrics) == {"a": 1, "b": 1, "": 1}
    assert _counts(report(c, b, a), metrics) == {"a": 1, "b": 1, "": 1}
    assert _counts(report(c, a), metrics) == {"a": 1, "": 1}
    assert _counts(report(c, new, a), metrics) == {"new": 1, "a": 1, "": 1}


def _once() -> Tally:
    tally = Tally(token_requests={("jwt_bearer", "ok"): 1})
    tally.count(200, 0.1)
    return tally


def test_ten_thousand_tenants_make_a_bounded_number_of_series() -> None:
    def one(number: int) -> TenantReport:
        return tenant(f"t{number}", tally=_once())

    series: Counter[str] = Counter()
    for metric in Metrics().slices(report(*(one(number) for number in range(10_000)))):
        series[metric.name] += len(metric.samples)
    own = {name: count for name, count in series.items() if name.startswith("genesys_auth_proxy_")}
    assert own == {
        "genesys_auth_proxy_build": 1,
        "genesys_auth_proxy_connections": 2,
        "genesys_auth_proxy_requests": 10_001,
        "genesys_auth_proxy_caller_requests": 2,
        "genesys_auth_proxy_workers": 1,
        "genesys_auth_proxy_worker_starts": 1,
        "genesys_auth_proxy_rate_limited": 0,
        "genesys_auth_proxy_policy_observed": 0,
        "genesys_auth_proxy_requests_under_way": 10_000,
        "genesys_auth_proxy_websockets": 0,
        "genesys_auth_proxy_websocket_bytes": 0,
        "genesys_auth_proxy_replays": 0,
        "genesys_auth_proxy_token_requests": 10_000,
        "genesys_auth_proxy_token_expiry_timestamp_seconds": 10_000,
        "genesys_auth_proxy_upstream_rate_limit_remaining": 0,
        "genesys_auth_proxy_token_refresh_duration_seconds": (OWN_HISTOGRAMS + 1) * _SERIES,
        "genesys_auth_proxy_request_duration_seconds": (OWN_HISTOGRAMS + 1) * _SERIES,
    }

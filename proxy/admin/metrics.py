"""``/metrics``: the report as OpenMetrics or Prometheus text, made per scrape; the data plane pays nothing.

How many series there are, with T tenants: counters and gauges are per tenant without a bound, because "which
of my customers' credentials died" is what they are for; that is some 5 to 10 series a tenant, 100,000 for
10,000 of them. A histogram costs 15 series a tenant and there are two, so only ``OWN_HISTOGRAMS`` tenants
have their own. The others are summed under ``tenant=""``, which to Prometheus is a series without the label
and can't be any tenant's name. So ``sum by (le) (rate(…))`` is always the whole proxy's latency, and
``{tenant!=""}`` are single tenants.

The tenants that have their own are the first in the report's order, so an operator chooses them by writing
them first. The choice then stays until the program restarts: a tenant that moved into or out of the sum would
look like a counter reset or a burst. For the same reason the sum keeps what tenants since removed added.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from proxy.core.report import DURATION_BUCKETS, Histogram, ProxyReport, Tally, TenantReport

OWN_HISTOGRAMS = 200
"""Tenants with histograms of their own, 30 series each: 6,000 is what one target may well cost Prometheus."""

_PREFIX = "genesys_auth_proxy_"
_BOUNDS = (*(str(bound) for bound in DURATION_BUCKETS), "+Inf")

_SLICE = 20
"""Tenants rendered at one go: some 3 to 5 ms of work."""

_HEAD = re.compile(rb"(?:# .*\n)*")
_EOF = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class _PerTenant:
    """A family with any number of samples a tenant, each a pair of label values and value."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[TenantReport], Iterable[tuple[Sequence[str], float]]]
    unit: str = ""

    def slice(self, tenants: Iterable[TenantReport]) -> Metric:
        metric = self.kind(_PREFIX + self.name, self.help, labels=self.labels, unit=self.unit)
        for tenant in tenants:
            for labels, value in self.samples(tenant):
                metric.add_metric(labels, value)
        return metric


def _requests(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    return (((tenant.name, str(code)), count) for code, count in tenant.tally.requests.items())


def _replays(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    return (((tenant.name, outcome), count) for outcome, count in tenant.tally.replays.items())


def _observed(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    if tenant.tally.observed:
        yield (tenant.name,), tenant.tally.observed


def _under_way(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    if tenant.tally.requests or tenant.tally.at_once:
        yield (tenant.name,), tenant.tally.at_once


def _websockets(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    if tenant.tally.upgraded:
        yield (tenant.name,), tenant.tally.websockets


def _websocket_bytes(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    if tenant.tally.upgraded:
        yield (tenant.name, "received"), tenant.tally.websocket_received
        yield (tenant.name, "sent"), tenant.tally.websocket_sent


def _limited(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    return (((tenant.name, outcome), count) for outcome, count in tenant.tally.limited.items())


def _token_requests(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    return (((tenant.name, *key), count) for key, count in tenant.tally.token_requests.items())


def _expiry(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    if tenant.expires_at is not None:
        yield (tenant.name,), tenant.expires_at


def _rate_limit(tenant: TenantReport) -> Iterator[tuple[Sequence[str], float]]:
    if tenant.headroom is not None:
        yield (tenant.name,), tenant.headroom.remaining


_REQUESTS = _PerTenant(
    CounterMetricFamily,
    "requests",
    "Answers sent to clients, by status code, the proxy's own and the upstream's; without a tenant: refused before.",
    ("tenant", "code"),
    _requests,
)
_FAMILIES = (
    _REQUESTS,
    _PerTenant(
        CounterMetricFamily,
        "replays",
        "Requests sent once more with a new token after a 401, or not, by outcome.",
        ("tenant", "outcome"),
        _replays,
    ),
    _PerTenant(
        CounterMetricFamily,
        "policy_observed",
        "Requests that passed although the tenant's policy would refuse them, because it only observes.",
        ("tenant",),
        _observed,
    ),
    _PerTenant(
        GaugeMetricFamily,
        "requests_under_way",
        "Requests not answered yet; as many as limits.max_requests_per_tenant are let in.",
        ("tenant",),
        _under_way,
    ),
    _PerTenant(GaugeMetricFamily, "websockets", "WebSockets open now.", ("tenant",), _websockets),
    _PerTenant(
        CounterMetricFamily,
        "websocket_bytes",
        "Bytes on WebSockets, frames and all, received from clients and sent to them.",
        ("tenant", "direction"),
        _websocket_bytes,
    ),
    _PerTenant(
        CounterMetricFamily,
        "rate_limited",
        "Answers 429 of the API, by what became of them: passed_on, or sent again: waited, other_token.",
        ("tenant", "outcome"),
        _limited,
    ),
    _PerTenant(
        CounterMetricFamily,
        "token_requests",
        "Requests to the token endpoint; the outcome is ok or the error code.",
        ("tenant", "grant", "outcome"),
        _token_requests,
    ),
    _PerTenant(
        GaugeMetricFamily,
        "token_expiry_timestamp_seconds",
        "Unix time at which the tenant's token expires; absent without a token.",
        ("tenant",),
        _expiry,
        "seconds",
    ),
    _PerTenant(
        GaugeMetricFamily,
        "upstream_rate_limit_remaining",
        "Requests left in the token's rate limit, as the upstream said last.",
        ("tenant",),
        _rate_limit,
    ),
)


class _Rest:
    """The sum of one histogram over the tenants that have no series of their own; it never falls."""

    def __init__(self) -> None:
        self.sum = Histogram()
        self._seen: dict[str, Histogram] = {}

    def add(self, name: str, now: Histogram) -> None:
        """Adds what came since the last call. A histogram that fell began anew, and counts whole."""
        before = self._seen.get(name)
        if before is not None and before.counts == now.counts:
            return
        if before is None or any(was > count for was, count in zip(before.counts, now.counts, strict=True)):
            before = Histogram()
        for bucket, (was, count) in enumerate(zip(before.counts, now.counts, strict=True)):
            self.sum.counts[bucket] += count - was
        self.sum.total += max(0.0, now.total - before.total)
        self._seen[name] = Histogram(list(now.counts), now.total)

    def forget(self, gone: Iterable[str]) -> None:
        """Tenants that are no more; what they added stays."""
        for name in gone:
            self._seen.pop(name, None)


@dataclass(frozen=True, slots=True)
class _Durations:
    """A histogram family, and the sum of it over tenants without series of their own."""

    name: str
    help: str
    of: Callable[[Tally], Histogram]
    rest: _Rest = field(default_factory=_Rest)

    def family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(_PREFIX + self.name, self.help, labels=("tenant",), unit="seconds")


class Metrics:
    """Renders reports. One scrape at a time: it remembers which tenants' histograms it sums."""

    def __init__(self, own_histograms: int = OWN_HISTOGRAMS) -> None:
        self._limit = own_histograms
        self._own: set[str] = set()
        self._summed: set[str] = set()
        self._process = ProcessCollector(registry=None)
        self._durations = (
            _Durations(
                "token_refresh_duration_seconds",
                "From asking the token endpoint to its whole answer.",
                lambda tally: tally.refreshes,
            ),
            _Durations(
                "request_duration_seconds",
                "From the request's head to the answer's last byte; of a WebSocket, to its opening.",
                lambda tally: tally.durations,
            ),
        )

    def text(self, report: ProxyReport, accept: str) -> tuple[str, Iterator[bytes]]:
        """Content type and text, in pieces of a few milliseconds' work each, in what ``accept`` prefers."""
        encode, content_type = choose_encoder(accept)
        return content_type, self._encoded(report, encode)

    def slices(self, report: ProxyReport) -> Iterator[Metric]:
        """All metrics; successive ones of the same name are one family."""
        yield _build(report)
        yield _connections(report)
        yield _callers(report)
        yield from _workers(report)
        yield _refused(report)
        for family in _FAMILIES:
            for tenants in _sliced(report.tenants):
                yield family.slice(tenants)
        self._choose(report)
        for durations in self._durations:
            yield from self._histograms(report, durations)
        yield from self._process.collect()

    def _encoded(self, report: ProxyReport, encode: Callable[[Collector], bytes]) -> Iterator[bytes]:
        name, end = None, b""
        for metric in self.slices(report):
            text = encode(_One(metric))
            if text.endswith(_EOF):
                text, end = text.removesuffix(_EOF), _EOF
            if metric.name == name:
                head = _HEAD.match(text)
                text = text[head.end() if head else 0 :]
            name = metric.name
            yield text
        yield end

    def _choose(self, report: ProxyReport) -> None:
        """Settles which tenants have histograms of their own; see the module's docstring."""
        present = {tenant.name for tenant in report.tenants}
        for durations in self._durations:
            durations.rest.forget(self._summed - present)
        self._own &= present
        self._summed &= present
        for tenant in report.tenants:
            if tenant.name not in self._own and tenant.name not in self._summed:
                (self._own if len(self._own) < self._limit else self._summed).add(tenant.name)

    def _histograms(self, report: ProxyReport, durations: _Durations) -> Iterator[Metric]:
        for tenants in _sliced(report.tenants):
            metric = durations.family()
            for tenant in tenants:
                histogram = durations.of(tenant.tally)
                if tenant.name in self._own:
                    metric.add_metric((tenant.name,), *_cumulative(histogram))
                else:
                    durations.rest.add(tenant.name, histogram)
            yield metric
        metric = durations.family()
        if self._summed or any(durations.rest.sum.counts):
            metric.add_metric(("",), *_cumulative(durations.rest.sum))
        yield metric


@dataclass(frozen=True, slots=True)
class _One(Collector):
    """What the library's encoders read."""

    metric: Metric

    def collect(self) -> Iterable[Metric]:
        return [self.metric]


def _build(report: ProxyReport) -> Metric:
    build = {"version": report.version, "python": platform.python_version()}
    return InfoMetricFamily(_PREFIX + "build", "The running program.", value=build)


def _connections(report: ProxyReport) -> Metric:
    metric = GaugeMetricFamily(_PREFIX + "connections", "Open connections.", labels=("side",))
    metric.add_metric(("client",), report.client_connections)
    metric.add_metric(("upstream",), report.upstream_connections)
    return metric


def _callers(report: ProxyReport) -> Metric:
    help_ = "Answers sent to clients that show a caller key, by the key's name, empty for keys without one."
    metric = CounterMetricFamily(_PREFIX + "caller_requests", help_, labels=("caller", "code"))
    for name, tally in report.callers.items():
        for code, count in tally.requests.items():
            metric.add_metric((name, str(code)), count)
    return metric


def _workers(report: ProxyReport) -> Iterator[Metric]:
    """Of several processes on one port; one that does everything has none."""
    serving = GaugeMetricFamily(_PREFIX + "workers", "Worker processes that serve the port now.")
    started = CounterMetricFamily(_PREFIX + "worker_starts", "Worker processes started, the first ones included.")
    if report.workers:
        serving.add_metric((), sum(worker.pid is not None for worker in report.workers))
        started.add_metric((), sum(worker.started for worker in report.workers))
    yield serving
    yield started


def _refused(report: ProxyReport) -> Metric:
    """Answers to requests that belong to no tenant; the tenants' own go into the same family."""
    metric = CounterMetricFamily(_PREFIX + _REQUESTS.name, _REQUESTS.help, labels=_REQUESTS.labels)
    for code, count in report.refused.items():
        metric.add_metric(("", str(code)), count)
    return metric


def _sliced(tenants: Sequence[TenantReport]) -> Iterator[Sequence[TenantReport]]:
    """At least one slice, so that a family without tenants still tells its name."""
    return (tenants[start : start + _SLICE] for start in range(0, max(1, len(tenants)), _SLICE))


def _cumulative(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    return list(zip(_BOUNDS, accumulate(histogram.counts), strict=True)), histogram.total

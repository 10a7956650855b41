"""``/status.json``: everything the report tells, for programs.

The shape, version 1. Members may be added under the same version; none is renamed, removed or given
another meaning. Durations and ages are seconds, times are Unix times, null means there is none::

    version              1
    proxy                version, started_at
    ready                whether /readyz answers 200
    draining             true while the old connections end
    listening            [URL]
    needs_restart        sections of the configuration that have changed and count from the next start on
    connections          client, upstream
    refused              {status code: count} of answers to requests that belong to no tenant
    callers              [{name, requests, under_way, websockets}], of those who show a key, by its name
    workers              [{number, pid, started}] of several processes that serve the port: pid is null while
                         there is none, started says how many there have been; [] for one process
    tenants              [tenant], in the report's order

and a tenant::

    name
    state                fresh, stale, expired or none
    usable               whether its requests can go out now
    expires_at           time at which the token expires
    expires_in           the same as a duration, negative once it has
    lifetime             the token's, when it was new
    refresh_in           until the refresh ahead, negative once it is due
    age                  since the token was asked for
    error                why the last token request failed: an OAuth error code or a word of ours
    diagnosis            the same as a sentence that says what to do
    retry_in             until the next token request is allowed
    rate_limit_remaining requests that are left in the token's current minute
    rate_limit_allowed   requests in a minute
    requests             {status code: count}
    under_way            requests not answered yet
    websockets           open now
    observed             requests that its policy would refuse, if it did not only observe
    replays              {outcome: count}
    token_requests       [{grant, outcome, count}]
    request_duration     count, sum
    refresh_duration     count, sum
    history              [{at, what, outcome}], the last token requests ("token") and refused requests ("replay")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from proxy.admin.health import ready, usable
from proxy.core.report import Histogram, ProxyReport, TenantReport

VERSION = 1


def status(report: ProxyReport) -> Iterator[bytes]:
    """The document in pieces, one a tenant."""
    head = {
        "version": VERSION,
        "proxy": {"version": report.version, "started_at": _rounded(report.started_at)},
        "ready": ready(report),
        "draining": report.draining,
        "listening": list(report.listening),
        "needs_restart": list(report.needs_restart),
        "connections": {"client": report.client_connections, "upstream": report.upstream_connections},
        "refused": _by_code(report.refused),
        "callers": [
            {
                "name": name,
                "requests": _by_code(tally.requests),
                "under_way": tally.at_once,
                "websockets": tally.websockets,
            }
            for name, tally in report.callers.items()
        ],
        "workers": [{"number": each.number, "pid": each.pid, "started": each.started} for each in report.workers],
    }
    yield json.dumps(head).encode().removesuffix(b"}") + b', "tenants": ['
    separator = b"\n"
    for tenant in report.tenants:
        yield separator + json.dumps(tenant_status(tenant)).encode()
        separator = b",\n"
    yield b"\n]}\n"


def tenant_status(tenant: TenantReport) -> dict[str, object]:
    """One tenant's entry, also the answer to its refresh."""
    tally = tenant.tally
    return {
        "name": tenant.name,
        "state": tenant.state.value,
        "usable": usable(tenant),
        "expires_at": _rounded(tenant.expires_at),
        "expires_in": _rounded(tenant.expires_in),
        "lifetime": _rounded(tenant.lifetime),
        "refresh_in": _rounded(tenant.refresh_in),
        "age": _rounded(tenant.age),
        "error": tenant.error,
        "diagnosis": tenant.diagnosis,
        "retry_in": _rounded(tenant.retry_in),
        "rate_limit_remaining": None if tenant.headroom is None else tenant.headroom.remaining,
        "rate_limit_allowed": None if tenant.headroom is None else tenant.headroom.allowed,
        "requests": _by_code(tally.requests),
        "under_way": tally.at_once,
        "websockets": tally.websockets,
        "observed": tally.observed,
        "replays": dict(tally.replays),
        "token_requests": [
            {"grant": grant, "outcome": outcome, "count": count}
            for (grant, outcome), count in tally.token_requests.items()
        ],
        "request_duration": _duration(tally.durations),
        "refresh_duration": _duration(tally.refreshes),
        "history": [{"at": _rounded(it.at), "what": it.what, "outcome": it.outcome} for it in tally.history],
    }


def _by_code(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(code): count for code, count in counts.items()}


def _duration(histogram: Histogram) -> dict[str, object]:
    return {"count": sum(histogram.counts), "sum": _rounded(histogram.total)}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)

"""``/``: the tenants at a glance, as one plain page that needs no script and no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape

from proxy.admin.health import usable
from proxy.core.report import ProxyReport, TenantReport

_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: 0.3em 1em 0.3em 0; border-bottom: 1px solid; vertical-align: top; }
.bad { font-weight: bold; }
"""

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>genesys-auth-proxy</title>
<style>{style}</style>
<h1>genesys-auth-proxy {version}</h1>
<p>{state}</p>
<p><a href="/status.json">status.json</a> · <a href="/metrics">metrics</a> · <a href="/readyz">readyz</a> ·
<a href="/healthz">healthz</a></p>
<table>
<tr><th>Tenant<th>Token<th>Expires in<th>Requests<th>What to do
"""

_ROW = '<tr><td>{name}<td class="{look}">{state}<td>{expires_in}<td>{requests}<td>{diagnosis}\n'

_FOOT = "</table>\n</html>\n"

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
"""The page's Content-Security-Policy: its own style by digest, and nothing else."""


def page(report: ProxyReport) -> Iterator[bytes]:
    """The page in pieces, one a tenant, those without a usable token first."""
    yield _filled(_HEAD, style=_STYLE, version=report.version, state=_state(report))
    for tenant in sorted(report.tenants, key=usable):
        yield _filled(
            _ROW,
            name=tenant.name,
            look="good" if usable(tenant) else "bad",
            state=tenant.state.value,
            expires_in="" if tenant.expires_in is None else f"{tenant.expires_in:,.0f} s",
            requests=f"{sum(tenant.tally.requests.values()):,}",
            diagnosis=_diagnosis(tenant),
        )
    yield _FOOT.encode()


def _state(report: ProxyReport) -> str:
    if report.listening and not report.draining:
        return "Listening on " + ", ".join(report.listening)
    return "Draining" if report.draining else "Not listening yet"


def _diagnosis(tenant: TenantReport) -> str:
    told = tenant.diagnosis or tenant.error or ""
    if tenant.retry_in is None or tenant.retry_in <= 0:
        return told
    return f"{told} Next attempt in {tenant.retry_in:,.0f} s.".lstrip()


def _filled(template: str, **values: str) -> bytes:
    """The template with every value escaped; there is no way around it."""
    return template.format(**{name: escape(value) for name, value in values.items()}).encode()

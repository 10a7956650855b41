"""Readiness: of the whole program, and of one tenant in it."""

from __future__ import annotations

from proxy.admin.answers import error_body
from proxy.core.report import ProxyReport, TenantReport, TokenState
from proxy.errors import UnknownTenant


def usable(tenant: TenantReport) -> bool:
    """Whether requests of this tenant can go out now; a stale token is still good."""
    return tenant.state in (TokenState.FRESH, TokenState.STALE)


def ready(report: ProxyReport) -> bool:
    """Whether new connections are accepted."""
    return bool(report.listening) and not report.draining


def readiness(report: ProxyReport, name: str | None = None) -> tuple[int, dict[str, object]]:
    """Status and body of ``/readyz``: of the whole proxy, or of the tenant ``name``.

    The proxy is ready while it accepts connections and is not draining. One tenant's dead credential does
    not make it unready (the orchestrator would take the others' traffic away too), but shows in ``failing``.
    A tenant is ready when the proxy is and its token is usable. The body::

        ready      whether the answer is 200
        draining   no new connections, the old ones end
        listening  URLs that accept connections
        tenants    name → fresh, stale, expired or none; with a name, that one alone
        failing    name → why the last token request failed, of those whose did

    When not ready, the members of an error come on top.

    :raises UnknownTenant: no tenant has this name
    """
    tenants = [tenant for tenant in report.tenants if name is None or tenant.name == name]
    if name is not None and not tenants:
        raise UnknownTenant("No tenant of this name is configured.")
    body = {
        "ready": True,
        "draining": report.draining,
        "listening": list(report.listening),
        "tenants": {tenant.name: tenant.state.value for tenant in tenants},
        "failing": {tenant.name: tenant.diagnosis or tenant.error for tenant in tenants if tenant.error},
    }
    obstacle = _obstacle(report, tenants[0] if name is not None else None)
    if obstacle is None:
        return 200, body
    code, message = obstacle
    return 503, error_body(503, code, message) | body | {"ready": False}


def _obstacle(report: ProxyReport, tenant: TenantReport | None) -> tuple[str, str] | None:
    if report.draining:
        return "draining", "The proxy is draining."
    if not report.listening:
        return "not.listening", "The proxy does not accept connections yet."
    if tenant is not None and not usable(tenant):
        return "no.token", "The tenant has no usable token."
    return None

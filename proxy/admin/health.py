"""Startup and readiness: of the whole program, and readiness of one tenant in it. Liveness needs no report."""

from __future__ import annotations

from proxy.admin.answers import error_body
from proxy.core.report import ProxyReport, TenantReport, TokenState
from proxy.errors import UnknownTenant


def usable(tenant: TenantReport) -> bool:
    """Whether requests of this tenant can go out now; a stale token is still good."""
    return tenant.state in (TokenState.FRESH, TokenState.STALE)


def troubled(tenant: TenantReport) -> bool:
    """Whether somebody should look: the last token request failed, whether or not the old token still lives."""
    return tenant.error is not None


def ready(report: ProxyReport) -> bool:
    """Whether requests are best sent here: some of them can be answered."""
    return _obstacle(report, None) is None


def ready_for(report: ProxyReport) -> float | None:
    """Seconds until the last token is gone if no token request succeeds from now on, as none has of late.

    None where some tenant's requests succeed, or need none, so that there is no end in sight.
    """
    if not report.tenants or not all(map(troubled, report.tenants)):
        return None
    return max((tenant.expires_in or 0.0 for tenant in report.tenants if usable(tenant)), default=0.0)


def startup(report: ProxyReport) -> tuple[int, dict[str, object]]:
    """Status and body of ``/startupz``: whether the program has come up, once and for all.

    It has when it listens and every tenant that is kept warm has been asked for its first token, so that what
    starts after it finds its tokens there. A tenant that can't have one delays this by no more than its answer.
    """
    if report.started:
        return 200, {"started": True}
    waiting = [tenant.name for tenant in report.tenants if tenant.state is TokenState.NONE and not troubled(tenant)]
    body = error_body(503, "starting", "The first tokens are being asked for.")
    return 503, body | {"started": False, "waiting": waiting}


def readiness(report: ProxyReport, name: str | None = None) -> tuple[int, dict[str, object]]:
    """Status and body of ``/readyz``: of the whole proxy, or of the tenant ``name``.

    The proxy is ready while it accepts connections, is not draining, and can answer something: one tenant's
    dead credential does not make it unready (the orchestrator would take the others' traffic away too), but
    shows in ``failing``; it is unready when every tenant fails and no token is left. A tenant is ready when the
    proxy accepts connections and its token is usable. The body::

        ready      whether the answer is 200
        ready_for  seconds for which tokens last, where every token request fails of late; else null
        draining   no new connections, the old ones end
        listening  URLs that accept connections
        tenants    name → fresh, stale, expired or none; with a name, that one alone
        failing    name → why the last token request failed and what to do, of those whose did
        lasts      name → seconds for which the requests of those still go out

    When not ready, the members of an error come on top.

    :raises UnknownTenant: no tenant has this name
    """
    tenants = [tenant for tenant in report.tenants if name is None or tenant.name == name]
    if name is not None and not tenants:
        raise UnknownTenant("No tenant of this name is configured.")
    lasts = ready_for(report) if name is None else _lasts(tenants[0])
    body: dict[str, object] = {
        "ready": True,
        "ready_for": None if lasts is None else round(lasts, 3),
        "draining": report.draining,
        "listening": list(report.listening),
        "tenants": {tenant.name: tenant.state.value for tenant in tenants},
        "failing": {tenant.name: tenant.diagnosis or tenant.error for tenant in tenants if troubled(tenant)},
        "lasts": {tenant.name: round(_lasts(tenant) or 0.0, 3) for tenant in tenants if troubled(tenant)},
    }
    obstacle = _obstacle(report, tenants[0] if name is not None else None)
    if obstacle is None:
        return 200, body
    code, message = obstacle
    return 503, error_body(503, code, message) | body | {"ready": False}


def _lasts(tenant: TenantReport) -> float | None:
    """Seconds for which a tenant's requests go out though its token requests fail; None where they don't fail."""
    if not troubled(tenant):
        return None
    return max(0.0, tenant.expires_in or 0.0) if usable(tenant) else 0.0


def _obstacle(report: ProxyReport, tenant: TenantReport | None) -> tuple[str, str] | None:
    if report.draining:
        return "draining", "The proxy is draining."
    if not report.listening:
        return "not.listening", "The proxy does not accept connections yet."
    if tenant is not None and not usable(tenant):
        return "no.token", "The tenant has no usable token."
    if tenant is None and ready_for(report) == 0.0:
        return "no.token", "No tenant has a usable token, and none can be had; failing says why."
    return None

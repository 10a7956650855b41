"""What is to be done with a request, decided from its head and the rules alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from proxy.core import access, routing
from proxy.core.access import Caller
from proxy.core.fields import Fields, end_to_end_request, own_bearer
from proxy.core.routing import PLACEHOLDER, Kind, Target
from proxy.errors import (
    BadRequest,
    ContentTooLarge,
    FieldsTooLarge,
    MethodNotAllowed,
    NotAllowed,
    TargetTooLong,
    UnknownTenant,
)
from proxy.forward.exchange import VIA, WEBSOCKET, Exchange
from proxy.forward.tenant import Bounds, Rules, Tenant
from proxy.wire.syntax import CHUNKED, RequestHead
from proxy.wire.upstream import Upstream

log = logging.getLogger(__name__)

_PLACEHOLDER = PLACEHOLDER.encode("ascii")

_NOT_HERE = "CONNECT and TRACE are not for this proxy (RFC 9110 9.3.6, 9.3.8)."

_API = Kind.API
"""Python 3.11 calls a function for each look at an enumeration's member."""

_ANSWERED_HERE = frozenset({Kind.TOKEN, Kind.LOGIN_PAGE, Kind.THIS_HOP})
"""Nothing of the tenant's goes out: placeholders and redirects, and people's own logins with \"fill\"."""


@dataclass(slots=True, eq=False)
class Sender:
    """What a request's fields decide whatever its target is; the same for every request with the same section."""

    rules: Rules
    authority: bytes
    """What the request is for."""
    origin: bytes | None
    """The allowed origin of a page that may read the answer."""
    passing: bytes
    """The lines that go to the upstream, and those that this hop adds."""


@dataclass(slots=True, eq=False)
class Plan:
    """A request's way; the same for every request with the same head, while the rules are the same."""

    rules: Rules
    kind: Kind
    origin: bytes | None
    caller: Caller | None
    tenant: Tenant
    target: Target
    upstream: Upstream
    opening: bytes
    """The head that goes to the upstream, up to where the credential is added."""
    credential: bytes | None
    """The request's own ``Authorization``, where that is kept."""
    inject: bool
    """The tenant's token is added."""
    objection: str | None
    """Why the policy would refuse it, where that only observes."""


def preflight(rules: Rules, exchange: Exchange) -> bytes | None:
    """The section that answers a browser's question whether an allowed page may call; None if it is no such question.

    It names no key and perhaps no tenant, and learns nothing by it but that the origin is allowed.

    :raises NotAllowed: the page's origin is not
    """
    if exchange.method != b"OPTIONS" or b"access-control-request-method" not in exchange.fields:
        return None
    exchange.origin = _sender(rules, exchange, routing.split(exchange.method, exchange.head.target)).origin
    return None if exchange.origin is None else access.preflight(exchange.fields)


def plan(rules: Rules, exchange: Exchange) -> Plan:
    """The plan for a request, remembered with its head; what refuses a request is decided anew each time.

    The exchange learns its origin, caller and tenant on the way, for the answer to a request that is refused.

    :raises ProxyError: it may not pass, or can't
    """
    remembered = exchange.head.memo
    if isinstance(remembered, Plan) and remembered.rules is rules:
        exchange.origin, exchange.caller, exchange.tenant = remembered.origin, remembered.caller, remembered.tenant
        return remembered
    made = exchange.head.memo = _plan(rules, exchange)
    return made


def _plan(rules: Rules, exchange: Exchange) -> Plan:
    head, fields = exchange.head, exchange.fields
    if head.method == b"CONNECT":
        exchange.keep_alive = False  # what follows may be for the tunnel that its client takes for granted
        raise MethodNotAllowed(_NOT_HERE, allowed=access.METHODS)
    _check_size(rules.bounds, head)
    target = routing.split(head.method, head.target)
    sender = _sender(rules, exchange, target)
    exchange.origin = sender.origin
    if head.method == b"TRACE":
        raise MethodNotAllowed(_NOT_HERE, allowed=access.METHODS)
    if target.rest == b"/favicon.ico" and fields.get(b"sec-fetch-dest") == b"image":
        # A browser that shows an answer of ours, a refusal for one, asks for its icon: as our own page, so it passes.
        raise UnknownTenant("There is no icon here.")
    caller = None
    if rules.callers.keys:
        exchange.caller = caller = access.caller_of(rules.callers, fields.get(b"x-proxy-key"), target.key)
    exchange.tenant = tenant = _tenant(rules, fields, target, sender.authority, caller)
    kind = _kind(exchange, target)
    objection = None if head.method in tenant.policy.harmless else _objection(tenant, head, target, kind)
    upstream = _upstream(tenant, kind)
    keeps = kind is not _API or (tenant.fill and own_bearer(fields, _PLACEHOLDER) is not None)
    passing = sender.passing
    if tenant.guests is not None and kind is Kind.GUEST_TOKEN:
        passing = _passing(exchange, rules.tenant_header, b"accept-encoding")  # we read the answer as it passes
    opening = _opening(head.method, upstream, target.rest, passing)
    credential = _own_credential(fields) if keeps else None
    # By position: by name it takes twice as long.
    return Plan(
        rules, kind, sender.origin, caller, tenant, target, upstream, opening, credential, not keeps, objection
    )  # fmt: skip


def _own_credential(fields: Fields) -> bytes | None:
    """The request's own ``Authorization``.

    :raises NotAllowed: it would authenticate the connection, which others' requests share (RFC 4559 5)
    """
    value = fields.get(b"authorization")
    if value is not None and value.partition(b" ")[0].lower() in (b"ntlm", b"negotiate"):
        raise NotAllowed("NTLM and Negotiate authenticate a connection, and this one would be shared with others.")
    return value


def _check_size(bounds: Bounds, head: RequestHead) -> None:
    line = len(head.method) + len(head.target) + len(b"  HTTP/1.1")
    if line > bounds.longest_line:
        raise TargetTooLong(f"The request line exceeds {bounds.longest_line} bytes.")
    if len(head.section.fields.lines) > bounds.most_fields:
        raise FieldsTooLarge(f"More than {bounds.most_fields} field lines.")
    if head.section.length > bounds.longest_body:
        raise ContentTooLarge(f"The request's content exceeds {bounds.longest_body} bytes.")


def _objection(tenant: Tenant, head: RequestHead, target: Target, kind: Kind) -> str | None:
    try:
        access.check_policy(tenant.policy, head.method, target.rest, answered_here=kind in _ANSWERED_HERE)
    except NotAllowed as error:
        if not tenant.policy.observe:
            raise
        asked = (head.method + b" " + target.rest.partition(b"?")[0]).decode("latin-1")
        log.warning(
            "tenant %s: let pass %.200a: %s", tenant.name, asked, error,
            extra={"event": "policy.observed", "tenant": tenant.name},
        )  # fmt: skip
        return str(error)
    return None


def _authority(head: RequestHead, fields: Fields, target: Target) -> bytes:
    """What a request says it is for: the target's authority, or else Host (RFC 9112 3.2.2)."""
    host = fields.get(b"host")
    if host is None:
        if head.minor == 1:
            raise BadRequest("A request has exactly one Host (RFC 9112 3.2).")
        return target.authority or b"localhost"  # no browser speaks HTTP/1.0
    if target.authority is None:
        return host
    access.host_of(host)
    return target.authority


def _sender(rules: Rules, exchange: Exchange, target: Target) -> Sender:
    """What the fields decide, remembered with their section where method and target have no part in it."""
    section, fields = exchange.head.section, exchange.fields
    remembered = section.memo
    if isinstance(remembered, Sender) and remembered.rules is rules and target.authority is None:
        return remembered
    authority = _authority(exchange.head, fields, target)
    origin = access.check_caller(rules.callers, authority, fields.get(b"origin"), fields.get(b"sec-fetch-site"))
    made = Sender(rules, authority, origin, _passing(exchange, rules.tenant_header))
    if target.authority is None and section.upgrade is None and b"max-forwards" not in fields:
        section.memo = made
    return made


def _tenant(rules: Rules, fields: Fields, target: Target, authority: bytes, caller: Caller | None) -> Tenant:
    name = target.tenant
    if name is None:
        name = routing.tenant_of(target, fields.get(rules.tenant_header), authority, rules.default_tenant)
    if name is None:
        raise UnknownTenant(
            "The request names no tenant: use /t/<tenant>/ before the path, the tenant header or <tenant>.localhost."
        )
    if caller is not None:
        access.check_tenant(caller, name)
    tenant = rules.tenants.get(name)
    if tenant is None:
        raise UnknownTenant(f"{access.named('Tenant', name)} is not configured.")
    return tenant


def _kind(exchange: Exchange, target: Target) -> Kind:
    if exchange.method == b"OPTIONS" and exchange.fields.get(b"max-forwards") == b"0":
        return Kind.THIS_HOP
    if target.usual:
        return _API
    return routing.kind_of(target.rest, websocket=exchange.websocket)


def _upstream(tenant: Tenant, kind: Kind) -> Upstream:
    if kind is _API:
        return tenant.api
    match kind:
        case Kind.WEBMESSAGING:
            return tenant.webmessaging
        case Kind.CDN:
            return tenant.cdn
        case Kind.TOKEN | Kind.LOGIN_PAGE:
            return tenant.login
    return tenant.api


def _opening(method: bytes, upstream: Upstream, rest: bytes, passing: bytes) -> bytes:
    """The request line, with the target as it came, and the lines behind it."""
    path = upstream.path if rest != b"*" else b""
    return b"%b %b%b%b%b" % (method, path, rest, upstream.version_and_host, passing)


def _passing(exchange: Exchange, *dropped: bytes) -> bytes:
    """The client's end-to-end lines but for those that are dropped, and what this hop adds."""
    ours, length = VIA[exchange.minor], exchange.head.section.length
    if length == CHUNKED:
        ours += b"Transfer-Encoding: chunked\r\n"
    elif exchange.fields.get(b"content-length") not in (None, b"%d" % length):
        dropped += (b"content-length",)  # the same number, but not to a reader who takes 010 for eight
        ours += b"Content-Length: %d\r\n" % length
    if exchange.minor == 0:
        dropped += (b"expect",)  # an HTTP/1.0 client can't be sent a 100 (RFC 9110 10.1.1)
    if exchange.websocket:
        ours += WEBSOCKET
    elif exchange.wants_trailers:
        ours += b"Connection: TE\r\nTE: trailers\r\n"
    if exchange.method == b"OPTIONS" and (hops := exchange.fields.get(b"max-forwards")) is not None:
        dropped += (b"max-forwards",)
        ours += b"Max-Forwards: %b\r\n" % _one_hop_less(hops)
    return end_to_end_request(exchange.fields, dropped) + ours


def _one_hop_less(hops: bytes) -> bytes:
    return b"%d" % (int(hops) - 1) if hops.isdigit() and len(hops) < 10 and int(hops) > 0 else hops

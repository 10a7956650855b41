"""One request, straight through: judged, routed, sent with a token, replayed once if refused, answered."""

from __future__ import annotations

import asyncio
import time

from proxy.core import access, replay, routing
from proxy.core.fields import own_bearer
from proxy.core.replay import Verdict
from proxy.core.routing import PLACEHOLDER, Kind, Target
from proxy.core.tokens import Token
from proxy.errors import BadRequest, ClientClosed, MethodNotAllowed, ProxyError, UnknownTenant
from proxy.forward import door
from proxy.forward.ask import ask, discard, request_head
from proxy.forward.exchange import METHODS, REASONS, Exchange, head
from proxy.forward.relay import relay
from proxy.forward.rescue import error_response, explain
from proxy.forward.tenant import Rules, Tenant, Timing
from proxy.wire.server import ClientConnection
from proxy.wire.syntax import ResponseHead
from proxy.wire.upstream import Upstream

CLIENT_CLOSED = 499
"""Counted, never sent: the client left before its answer (nginx's number for it)."""

_PLACEHOLDER = PLACEHOLDER.encode("ascii")


class Forwarder:
    """Serves client connections by rules that can be replaced between requests.

    :ivar rules: replaced whole by a reload; requests under way keep those they began with
    :ivar refused: our answers to requests that belong to no tenant, by status
    """

    def __init__(self, rules: Rules, timing: Timing) -> None:
        self.rules = rules
        self.timing = timing
        self.refused: dict[int, int] = {}

    async def serve(self, client: ClientConnection) -> None:
        """Answers a connection's requests one after the other, until one of them ends it."""
        while True:
            try:
                request = await client.next_request()
            except ProxyError as error:
                self._refuse(client, error)
                return await client.finish(linger=True)
            if request is None:
                return await client.finish(linger=False)
            exchange = Exchange(client, request, self.timing)
            await self._answer(exchange)
            if not exchange.keep_alive:
                return await client.finish(linger=not exchange.body.complete or client.buffer != b"")
            if client.buffer or client.sending_behind:
                await self._let_others(client)

    async def _let_others(self, client: ClientConnection) -> None:
        # Requests that came in one go are answered in turn with other clients', and no faster than they are taken.
        await asyncio.sleep(0)
        try:
            await client.drain(client.loop.time() + self.timing.idle_timeout)
        except OSError:
            client.abort()

    def _refuse(self, client: ClientConnection, error: ProxyError) -> None:
        """Answers a head that could not be read; what follows it can't be trusted to be a request."""
        failure = explain(error)
        self.refused[failure.status] = self.refused.get(failure.status, 0) + 1
        section, body = error_response(failure)
        client.write(head(failure.status, REASONS[failure.status], section + b"Connection: close\r\n") + body)

    async def _answer(self, exchange: Exchange) -> None:
        """One request, whatever happens to it: exactly one answer, or a connection that is visibly broken off."""
        try:
            await self._forward(exchange)
        except ClientClosed:
            exchange.keep_alive = False
            exchange.client.abort()
        except Exception as error:  # noqa: BLE001 - no client is ever dropped without an answer
            self._rescue(exchange, error)
        finally:
            exchange.stop_upload()
            self._count(exchange)

    def _rescue(self, exchange: Exchange, error: Exception) -> None:
        failure = explain(error)
        if exchange.status:
            # The head is gone: only a broken connection tells the client that this is not the whole.
            exchange.keep_alive = False
            exchange.client.abort()
            return
        if isinstance(error, BadRequest):
            exchange.keep_alive = False
        exchange.respond(failure.status, *error_response(failure))

    def _count(self, exchange: Exchange) -> None:
        status = exchange.status or CLIENT_CLOSED
        if exchange.tenant is None:
            self.refused[status] = self.refused.get(status, 0) + 1
            return
        tally = exchange.tenant.tally
        tally.requests[status] = tally.requests.get(status, 0) + 1
        tally.durations.observe(time.perf_counter() - exchange.started)

    # --- the straight line ---

    async def _forward(self, exchange: Exchange) -> None:
        rules, fields = self.rules, exchange.fields
        if not exchange.body.complete:
            exchange.body.take_arrived()
        if exchange.method in (b"CONNECT", b"TRACE"):
            raise MethodNotAllowed("CONNECT and TRACE are not for this proxy (RFC 9110 9.3.6, 9.3.8).")
        target = routing.split(exchange.method, exchange.target)
        authority = _authority(exchange, target)
        exchange.origin = access.check_caller(
            rules.callers, authority, fields.get(b"origin"), fields.get(b"sec-fetch-site")
        )
        if exchange.origin is not None and _is_preflight(exchange):
            exchange.respond(204, access.preflight(fields))
            return
        access.check_key(rules.callers, fields.get(b"x-proxy-key"), target.key)
        exchange.tenant = tenant = _tenant(rules, target, fields.get(rules.tenant_header), authority)
        if exchange.method not in tenant.policy.harmless:
            access.check_policy(tenant.policy, exchange.method, target.rest)
        if exchange.method == b"OPTIONS" and fields.get(b"max-forwards") == b"0":
            # It asks for no hop beyond this one (RFC 9110 7.6.2).
            exchange.respond(200, METHODS + b"Content-Length: 0\r\n")
            return
        match routing.kind_of(target.rest, websocket=exchange.websocket):
            case Kind.TOKEN:
                await self._token(exchange, tenant, target)
            case Kind.LOGIN_PAGE:
                location = str(tenant.login.base).encode("ascii") + target.rest
                exchange.respond(302, b"Location: %b\r\nContent-Length: 0\r\n" % location)
            case Kind.WEBMESSAGING:
                await self._pass_on(exchange, tenant.webmessaging, target.rest)
            case Kind.CDN:
                await self._pass_on(exchange, tenant.cdn, target.rest)
            case Kind.GUEST:
                await self._pass_on(exchange, tenant.api, target.rest)
            case Kind.API if tenant.fill and own_bearer(fields, _PLACEHOLDER) is not None:
                await self._pass_on(exchange, tenant.api, target.rest)
            case Kind.API:
                try:
                    await self._inject(exchange, tenant, target.rest)
                except ProxyError:
                    if exchange.replayed and not exchange.status:
                        _count_replay(tenant, "failed")
                    raise

    async def _pass_on(self, exchange: Exchange, upstream: Upstream, rest: bytes) -> None:
        """Sends a request with the credential it came with, and none of ours."""
        credential = exchange.fields.get(b"authorization")
        request = request_head(exchange, upstream, rest, credential, self.rules.tenant_header)
        connection, answer = await ask(exchange, upstream, request)
        await relay(exchange, upstream, connection, answer)

    async def _inject(self, exchange: Exchange, tenant: Tenant, rest: bytes) -> None:
        """Sends a request with the tenant's token, and once more with the next if that one is refused."""
        tokens, api = tenant.tokens, tenant.api
        while True:
            token = tokens.current() or await tokens.token(exchange.patience)
            request = request_head(exchange, api, rest, token.credential, self.rules.tenant_header)
            connection, answer = await ask(exchange, api, request)
            verdict = Verdict.PASS
            if answer.status == 401:
                verdict = replay.decide(
                    replayed=exchange.replayed, body_kept=exchange.body.kept, cooling_down=tokens.cooling_down
                )
            if verdict is not Verdict.REPLAY:
                break
            tokens.reject(token)
            exchange.replayed = True
            await discard(api, connection, answer, exchange)
        if exchange.replayed or verdict is not Verdict.PASS:
            _note(exchange, tenant, token, verdict)
        _note_rate_limit(tenant, answer)
        await relay(exchange, api, connection, answer)

    async def _token(self, exchange: Exchange, tenant: Tenant, target: Target) -> None:
        """The login door: SDKs log in here and are given a placeholder, never a token."""
        if exchange.method != b"POST":
            raise MethodNotAllowed("A token request is a POST (RFC 6749 3.2).")
        exchange.body = exchange.body.with_limit(door.LONGEST_FORM)
        if not exchange.body.complete and exchange.minor == 1 and b"expect" in exchange.fields:
            exchange.client.write(head(100, b"Continue", b""))
        form = door.read_form(await exchange.body.gather(self.timing.idle_timeout))
        if tenant.fill and door.is_own_login(form):
            await self._pass_on(exchange, tenant.login, target.rest)
            return
        token = tenant.tokens.current() or await tenant.tokens.token(exchange.patience)
        exchange.respond(200, *door.placeholder(form, tenant.tokens.seconds_left(token)))


def _note(exchange: Exchange, tenant: Tenant, token: Token, verdict: Verdict) -> None:
    match verdict:
        case Verdict.REFUSED_AGAIN:
            tenant.tokens.cool_down()
            exchange.note = "the upstream refused a new token as well, so the token is not the cause"
        case Verdict.TOO_LONG:
            tenant.tokens.reject(token)
            exchange.note = "the upstream refused the token, and the body was too long to be kept for a replay"
        case Verdict.COOLING_DOWN:
            exchange.note = "the upstream refused the token, just after it had refused a new one; not refreshed"
        case _:
            exchange.note = "answer to a replay with a new token, after the upstream had refused the first"
    _count_replay(tenant, "accepted" if verdict is Verdict.PASS else str(verdict))


def _count_replay(tenant: Tenant, outcome: str) -> None:
    tenant.tally.replays[outcome] = tenant.tally.replays.get(outcome, 0) + 1


def _note_rate_limit(tenant: Tenant, answer: ResponseHead) -> None:
    # Kept as it came: it is read far less often than it is said.
    allowed = answer.fields.get(b"inin-ratelimit-allowed")
    if allowed is not None:
        tenant.tally.rate_limit = (allowed, answer.fields.get(b"inin-ratelimit-count") or b"")


def _authority(exchange: Exchange, target: Target) -> bytes:
    """What a request says it is for: the target's authority, or else Host (RFC 9112 3.2.2)."""
    host = exchange.fields.get(b"host")
    if host is None:
        if exchange.minor == 1:
            raise BadRequest("A request has exactly one Host (RFC 9112 3.2).")
        return target.authority or b"localhost"  # no browser speaks HTTP/1.0
    if target.authority is None:
        return host
    access.host_of(host)
    return target.authority


def _tenant(rules: Rules, target: Target, header: bytes | None, authority: bytes) -> Tenant:
    name = routing.tenant_of(target, header, authority, rules.default_tenant)
    if name is None:
        raise UnknownTenant("The request names no tenant: use /t/<tenant>/…, the tenant header or <tenant>.localhost.")
    tenant = rules.tenants.get(name)
    if tenant is None:
        raise UnknownTenant("No tenant of this name is configured.")
    return tenant


def _is_preflight(exchange: Exchange) -> bool:
    return exchange.method == b"OPTIONS" and b"access-control-request-method" in exchange.fields

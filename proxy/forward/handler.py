"""One request, straight through: judged, routed, sent with a token, replayed once if refused, answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from proxy.core import replay
from proxy.core.access import METHODS
from proxy.core.fields import authorize
from proxy.core.guests import LONGEST_CONTENT
from proxy.core.replay import Verdict
from proxy.core.routing import PLACEHOLDER, Kind
from proxy.core.tokens import Token
from proxy.errors import BadRequest, ClientClosed, MethodNotAllowed, ProxyError, TokenError
from proxy.forward import door
from proxy.forward.ask import ask, discard
from proxy.forward.exchange import REASONS, Copy, Exchange, head
from proxy.forward.guests import learn
from proxy.forward.journal import Journal, record
from proxy.forward.plan import Plan, plan, preflight
from proxy.forward.relay import relay
from proxy.forward.rescue import allow, error_response, explain
from proxy.forward.tenant import Guests, Rules, Tenant, Timing, Tokens
from proxy.forward.trace import Tracer
from proxy.wire.server import ClientConnection
from proxy.wire.syntax import ResponseHead
from proxy.wire.upstream import UpstreamConnection

CLIENT_CLOSED = 499
"""Counted, never sent: the client left before its answer (nginx's number for it)."""

_PLACEHOLDER = PLACEHOLDER.encode("ascii")


class Forwarder:
    """Serves client connections by rules that can be replaced between requests.

    :ivar rules: replaced whole by a reload; requests under way keep those they began with
    :ivar journal: told of each request that is over, if there is one
    :ivar tracer: makes a span of each request, if there is one
    :ivar refused: our answers to requests that belong to no tenant, by status
    """

    def __init__(
        self, rules: Rules, timing: Timing, journal: Journal | None = None, tracer: Tracer | None = None
    ) -> None:
        self.rules = rules
        self.timing = timing
        self.journal = journal
        self.tracer = tracer
        self.refused: dict[int, int] = {}

    async def serve(self, client: ClientConnection) -> None:
        """Answers a connection's requests one after the other, until one of them ends it."""
        while True:
            try:
                request = await client.next_request()
            except ProxyError as error:
                client.write(self.refusal(error))
                return await client.finish(linger=True)
            if request is None:
                return await client.finish(linger=False)
            exchange = Exchange(client, request, self.timing)
            await self.answer(exchange, self._forward(exchange))
            if not await self.go_on(exchange):
                return None

    async def go_on(self, exchange: Exchange) -> bool:
        """Whether another request may follow this one on its connection, which is closed if none may.

        The client must take its answers, and requests that came in one go wait their turn among other clients'.
        """
        client = exchange.client
        if not exchange.keep_alive:
            await client.finish(linger=not exchange.body.complete or client.buffer != b"")
            return False
        if not client.buffer and not client.sending_behind:
            return True
        await asyncio.sleep(0)
        try:
            await client.drain(client.loop.time() + self.timing.idle_timeout)
        except OSError:
            client.abort()
            return False
        return True

    def refusal(self, error: ProxyError) -> bytes:
        """The answer to a connection, or to a head that can't be read; what follows is not taken for a request."""
        failure = explain(error)
        self.refused[failure.status] = self.refused.get(failure.status, 0) + 1
        section, body = error_response(failure)
        return head(failure.status, REASONS[failure.status], section + b"Connection: close\r\n") + body

    async def answer(self, exchange: Exchange, line: Awaitable[None]) -> None:
        """One request, whatever happens to it: exactly one answer, or a connection that is visibly broken off.

        :param line: what is to be done with it, or what is left of that
        """
        try:
            await line
        except ClientClosed:
            exchange.keep_alive = False
            exchange.client.abort()
        except Exception as error:  # noqa: BLE001 - no client is ever dropped without an answer
            self.rescue(exchange, error)
        finally:
            exchange.stop_upload()
            self.over(exchange)

    def rescue(self, exchange: Exchange, error: Exception) -> None:
        """Answers with what the error means, or breaks the connection off where an answer has begun."""
        failure = exchange.failure = explain(error)
        if exchange.replayed and exchange.tenant is not None and exchange.note is None:
            exchange.tenant.tally.count_replay("failed", time.time())
        if exchange.status:
            # The head is gone: only a broken connection tells the client that this is not the whole.
            exchange.keep_alive = False
            exchange.client.abort()
            return
        if isinstance(error, BadRequest):
            exchange.keep_alive = False
        exchange.respond(failure.status, *error_response(failure))

    def over(self, exchange: Exchange) -> None:
        """Counts a request that is over, tells the journal, and gives its place to another."""
        exchange.end()
        status = exchange.status or CLIENT_CLOSED
        seconds = time.perf_counter() - exchange.started
        if self.journal is not None:
            self.journal.note(exchange, status, seconds)
        if exchange.trace is not None:
            exchange.trace.end(record(exchange, status, seconds))
        if status != 101:  # which was counted when it became a WebSocket, maybe hours ago
            exchange.count(status, seconds)
        if exchange.tenant is None:
            self.refused[status] = self.refused.get(status, 0) + 1

    # --- the straight line ---

    async def _forward(self, exchange: Exchange) -> None:
        if self.tracer is not None:
            named = exchange.fields.get(b"traceparent"), exchange.fields.get(b"tracestate")
            exchange.trace = self.tracer.begin(exchange.method, *named)
        if not exchange.body.complete:
            exchange.body.take_arrived()
        permission = preflight(self.rules, exchange)
        if permission is not None:
            exchange.respond(204, permission)
            return
        way = plan(self.rules, exchange)
        exchange.begin(way.tenant, way.caller)
        if way.objection is not None:
            way.tenant.tally.observed += 1
        match way.kind:
            case Kind.API if way.inject:
                await self.inject(exchange, way, way.tenant.tokens)
            case Kind.TOKEN:
                await self._token(exchange, way)
            case Kind.LOGIN_PAGE:
                location = str(way.tenant.login.base).encode("ascii") + way.target.rest
                exchange.respond(302, b"Location: %b\r\nContent-Length: 0\r\n" % location)
            case Kind.THIS_HOP:
                exchange.respond(200, allow(METHODS) + b"Content-Length: 0\r\n")
            case Kind.GUEST | Kind.GUEST_TOKEN | Kind.GUEST_REVOKE if way.tenant.guests is not None:
                await self._guest(exchange, way, way.tenant.guests)
            case _:
                await _pass_on(exchange, way)

    async def _guest(self, exchange: Exchange, way: Plan, known: Guests) -> None:
        """A guest's call, with a fresh JWT in place of one that is about to expire (``guest_refresh``)."""
        if way.kind is Kind.GUEST_TOKEN:
            exchange.copy = Copy(LONGEST_CONTENT)
            await _pass_on(exchange, way)
            learn(exchange, known, exchange.copy)
        elif (tokens := known.find(way.credential)) is None:
            await _pass_on(exchange, way)
        else:
            await self.inject(exchange, way, tokens)
        if way.kind is Kind.GUEST_REVOKE and 200 <= exchange.status < 300:
            known.forget(way.credential)

    async def inject(
        self,
        exchange: Exchange,
        way: Plan,
        tokens: Tokens,
        sent: tuple[Token, UpstreamConnection] | tuple[None, None] = (None, None),
    ) -> None:
        """Sends a request with a token of ours, and once more with the next if that one is refused.

        :param sent: what it was sent with and on, where the first sending is done
        """
        token, sent_on = sent
        while True:
            token = token or tokens.current() or await tokens.token(exchange.patience)
            request = authorize(_opening(exchange, way), token.credential)
            connection, answer = await ask(exchange, way.upstream, request, sent_on)
            if answer.status == 417 and exchange.body.hold_no_more():
                await discard(way.upstream, connection, answer, exchange)
                token = sent_on = None
                continue
            if answer.status == 429 and way.inject and await _met_limit(exchange, way, token, connection, answer):
                token = sent_on = None
                continue
            if answer.status != 401:
                verdict = Verdict.PASS
                break
            verdict = replay.decide(
                replayed=exchange.replayed, body_kept=exchange.body.kept, cooling_down=tokens.cooling_down
            )
            if verdict is not Verdict.REPLAY:
                break
            newer = await _newer(exchange, way, tokens, token, connection)
            if newer is token:
                verdict = Verdict.NO_NEWER
                exchange.keep_alive = exchange.keep_alive and exchange.body.complete  # no more of it is taken
                break
            exchange.replayed = True
            await discard(way.upstream, connection, answer, exchange)
            token, sent_on = newer, None
        if exchange.replayed or verdict is not Verdict.PASS:
            _note(exchange, way.tenant, tokens, token, verdict)
        if way.inject:
            note_rate_limit(way.tenant, token, answer)
        await relay(exchange, way.upstream, connection, answer)

    async def _token(self, exchange: Exchange, way: Plan) -> None:
        """The login door: SDKs log in here and are given a placeholder, never a token."""
        if exchange.method != b"POST":
            raise MethodNotAllowed("A token request is a POST (RFC 6749 3.2).", allowed=[b"POST"])
        exchange.body = exchange.body.with_limit(door.LONGEST_FORM)
        if not exchange.body.complete and exchange.minor == 1 and b"expect" in exchange.fields:
            exchange.client.write(head(100, b"Continue", b""))
        form = door.read_form(await exchange.body.gather(self.timing.idle_timeout))
        if way.tenant.fill and door.is_own_login(form):
            await _pass_on(exchange, way)
            return
        tokens = way.tenant.tokens
        if tokens.cooling_down and door.renews_placeholder(form):
            exchange.respond(400, *door.no_use())
            return
        token = tokens.current() or await tokens.token(exchange.patience)
        exchange.respond(200, *door.placeholder(form, tokens.seconds_left(token)))


def _opening(exchange: Exchange, way: Plan) -> bytes:
    """The request's head; of a body too long to be kept, the upstream is to say first whether it takes it.

    So a 401 comes before the body, and the request can be sent again (RFC 9110 10.1.1).
    """
    body = exchange.body
    if not body.outgrows:
        return way.opening
    asks = exchange.minor == 1 and b"expect" in exchange.fields
    body.hold(ours=not asks)
    return way.opening if asks else way.opening + b"Expect: 100-continue\r\n"


async def _newer(
    exchange: Exchange, way: Plan, tokens: Tokens, refused: Token, connection: UpstreamConnection
) -> Token:
    """The token to replay with; a guest's refused one where there is no other, whose answer is still there to be given.

    :raises TokenError: there is none; the refusal is not passed on, which an SDK would answer with a storm
    """
    exchange.stop_upload()
    try:
        return await tokens.instead_of(refused, exchange.patience)
    except BaseException as error:
        connection.abort()
        if isinstance(error, TokenError):
            way.tenant.tally.count_replay(Verdict.NO_NEWER, time.time())
        raise


async def _met_limit(
    exchange: Exchange, way: Plan, token: Token, connection: UpstreamConnection, answer: ResponseHead
) -> bool:
    """Whether a request that met its token's rate limit is to be sent again now: with another token, or it waited."""
    retry_after = answer.fields.get(b"retry-after")
    tally, kept = way.tenant.tally, exchange.body.kept
    note_rate_limit(way.tenant, token, answer)
    pool = way.tenant.pool
    if pool is not None and pool.limited(token, replay.seconds(retry_after) or 1.0) and kept and exchange.patience > 0:
        tally.count_limited("other_token")
        await discard(way.upstream, connection, answer, exchange)
        return True
    seconds = replay.pause(
        retry_after,
        body_kept=kept,
        waited=exchange.waited,
        longest=exchange.timing.retry_after_max,
        patience=exchange.patience,
    )
    if seconds is None:
        tally.count_limited("passed_on")
        return False
    tally.count_limited("waited")
    await discard(way.upstream, connection, answer, exchange)
    await asyncio.sleep(seconds)
    exchange.waited += seconds
    exchange.note = "answer to the request sent again, after the upstream's rate limit had to be waited for"
    return True


async def _pass_on(exchange: Exchange, way: Plan) -> None:
    """Sends a request with the credential it came with, and none of ours."""
    connection, answer = await ask(exchange, way.upstream, authorize(way.opening, way.credential))
    await relay(exchange, way.upstream, connection, answer)


def _note(exchange: Exchange, tenant: Tenant, tokens: Tokens, token: Token, verdict: Verdict) -> None:
    match verdict:
        case Verdict.REFUSED_AGAIN:
            tokens.cool_down()
            exchange.note = "the upstream refused a new token as well, so the token is not the cause"
        case Verdict.TOO_LONG:
            tokens.reject(token)
            exchange.note = "the upstream refused the token, and the body was too long to be kept for a replay"
        case Verdict.COOLING_DOWN:
            exchange.note = "the upstream refused the token, and a new one was refused or could not be had just before"
        case Verdict.NO_NEWER:
            exchange.note = "the API refused the guest's token, and no newer one could be had"
        case _:
            exchange.note = "answer to a replay with a new token, after the upstream had refused the first"
    tenant.tally.count_replay("accepted" if verdict is Verdict.PASS else str(verdict), time.time())


def note_rate_limit(tenant: Tenant, token: Token, answer: ResponseHead) -> None:
    """Notes what the upstream says of the token's limit."""
    allowed = answer.fields.get(b"inin-ratelimit-allowed")
    if allowed is not None:
        count = answer.fields.get(b"inin-ratelimit-count") or b""
        reset = answer.fields.get(b"inin-ratelimit-reset") or b"60"
        tenant.tally.hear(allowed, count, reset, time.time())
        if tenant.pool is not None:
            tenant.pool.heard(token, (allowed, count, reset))

"""The login service: token endpoint, authorization page and log-out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import uuid4

from aiohttp import web

from proxy.sandbox.answers import ApiError, complete, hang_up, json_response
from proxy.sandbox.clients import (
    OAuthError,
    TokenRequest,
    authentication_failed,
    client_not_found,
    find_client,
    read_token_request,
)
from proxy.sandbox.cloud import Cloud
from proxy.sandbox.gate import Handler
from proxy.sandbox.grants import Granted
from proxy.sandbox.ledger import NO_ORG, SeenTokenRequest

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_HTML = "<!doctype html><title>Genesys Cloud</title><p>This page is not what a token endpoint should answer."


@dataclass(slots=True)
class _Asked:
    """A token request while it is answered."""

    request: TokenRequest | None = None
    """None: it can't be read."""
    org: str = NO_ORG
    outcome: str = "ok"
    granted: Granted | None = None


class _Faulty(Exception):
    """A fault takes the place of the answer; no response: the connection is dropped."""

    def __init__(self, name: str, response: web.Response | None) -> None:
        super().__init__(name)
        self.name = name
        self.response = response


class Login:
    """Handlers of ``login.{domain}``. Every token request is recorded once, with how it ended."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/oauth/token", self._completed(self.token)),
            web.get("/oauth/authorize", self._completed(self.authorize)),
            web.get("/logout", self._completed(self.logout)),
        ]

    def _completed(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = await handler(request)
            complete(response, str(uuid4()), self._cloud.now())
            return response

        return handle

    # --- tokens ---

    async def token(self, request: web.Request) -> web.StreamResponse:
        asked = _Asked()
        response: web.Response | None
        try:
            response = await self._answer(request, asked)
        except OAuthError as error:
            asked.outcome = error.error
            response = _refusal(error, basic="Authorization" in request.headers)
        except _Faulty as fault:
            asked.outcome = fault.name
            response = fault.response
        except asyncio.CancelledError:
            asked.outcome = "client_gone"
            self._record(request, asked)
            raise
        self._record(request, asked)
        return hang_up(request) if response is None else response

    async def _answer(self, request: web.Request, asked: _Asked) -> web.Response:
        """What a request is answered with that is not refused and meets no fault.

        :raises OAuthError: it is refused
        :raises _Faulty: it meets a fault
        """
        body = await _read(request)
        authorization = request.headers.getall("Authorization", [])
        asked.request = read_token_request(body, request.headers.get("Content-Type", ""), authorization)
        asked.org = self._org(asked.request)
        await self._before(asked.request, asked.org)
        dropped = self._cloud.faults.take("token_drop", org=asked.org, grant=asked.request.grant)
        if dropped is not None and dropped.value == "before":
            raise _Faulty("token_drop", None)
        asked.granted = self._cloud.grants.token(asked.request, self._cloud.now())
        if (late := self._cloud.faults.take("token_late", org=asked.org, grant=asked.request.grant)) is not None:
            await self._cloud.pause(late.value)
        if dropped is not None:
            raise _Faulty("token_drop", None)
        return self._after(asked.request, asked.org, self._success(asked.granted))

    def _org(self, request: TokenRequest) -> str:
        try:
            return find_client(self._cloud.options.orgs, request.client_id)[1].name
        except OAuthError:
            return NO_ORG

    async def _before(self, request: TokenRequest, org: str) -> None:
        """The faults that a request meets before it is carried out."""
        faults = self._cloud.faults
        where = {"org": org, "grant": request.grant}
        if (fault := faults.take("token_latency", **where)) is not None:
            await self._cloud.pause(fault.value)
        if faults.take("token_hang", **where) is not None:
            await self._cloud.pause(None)
            raise _Faulty("token_hang", None)
        if (fault := faults.take("token_status", **where)) is not None:
            raise _Faulty("token_status", ApiError(fault.value).response(str(uuid4())))
        if (fault := faults.take("token_throttled", **where)) is not None:
            raise OAuthError("invalid_request", f"rate limit exceeded; retry after {fault.value:g} seconds")
        if (fault := faults.take("token_invalid_client", **where)) is not None:
            raise client_not_found() if fault.value == "client not found" else authentication_failed()
        if faults.take("token_invalid_grant", **where) is not None:
            raise OAuthError("invalid_grant", "the grant is not valid")

    def _success(self, granted: Granted) -> dict[str, object]:
        lifetime = self._cloud.options.token_lifetime
        answer: dict[str, object] = {
            "access_token": granted.token.value,
            "token_type": "bearer",
            "expires_in": int(lifetime) if float(lifetime).is_integer() else lifetime,
        }
        if granted.refresh_token is not None:
            answer["refresh_token"] = granted.refresh_token
        return answer

    def _after(self, request: TokenRequest, org: str, answer: dict[str, object]) -> web.Response:
        """The answer to a request that was carried out, as faults let it through."""
        faults = self._cloud.faults
        where = {"org": org, "grant": request.grant}
        if faults.take("token_empty", **where) is not None:
            raise _Faulty("token_empty", web.Response(content_type="application/json"))
        if faults.take("token_html", **where) is not None:
            raise _Faulty("token_html", web.Response(text=_HTML, content_type="text/html"))
        if (fault := faults.take("token_expires_in", **where)) is not None:
            answer["expires_in"] = fault.value
            if fault.value is None:
                del answer["expires_in"]
        return json_response(answer, fields=_NO_STORE)

    def _record(self, request: web.Request, asked: _Asked) -> None:
        sent = asked.request
        self._cloud.ledger.saw_token_request(
            SeenTokenRequest(
                at=self._cloud.now(),
                org=asked.org,
                client_id="" if sent is None else sent.client_id,
                client_auth="none" if sent is None else sent.client_auth,
                grant="" if sent is None else sent.grant,
                scope=() if sent is None else sent.scope,
                resource_server=None if sent is None else sent.parameters.get("resourceServer"),
                parameters={} if sent is None else sent.shown(),
                fields=tuple(
                    (name, value)
                    for name, value in request.headers.items()
                    if name.lower() not in ("authorization", "cookie")
                ),
                outcome=asked.outcome,
                serial=None if asked.granted is None else asked.granted.token.serial,
            )
        )

    # --- browsers ---

    async def authorize(self, request: web.Request) -> web.Response:
        """Consents at once, in the name of the one person that each org has (RFC 6749 4.1)."""
        grants = self._cloud.grants
        try:
            client, home = grants.asking_client(request.query)
        except OAuthError as error:
            return _refusal(error, basic=False)
        try:
            told = {"code": grants.authorize(request.query, client, home, self._cloud.now())}
        except OAuthError as error:
            told = {"error": error.error, "error_description": error.description}
        if "state" in request.query:
            told["state"] = request.query["state"]
        uri = request.query["redirect_uri"]
        return _redirect(f"{uri}{'&' if '?' in uri else '?'}{urlencode(told)}")

    async def logout(self, request: web.Request) -> web.Response:
        try:
            self._cloud.grants.asking_client(request.query)
        except OAuthError:
            return web.Response(text="You are logged out.")
        return _redirect(request.query["redirect_uri"])


def _redirect(location: str) -> web.Response:
    return web.Response(status=302, headers={"Location": location, **_NO_STORE})


def _refusal(error: OAuthError, *, basic: bool) -> web.Response:
    fields = dict(_NO_STORE)
    if error.status == 401 and basic:  # RFC 6749 5.2
        fields["WWW-Authenticate"] = 'Basic realm="sandbox"'
    return json_response(error.body(), status=error.status, fields=fields)


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise OAuthError("invalid_request", "the request is too large", status=413) from None
    except web.RequestPayloadError:
        raise OAuthError("invalid_request", "the body can't be read") from None

"""Web messaging: the guests' REST calls, the socket, and the deployment's configuration on the CDN."""

from __future__ import annotations

import json
import weakref
from uuid import uuid4

from aiohttp import WSCloseCode, WSMsgType, web

from proxy.sandbox.answers import ApiError, complete, hang_up, json_response, page
from proxy.sandbox.cloud import Cloud
from proxy.sandbox.frames import Conversation
from proxy.sandbox.gate import Gate, Need
from proxy.sandbox.guests import GuestRefused, GuestSession

_MESSAGES = "/api/v2/webmessaging/messages"
_OTHER_GUEST_PATHS = (
    "/api/v2/webdeployments/deployments/{deployment}/cobrowse/{rest:.*}",
    "/api/v2/webmessaging/deployments/{deployment}/pushdevices/{rest:.*}",
    "/api/v2/knowledge/guest/{rest:.*}",
    "/api/v2/journey/deployments/{rest:.*}",
)
_MAX_FRAME = 128 * 1024


class Messaging:
    """Handlers for guests; the sockets end with :meth:`close`."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    def routes(self, gate: Gate) -> list[web.RouteDef]:
        token = "/api/v2/webdeployments/token"
        other = gate.guest(self.other, Need.JWT_OR_NOTHING)
        return [
            web.post(f"{token}/oauthcodegrantjwtexchange", gate.guest(self.exchange, Need.NOTHING)),
            web.post(f"{token}/refresh", gate.guest(self.refresh, Need.NOTHING)),
            web.delete(f"{token}/revoke", gate.guest(self.revoke, Need.JWT)),
            web.get(_MESSAGES, gate.guest(self.messages, Need.JWT)),
            web.get("/v1", self.socket),
            web.get("/webdeployments/v1/deployments/{id}/config.json", self.configuration),
            *(web.route("*", path, other) for path in _OTHER_GUEST_PATHS),
        ]

    # --- REST ---

    async def exchange(self, request: web.Request, _: GuestSession | None) -> web.Response:
        sent = await _json_object(request)
        oauth = sent.get("oauth")
        code = oauth.get("code") if isinstance(oauth, dict) else None
        now = self._cloud.now()
        try:
            value, refresh_token = self._cloud.guests.exchange(sent.get("deploymentId"), code, now)
        except GuestRefused as refused:
            raise ApiError(400, message=str(refused)) from None
        return json_response({"jwt": value, "refreshToken": refresh_token})

    async def refresh(self, request: web.Request, _: GuestSession | None) -> web.Response:
        sent = await _json_object(request)
        try:
            value = self._cloud.guests.refresh(sent.get("refreshToken"), self._cloud.now())
        except GuestRefused as refused:
            raise ApiError(401, message=str(refused)) from None
        return json_response({"jwt": value})

    async def revoke(self, _: web.Request, session: GuestSession | None) -> web.Response:
        assert session is not None
        self._cloud.guests.revoke(session)
        return web.Response(status=204)

    async def messages(self, request: web.Request, session: GuestSession | None) -> web.Response:
        assert session is not None
        return json_response(page(session.messages, request.query, _MESSAGES))

    async def other(self, request: web.Request, session: GuestSession | None) -> web.Response:
        """The further calls that carry a guest's own JWT; they only tell what arrived."""
        guest = None if session is None else session.id
        return json_response({"guest": guest, "method": request.method, "target": request.raw_path})

    # --- CDN ---

    async def configuration(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        correlation_id = str(uuid4())
        if self._cloud.guests.org(id_) is None:
            response = ApiError(404).response(correlation_id)
        else:
            response = json_response(self._configuration(id_), fields={"Access-Control-Allow-Origin": "*"})
        complete(response, correlation_id, self._cloud.now())
        return response

    def _configuration(self, deployment: str) -> dict[str, object]:
        endpoint = self._cloud.base_url
        return {
            "id": deployment,
            "version": "1",
            "languages": ["en-us"],
            "defaultLanguage": "en-us",
            "apiEndpoint": endpoint,
            "messenger": {
                "enabled": True,
                "apps": {"conversations": {"messagingEndpoint": f"ws{endpoint.removeprefix('http')}"}},
                "styles": {"primaryColor": "#ff4f1f"},
                "launcherButton": {"visibility": "On"},
                "fileUpload": {"modes": []},
            },
            "journeyEvents": {"enabled": False},
            "status": "Active",
        }

    # --- the socket ---

    async def socket(self, request: web.Request) -> web.StreamResponse:
        deployment = request.query.get("deploymentId", "")
        refused = self._refusal(request, deployment)
        if refused is not None:
            correlation_id = str(uuid4())
            response = refused.response(correlation_id)
            complete(response, correlation_id, self._cloud.now())
            return response
        socket = web.WebSocketResponse(max_msg_size=_MAX_FRAME)
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client is gone already
            return hang_up(request)
        await self._open(socket, Conversation(self._cloud.guests, deployment))
        return socket

    def _refusal(self, request: web.Request, deployment: str) -> ApiError | None:
        if not web.WebSocketResponse().can_prepare(request):
            return ApiError(400, message="A WebSocket handshake is expected here.")
        if self._cloud.guests.org(deployment) is None:
            return ApiError(400, message="Deployment not found")
        allowed = self._cloud.options.allowed_origins
        if allowed and request.headers.get("Origin") not in allowed:
            return ApiError(403)
        return None

    async def _open(self, socket: web.WebSocketResponse, conversation: Conversation) -> None:
        """Converse until either side closes the socket."""
        ledger = self._cloud.ledger
        ledger.sockets_opened += 1
        ledger.sockets_open += 1
        self._sockets.add(socket)
        try:
            await self._converse(socket, conversation)
        except ConnectionError:
            return  # the client is gone
        finally:
            ledger.sockets_open -= 1

    async def _converse(self, socket: web.WebSocketResponse, conversation: Conversation) -> None:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            self._cloud.ledger.frames += 1
            reply = conversation.receive(message.data, self._cloud.now())
            for frame in reply.frames:
                await socket.send_str(frame)
            if reply.close:
                await socket.close()

    async def close(self) -> None:
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the sandbox stops")


async def _json_object(request: web.Request) -> dict[str, object]:
    try:
        value = json.loads(await request.read())
    except ValueError:
        raise ApiError(400) from None
    if not isinstance(value, dict):
        raise ApiError(400)
    return value

"""The platform API: a handful of resources that an org's token opens."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import uuid4

from aiohttp import web

from proxy.sandbox.answers import ApiError, json_response, page, timestamp
from proxy.sandbox.cloud import Cloud
from proxy.sandbox.gate import Gate
from proxy.sandbox.orgs import USER_GRANTS, Org
from proxy.sandbox.tokens import IssuedToken

_CONTACTS = "/api/v2/messaging/contacts"


class Api:
    """Handlers behind the gate. What they are handed is a token that has been accepted."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def routes(self, gate: Gate) -> list[web.RouteDef]:
        return [
            web.get("/api/v2/tokens/me", gate.org(self.token)),
            web.delete("/api/v2/tokens/me", gate.org(self.revoke)),
            web.get("/api/v2/organizations/me", gate.org(self.organization)),
            web.get("/api/v2/users/me", gate.org(self.user)),
            web.get(_CONTACTS, gate.org(self.contacts)),
            web.post(_CONTACTS, gate.org(self.create_contact)),
            web.get(_CONTACTS + "/{id}", gate.org(self.contact)),
            web.get("/api/v2/flows/datatables/{table}/rows/{row:.+}", gate.org(self.row)),
            web.get("/api/v2/downloads/{id}", gate.org(self.download)),
            web.route("*", "/api/v2/echo{rest:.*}", gate.org(self.echo)),
            web.route("*", "/api/{rest:.*}", gate.org(self.nothing)),
        ]

    async def token(self, _: web.Request, token: IssuedToken) -> web.Response:
        idles_at = token.idles_at
        return json_response(
            {
                "organization": _entity(token.org),
                "homeOrganization": _entity(token.home),
                "authorizedScope": list(token.scope),
                "dateTokenIdles": None if idles_at is None else timestamp(idles_at),
                "OAuthClient": {"id": token.client.id, "name": token.client.id},
            }
        )

    async def revoke(self, _: web.Request, token: IssuedToken) -> web.Response:
        """Revokes the token for everybody who shares it."""
        token.revoked = True
        self._cloud.ledger.tokens_revoked += 1
        return web.Response(status=204)

    async def organization(self, _: web.Request, token: IssuedToken) -> web.Response:
        return json_response(
            {**_entity(token.org), "state": "active", "version": 1, "selfUri": "/api/v2/organizations/me"}
        )

    async def user(self, _: web.Request, token: IssuedToken) -> web.Response:
        if token.grant not in USER_GRANTS:
            raise ApiError(400, message="A user's token is needed here, not one of client credentials.")
        id_ = f"{token.home.id[:-2]}ff"
        name = f"{token.home.name} user"
        return json_response({"id": id_, "name": name, "state": "active", "selfUri": f"/api/v2/users/{id_}"})

    async def contacts(self, request: web.Request, token: IssuedToken) -> web.Response:
        return json_response(page(list(self._cloud.contacts[token.org.name]), request.query, _CONTACTS))

    async def create_contact(self, request: web.Request, token: IssuedToken) -> web.Response:
        """Executes each POST that reaches it; the ledger counts those whose ``externalId`` came before."""
        sent = _json_object(await request.read())
        external_id = sent.get("externalId")
        self._cloud.ledger.saw_contact(token.org.name, external_id if isinstance(external_id, str) else None)
        id_ = str(uuid4())
        contact = {
            **sent,
            "id": id_,
            "dateCreated": timestamp(self._cloud.now()),
            "selfUri": f"{_CONTACTS}/{id_}",
        }
        self._cloud.contacts[token.org.name].append(contact)
        return json_response(contact)

    async def contact(self, request: web.Request, token: IssuedToken) -> web.Response:
        id_ = request.match_info["id"]
        for contact in self._cloud.contacts[token.org.name]:
            if contact["id"] == id_:
                return json_response(contact)
        raise ApiError(404)

    async def row(self, request: web.Request, _: IssuedToken) -> web.Response:
        """A row's key may hold a slash, which some write as ``/`` and some as ``%2F``; ``target`` tells."""
        info = request.match_info
        return json_response({"table": info["table"], "key": info["row"], "target": request.raw_path})

    async def download(self, request: web.Request, token: IssuedToken) -> web.Response:
        """Downloads lie elsewhere, at an absolute URL."""
        location = f"https://downloads.sandbox.invalid/{token.org.id}/{request.match_info['id']}"
        return web.Response(status=302, headers={"Location": location})

    async def echo(self, request: web.Request, token: IssuedToken) -> web.Response:
        """What arrived: the head, without the token, and the length and SHA-256 of the body."""
        body = await request.read()
        return json_response(
            {
                "org": token.org.name,
                "tokenSerial": token.serial,
                "method": request.method,
                "target": request.raw_path,
                "fields": [
                    [name.decode("latin-1"), value.decode("latin-1")]
                    for name, value in request.raw_headers
                    if name.lower() != b"authorization"
                ],
                "bodyLength": len(body),
                "bodySha256": hashlib.sha256(body).hexdigest(),
            }
        )

    async def nothing(self, _: web.Request, __: IssuedToken) -> web.Response:
        raise ApiError(404)


def _entity(org: Org) -> dict[str, str]:
    return {"id": org.id, "name": org.name}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        raise ApiError(400) from None
    if not isinstance(value, dict):
        raise ApiError(400)
    return value

"""Control over HTTP, under ``/sandbox``: the ledger, faults and revocation. Not part of Genesys Cloud."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from proxy.sandbox.answers import ApiError, json_response
from proxy.sandbox.cloud import Cloud
from proxy.sandbox.faults import KINDS, Faults
from proxy.sandbox.gate import Handler


class Control:
    """Handlers of ``/sandbox``; what they refuse is a 400 that says what was expected."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/sandbox", _checked(self.overview)),
            web.get("/sandbox/ledger", _checked(self.ledger)),
            web.delete("/sandbox/ledger", _checked(self.reset_ledger)),
            web.get("/sandbox/faults", _checked(self.faults)),
            web.put("/sandbox/faults", _checked(self.replace_faults)),
            web.post("/sandbox/faults", _checked(self.add_fault)),
            web.delete("/sandbox/faults", _checked(self.clear_faults)),
            web.delete("/sandbox/faults/{name}", _checked(self.clear_faults)),
            web.post("/sandbox/revoke", _checked(self.revoke)),
        ]

    async def overview(self, _: web.Request) -> web.Response:
        orgs = [
            {
                "id": org.id,
                "name": org.name,
                "clients": [{"id": client.id, "public": client.secret is None} for client in org.clients],
                "deployments": list(org.deployments),
            }
            for org in self._cloud.options.orgs
        ]
        faults = {name: kind.expected for name, kind in KINDS.items()}
        return json_response({"url": self._cloud.base_url, "now": self._cloud.now(), "orgs": orgs, "faults": faults})

    async def ledger(self, request: web.Request) -> web.Response:
        return json_response(self._cloud.ledger.as_json(int(request.query.get("latest", "20"))))

    async def reset_ledger(self, _: web.Request) -> web.Response:
        self._cloud.ledger.reset()
        return web.Response(status=204)

    async def faults(self, _: web.Request) -> web.Response:
        return json_response(self._cloud.faults.as_json())

    async def replace_faults(self, request: web.Request) -> web.Response:
        wanted = await _json(request)
        if not isinstance(wanted, list):
            raise ValueError("expected a list of faults")
        trial = Faults()
        for spec in wanted:
            _set(trial, spec)
        self._cloud.faults.replace(trial)
        return json_response(self._cloud.faults.as_json())

    async def add_fault(self, request: web.Request) -> web.Response:
        _set(self._cloud.faults, await _json(request))
        return json_response(self._cloud.faults.as_json())

    async def clear_faults(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        if name is not None and name not in KINDS:
            raise ValueError(f"no fault is called so; there are {', '.join(KINDS)}")
        self._cloud.faults.clear(name)
        return web.Response(status=204)

    async def revoke(self, request: web.Request) -> web.Response:
        wanted = await _json(request) if request.can_read_body else {}
        if not isinstance(wanted, dict) or not wanted.keys() <= {"org", "refreshTokens"}:
            raise ValueError('expected {"org": name or null, "refreshTokens": true or false}')
        org = wanted.get("org")
        if not isinstance(org, str | None):
            raise ValueError("org: expected a name or null")
        count = self._cloud.revoke(org, refresh_tokens=bool(wanted.get("refreshTokens", False)))
        return json_response({"revoked": count})


def _checked(handler: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError as error:
            return ApiError(400, message=str(error)).response("")

    return handle


async def _json(request: web.Request) -> Any:
    return json.loads(await request.read())


def _set(faults: Faults, spec: object) -> None:
    """Put the fault in force that an object describes.

    :raises ValueError: it describes none
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError('expected {"name": …, "value": …, "count": …, "org": …, "grant": …}')
    unknown = spec.keys() - {"name", "value", "count", "org", "grant"}
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
    count, org, grant = spec.get("count"), spec.get("org"), spec.get("grant")
    if not isinstance(count, int | None) or isinstance(count, bool):
        raise ValueError("count: expected a whole number or null")
    if not isinstance(org, str | None) or not isinstance(grant, str | None):
        raise ValueError("org, grant: expected a text or null")
    faults.set(spec["name"], spec.get("value"), count=count, org=org, grant=grant)

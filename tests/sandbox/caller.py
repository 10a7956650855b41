"""What the sandbox's tests send, and what they keep of the answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from proxy.sandbox.orgs import ACME_CLIENT_ID, ACME_CLIENT_SECRET

START = 1_700_000_000.0


class Clock:
    """Unix time that stands still until it is moved."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    fields: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def basic(client_id: str, secret: str) -> str:
    """RFC 6749 2.3.1."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


ACME_BASIC = basic(ACME_CLIENT_ID, ACME_CLIENT_SECRET)


class Caller:
    """Sends requests over loopback; targets go out as they are written."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self.session = session
        self.base_url = base_url

    async def send(
        self,
        method: str,
        target: str,
        token: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        data: Any = None,
        json: Any = None,
    ) -> Answer:
        headers = dict(fields or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = URL(self.base_url + target, encoded=True)
        async with self.session.request(
            method, url, headers=headers, data=data, json=json, allow_redirects=False
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, target: str, token: str | None = None) -> Answer:
        return await self.send("GET", target, token)

    async def ask(self, authorization: str | None = ACME_BASIC, /, **form: str) -> Answer:
        """A token request, for client credentials unless the form says otherwise."""
        fields = {} if authorization is None else {"Authorization": authorization}
        form.setdefault("grant_type", "client_credentials")
        return await self.send("POST", "/oauth/token", fields=fields, data=form)

    async def token(self, **form: str) -> str:
        answer = await self.ask(**form)
        assert answer.status == 200, answer.body
        value = answer.json["access_token"]
        assert isinstance(value, str)
        return value

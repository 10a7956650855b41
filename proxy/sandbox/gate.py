"""What each API call passes before its resource is asked: faults, the token it shows, and rate limits."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from uuid import uuid4

from aiohttp import web

from proxy.sandbox.answers import ApiError, complete, hang_up
from proxy.sandbox.cloud import Cloud
from proxy.sandbox.guests import GuestSession
from proxy.sandbox.ledger import NO_ORG, Outcome, SeenCall
from proxy.sandbox.limits import RateWindow
from proxy.sandbox.tokens import IssuedToken

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OrgResource = Callable[[web.Request, IssuedToken], Awaitable[web.Response]]
GuestResource = Callable[[web.Request, GuestSession | None], Awaitable[web.Response]]

_CODES = {
    Outcome.MISSING: "authentication.required",
    Outcome.EXPIRED: "credentials.expired",
    Outcome.IDLE: "credentials.expired",
}
"""All other refusals are ``bad.credentials``."""


class Need(Enum):
    """What a guest call must show; an org's token is refused in any case."""

    JWT = auto()
    JWT_OR_NOTHING = auto()
    NOTHING = auto()


@dataclass(slots=True)
class _Shown:
    """What a call shows in its Authorization field, before it is judged."""

    bearer: str = ""
    flaw: Outcome | None = None
    """Why there is nothing to judge."""
    token: IssuedToken | None = None


class _Call(ABC):
    """One call on its way through the gate."""

    guest: bool

    def __init__(self, cloud: Cloud, request: web.Request) -> None:
        self.cloud = cloud
        self.request = request
        self.shown = _shown(request, cloud)

    @property
    @abstractmethod
    def org(self) -> str:
        """The org's name, or ``NO_ORG``."""

    @abstractmethod
    def revoke(self) -> None:
        """Revoke what is shown, if anything is."""

    @abstractmethod
    def refusal(self, now: float) -> Outcome | None:
        """Why the call is answered with 401; None if it isn't."""

    @abstractmethod
    def too_many(self, now: float, /) -> int | None:
        """Count the call; if it is one too many, the seconds until another may be sent."""

    @abstractmethod
    async def carry_out(self) -> web.Response: ...


class _OrgCall(_Call):
    guest = False

    def __init__(self, cloud: Cloud, request: web.Request, resource: OrgResource) -> None:
        super().__init__(cloud, request)
        self._resource = resource

    @property
    def org(self) -> str:
        return NO_ORG if self.shown.token is None else self.shown.token.org.name

    def revoke(self) -> None:
        if self.shown.token is not None and not self.shown.token.revoked:
            self.shown.token.revoked = True
            self.cloud.ledger.tokens_revoked += 1

    def refusal(self, now: float) -> Outcome | None:
        if self.shown.token is None:
            return self.shown.flaw or Outcome.UNKNOWN
        return self.shown.token.refusal(now)

    def too_many(self, now: float, /) -> int | None:
        token = self.shown.token
        assert token is not None
        token.last_used_at = now
        for window in (token.window, self.cloud.org_windows[token.org.name]):
            if not window.take(now):
                return window.spent(now)[1]
        return None

    async def carry_out(self) -> web.Response:
        assert self.shown.token is not None
        return await self._resource(self.request, self.shown.token)


class _GuestCall(_Call):
    guest = True

    def __init__(self, cloud: Cloud, request: web.Request, resource: GuestResource, need: Need) -> None:
        super().__init__(cloud, request)
        self._resource = resource
        self._need = need
        self._session: GuestSession | None = None
        if self.shown.token is None and self.shown.flaw is None:
            self._session, _ = cloud.guests.judge(self.shown.bearer, cloud.now())

    @property
    def org(self) -> str:
        if self.shown.token is not None:
            return self.shown.token.org.name
        return NO_ORG if self._session is None else self._session.org.name

    def revoke(self) -> None:
        if self._session is not None:
            self.cloud.guests.revoke(self._session)

    def refusal(self, now: float) -> Outcome | None:
        if self.shown.token is not None:
            return Outcome.ORG_TOKEN
        if self._need is Need.NOTHING:
            return None
        if self._need is Need.JWT_OR_NOTHING and self.shown.flaw is Outcome.MISSING:
            return None
        return self.shown.flaw or self.cloud.guests.judge(self.shown.bearer, now)[1]

    def too_many(self, _: float, /) -> int | None:
        return None

    async def carry_out(self) -> web.Response:
        return await self._resource(self.request, self._session)


class Gate:
    """Wraps resources into handlers; each call is recorded once, with how it ended."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def org(self, resource: OrgResource) -> Handler:
        """For resources that an org's token opens."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._serve(_OrgCall(self._cloud, request, resource))

        return handle

    def guest(self, resource: GuestResource, need: Need) -> Handler:
        """For resources that web messaging guests use."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._serve(_GuestCall(self._cloud, request, resource, need))

        return handle

    async def _serve(self, call: _Call) -> web.StreamResponse:
        correlation_id = str(uuid4())
        try:
            outcome, response = await self._meet_faults(call, correlation_id)
        except asyncio.CancelledError:
            self._record(call, correlation_id, Outcome.CLIENT_GONE, None)
            raise
        self._record(call, correlation_id, outcome, None if response is None else response.status)
        if response is None:
            return hang_up(call.request)
        now = self._cloud.now()
        complete(response, correlation_id, now)
        self._tell_rate(response, call.shown.token, now)
        return response

    def _record(self, call: _Call, correlation_id: str, outcome: Outcome, status: int | None) -> None:
        seen = SeenCall(
            at=self._cloud.now(),
            org=call.org,
            method=call.request.method,
            target=call.request.raw_path,
            outcome=outcome,
            status=status,
            serial=None if call.shown.token is None else call.shown.token.serial,
            correlation_id=correlation_id,
        )
        self._cloud.ledger.saw_call(seen, guest=call.guest)

    async def _meet_faults(self, call: _Call, correlation_id: str) -> tuple[Outcome, web.Response | None]:
        """How the call ends; None instead of an answer: the connection is to be dropped."""
        faults = self._cloud.faults
        if (fault := faults.take("api_latency", org=call.org)) is not None:
            await self._cloud.pause(fault.value)
        dropped = faults.take("api_drop", org=call.org)
        if dropped is not None and dropped.value == "before":
            return Outcome.FAULT, None
        try:
            outcome, response = Outcome.ACCEPTED, await self._judge(call)
        except ApiError as error:
            outcome, response = error.outcome, error.response(correlation_id)
        return outcome, None if dropped is not None else response

    async def _judge(self, call: _Call) -> web.Response:
        """Let the resource answer if nothing speaks against it.

        :raises ApiError: something does, or the resource says so
        """
        cloud = self._cloud
        await _read(call.request)
        if (fault := cloud.faults.take("api_status", org=call.org)) is not None:
            raise ApiError(fault.value, outcome=Outcome.FAULT)
        if cloud.faults.take("api_revoked", org=call.org) is not None:
            call.revoke()
        if cloud.faults.take("api_unauthorized", org=call.org) is not None:
            raise ApiError(401, outcome=Outcome.FAULT_UNAUTHORIZED)
        ahead = cloud.faults.take("clock_ahead", org=call.org)
        refusal = call.refusal(cloud.now() + (0 if ahead is None else ahead.value))
        if refusal is not None:
            raise ApiError(401, _CODES.get(refusal), outcome=refusal)
        if (fault := cloud.faults.take("api_throttled", org=call.org)) is not None:
            raise _too_many(fault.value)
        retry_after = call.too_many(cloud.now())
        if retry_after is not None:
            raise _too_many(retry_after)
        return await call.carry_out()

    def _tell_rate(self, response: web.Response, token: IssuedToken | None, now: float) -> None:
        options = self._cloud.options
        if options.rate_limit is None:
            return
        window = RateWindow(options.rate_limit, options.rate_window) if token is None else token.window
        count, reset = window.spent(now)
        response.headers["inin-ratelimit-count"] = str(count)
        response.headers["inin-ratelimit-allowed"] = str(options.rate_limit)
        response.headers["inin-ratelimit-reset"] = str(reset)


def _shown(request: web.Request, cloud: Cloud) -> _Shown:
    values = request.headers.getall("Authorization", [])
    if not values:
        return _Shown(flaw=Outcome.MISSING)
    scheme, _, bearer = values[0].partition(" ")
    bearer = bearer.strip()
    if len(values) > 1 or scheme.lower() != "bearer":
        return _Shown(flaw=Outcome.MALFORMED)
    if not bearer:
        return _Shown(flaw=Outcome.MISSING)
    return _Shown(bearer, token=cloud.tokens.find(bearer))


async def _read(request: web.Request) -> None:
    """The whole body, before anything is decided: a client that is refused may still be sending.

    :raises ApiError: 413, or 400 for a body that ends too early or is badly framed
    """
    try:
        await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(413, outcome=Outcome.BAD_REQUEST) from None
    except web.RequestPayloadError:
        raise ApiError(400, outcome=Outcome.BAD_REQUEST) from None


def _too_many(seconds: float) -> ApiError:
    return ApiError(429, retry_after=round(seconds), outcome=Outcome.RATE_LIMITED)

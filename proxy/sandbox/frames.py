"""The web messaging protocol: what the server answers to each frame. No socket, no clock."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from proxy.sandbox.answers import timestamp
from proxy.sandbox.guests import GuestBook, GuestSession

SESSION_NOT_FOUND = 4007


@dataclass(frozen=True, slots=True)
class Reply:
    """Frames to send, and whether the socket is closed after them."""

    frames: tuple[str, ...]
    close: bool = False


class Conversation:
    """One socket's session. The tokens that count are those inside the frames."""

    def __init__(self, guests: GuestBook, deployment: str) -> None:
        self._guests = guests
        self._deployment = deployment
        self._token: str | None = None
        self._session: GuestSession | None = None

    def receive(self, text: str, now: float) -> Reply:
        """Answer one frame; nothing in a frame raises."""
        try:
            frame = json.loads(text)
        except ValueError:
            return _refused(400, "Request failed.")
        if not isinstance(frame, dict) or not isinstance(frame.get("token"), str):
            return _refused(400, "Request failed.")
        match frame.get("action"):
            case "configureSession":
                return self._configure(frame)
            case "configureAuthenticatedSession":
                return self._configure_authenticated(frame, now)
            case "onMessage" | "echo" | "getJwt" | "closeSession" as action:
                if self._session is None or frame["token"] != self._token:
                    return _refused(SESSION_NOT_FOUND, "session not found error message")
                return self._in_session(action, self._session, frame, now)
            case _:
                return _refused(400, "Request failed.")

    def _configure(self, frame: dict[str, Any]) -> Reply:
        if frame.get("deploymentId") != self._deployment:
            return _refused(400, "Deployment not found")
        session, new = self._guests.anonymous(self._deployment, frame["token"])
        if session is None:
            return _refused(400, "Deployment not found")
        return self._configured(session, frame["token"], new=new)

    def _configure_authenticated(self, frame: dict[str, Any], now: float) -> Reply:
        if frame.get("deploymentId") != self._deployment:
            return _refused(400, "Deployment not found")
        data = frame.get("data")
        session, refusal = self._guests.judge(str(data.get("code")) if isinstance(data, dict) else "", now)
        if session is None or refusal is not None:
            return _refused(401, "User is unauthorized")
        return self._configured(session, frame["token"], new=not session.messages)

    def _configured(self, session: GuestSession, token: str, *, new: bool) -> Reply:
        self._session = session
        self._token = token
        body = {"connected": True, "newSession": new, "readOnly": False, "clearedExistingSession": False}
        return _reply("response", "SessionResponse", body)

    def _in_session(self, action: str, session: GuestSession, frame: dict[str, Any], now: float) -> Reply:
        match action:
            case "getJwt":
                value, expires_at = self._guests.jwt(session, now)
                return _reply("response", "JwtResponse", {"jwt": value, "exp": expires_at})
            case "closeSession":
                closed = _reply("message", "ConnectionClosedEvent", {})
                return Reply(closed.frames, close=True)
        message = _message(frame.get("message"), now)
        if action == "echo":
            return _reply("response", "StructuredMessage", message)
        session.add(message)
        return _reply("message", "StructuredMessage", message)


def _message(sent: object, now: float) -> dict[str, Any]:
    """A guest's message as the server hands it out."""
    parts = sent if isinstance(sent, dict) else {}
    id_ = str(uuid4())
    known = {name: parts[name] for name in ("text", "content", "events", "metadata") if name in parts}
    return {
        "id": id_,
        "type": parts.get("type", "Text"),
        "direction": "Inbound",
        "channel": {"time": timestamp(now), "messageId": id_},
        **known,
    }


def _reply(type_: str, class_: str, body: object, code: int = 200) -> Reply:
    return Reply((json.dumps({"type": type_, "class": class_, "code": code, "body": body}),))


def _refused(code: int, text: str) -> Reply:
    return _reply("response", "string", text, code)

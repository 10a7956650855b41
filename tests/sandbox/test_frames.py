"""The web messaging protocol, frame by frame."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.sandbox import SandboxOptions
from proxy.sandbox.frames import Conversation
from proxy.sandbox.guests import GuestBook
from proxy.sandbox.orgs import ACME_DEPLOYMENT_ID, GLOBEX_DEPLOYMENT_ID

NOW = 1_700_000_000.0
TOKEN = "11111111-1111-4111-8111-111111111111"


class Guest:
    """One guest's side of a socket."""

    def __init__(self, book: GuestBook | None = None) -> None:
        self.book = book or GuestBook(SandboxOptions())
        self.conversation = Conversation(self.book, ACME_DEPLOYMENT_ID)

    def say(self, action: str, token: str = TOKEN, **more: object) -> Any:
        reply = self.conversation.receive(json.dumps({"action": action, "token": token, **more}), NOW)
        assert len(reply.frames) == 1
        return json.loads(reply.frames[0])

    def configure(self) -> Any:
        return self.say("configureSession", deploymentId=ACME_DEPLOYMENT_ID)


def test_a_session_is_configured_and_known_when_it_comes_back() -> None:
    book = GuestBook(SandboxOptions())
    first, second = Guest(book).configure(), Guest(book).configure()
    assert (first["type"], first["class"], first["code"]) == ("response", "SessionResponse", 200)
    assert first["body"]["newSession"]
    assert not second["body"]["newSession"]


def test_a_message_comes_back_as_the_server_hands_it_out() -> None:
    guest = Guest()
    guest.configure()
    frame = guest.say("onMessage", message={"type": "Text", "text": "Hi!", "metadata": {"customMessageId": "1"}})
    assert (frame["type"], frame["class"]) == ("message", "StructuredMessage")
    assert frame["body"]["text"] == "Hi!"
    assert frame["body"]["metadata"] == {"customMessageId": "1"}
    assert frame["body"]["channel"]["time"] == "2023-11-14T22:13:20.000Z"


def test_messages_are_kept_and_echoes_are_not() -> None:
    guest = Guest()
    guest.configure()
    guest.say("echo", message={"type": "Text", "text": "ping"})
    guest.say("onMessage", message={"type": "Text", "text": "Hi!"})
    session, _ = guest.book.anonymous(ACME_DEPLOYMENT_ID, TOKEN)
    assert session is not None
    assert [message["text"] for message in session.messages] == ["Hi!"]


def test_a_session_can_have_a_jwt() -> None:
    guest = Guest()
    guest.configure()
    body = guest.say("getJwt")["body"]
    assert body["exp"] == NOW + 900
    assert guest.book.judge(body["jwt"], NOW)[1] is None


def test_an_authenticated_session_shows_a_jwt_in_its_frame() -> None:
    guest = Guest()
    value, _ = guest.book.exchange(ACME_DEPLOYMENT_ID, "code", NOW)
    answer = guest.say("configureAuthenticatedSession", deploymentId=ACME_DEPLOYMENT_ID, data={"code": value})
    assert answer["class"] == "SessionResponse"


@pytest.mark.parametrize("data", [None, {}, {"code": "no jwt"}])
def test_an_authenticated_session_without_a_good_jwt_is_unauthorized(data: object) -> None:
    answer = Guest().say("configureAuthenticatedSession", deploymentId=ACME_DEPLOYMENT_ID, data=data)
    assert (answer["code"], answer["body"]) == (401, "User is unauthorized")


@pytest.mark.parametrize("action", ["configureSession", "configureAuthenticatedSession"])
def test_a_session_for_another_deployment_than_the_sockets_is_not_found(action: str) -> None:
    answer = Guest().say(action, deploymentId=GLOBEX_DEPLOYMENT_ID)
    assert (answer["code"], answer["body"]) == (400, "Deployment not found")


def test_a_frame_before_the_session_or_with_another_token_finds_none() -> None:
    guest = Guest()
    assert guest.say("onMessage", message={"text": "Hi!"})["code"] == 4007
    guest.configure()
    assert guest.say("onMessage", token="another", message={"text": "Hi!"})["code"] == 4007


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"token": 1}', '{"token": "t", "action": "dance"}', "nul"])
def test_a_frame_that_makes_no_sense_is_answered_with_400(text: str) -> None:
    reply = Conversation(GuestBook(SandboxOptions()), ACME_DEPLOYMENT_ID).receive(text, NOW)
    assert json.loads(reply.frames[0])["code"] == 400


def test_closing_a_session_is_answered_and_then_closes_the_socket() -> None:
    guest = Guest()
    guest.configure()
    reply = guest.conversation.receive(json.dumps({"action": "closeSession", "token": TOKEN}), NOW)
    assert json.loads(reply.frames[0])["class"] == "ConnectionClosedEvent"
    assert reply.close

"""Messages as others read them: h11, and llhttp through httptools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import h11
import httptools

_MOST = 1 << 20
"""Bytes of a head that h11 takes."""
_BLANK_LINES = re.compile(rb"\A(?:\r\n)+")
ASCII = bytes(range(0x80)) + b"x" * 0x80


@dataclass(slots=True)
class Message:
    """A request or an answer."""

    start: tuple[bytes, ...]
    """Method and target, or the status."""
    fields: list[tuple[bytes, bytes]]
    content: bytearray = field(default_factory=bytearray)
    whole: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


class Requests:
    """h11 as a server: the requests of one connection, one after the other, as their bytes come.

    :ivar messages: the last perhaps not whole
    :ivar error: why what follows is no request
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.error: str | None = None
        self._data = b""
        self._reader: h11.Connection | None = None
        self._over = False

    def feed(self, data: bytes) -> int:
        """How many more are whole now."""
        if self.error is not None or self._over:
            return 0
        before = len(self.whole)
        try:
            while data and self._read(data):
                data, self._data = self._data, b""
        except h11.RemoteProtocolError as error:
            self.error = str(error)
        return len(self.whole) - before

    def _read(self, data: bytes) -> bool:
        """Whether a request ended, and another may follow, which begins with ``_data``."""
        if self._reader is None:
            # h11 knows neither blank lines before a request (RFC 9112 2.2) nor bytes from 0x80 on in a target.
            data = _BLANK_LINES.sub(b"", self._data + data, 1)
            line, line_end, rest = data.partition(b"\n")
            if not line_end:
                self._data = data
                return False
            data, self._data = line.translate(ASCII) + line_end + rest, b""
            self._reader = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST)
        self._reader.receive_data(data)
        while True:
            event = self._reader.next_event()
            match event:
                case h11.Request():
                    self.messages.append(Message((event.method, event.target), list(event.headers)))
                case h11.Data():
                    self.messages[-1].content += event.data
                case h11.EndOfMessage():
                    self.messages[-1].whole = True
                    self._data, _ = self._reader.trailing_data
                    self._over = self._reader.their_state is h11.MUST_CLOSE
                    self._reader = None
                    return not self._over
                case _:
                    return False

    @property
    def whole(self) -> list[Message]:
        return [message for message in self.messages if message.whole]


def read_answer(data: bytes, method: bytes, *, ended: bool) -> tuple[list[int], Message | None, bytes]:
    """The first answer in what a connection brought: interim statuses, the final one, and what follows it.

    Raises ``h11.RemoteProtocolError`` where it is none.
    """
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    if data:  # none would mean the end to h11
        reader.receive_data(data)
    if ended:
        reader.receive_data(b"")
    interim: list[int] = []
    answer: Message | None = None
    while True:
        event = reader.next_event()
        match event:
            case h11.InformationalResponse():
                interim.append(event.status_code)
            case h11.Response():
                answer = Message((b"%d" % event.status_code,), list(event.headers))
            case h11.Data() if answer is not None:
                answer.content += event.data
            case h11.EndOfMessage() if answer is not None:
                answer.whole = True
                return interim, answer, reader.trailing_data[0]
            case _:
                return interim, answer, b""


class LlhttpRequests:
    """llhttp's reading of the requests in all that a connection brought, up to the first that asks for an upgrade.

    Bytes from 0x80 on are another's: it bears none in a target.
    """

    def __init__(self, data: bytes) -> None:
        self.messages: list[Message] = []
        self.error: str | None = None
        self.upgraded = False
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data.translate(ASCII))
        except httptools.HttpParserUpgrade:
            self.upgraded = True
        except httptools.HttpParserError as error:
            self.error = type(error).__name__

    def on_message_begin(self) -> None:
        self.messages.append(Message((b"",), []))

    def on_url(self, url: bytes) -> None:
        (before,) = self.messages[-1].start
        self.messages[-1].start = (before + url,)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.messages[-1].fields.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        self.messages[-1].content += data

    def on_message_complete(self) -> None:
        self.messages[-1].whole = True

    @property
    def whole(self) -> list[Message]:
        return [message for message in self.messages if message.whole]


def contents(messages: Sequence[Message]) -> list[bytes]:
    """What ``LlhttpRequests`` would say that these contain."""
    return [bytes(message.content).translate(ASCII) for message in messages]

"""Reading heads: ``proxy.wire.syntax`` beside httptools (llhttp), what each costs and what each lets through."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import httptools

from proxy.errors import BadRequest, UpstreamProtocolError
from proxy.wire.syntax import parse_request, parse_response, request_length, response_length
from tests.bench.load import FIELDS, head
from tests.bench.programs import RATE_LIMIT

REQUEST = head(8080, "/t/acme", FIELDS)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 23:48:44 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 0\r\nConnection: keep-alive\r\n" + RATE_LIMIT.encode() + b"\r\n"
)


class Reader:
    """What httptools tells of a message, kept as whoever uses it has to keep it."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.begun = 0
        self.heads = 0
        self.completed = 0

    def on_message_begin(self) -> None:
        self.begun += 1
        self.url = b""
        self.fields = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_message_complete(self) -> None:
        self.completed += 1


# --- what each lets through ---

_HOST = b"Host: a.example\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

ODD_REQUESTS = {
    "an unknown method (PURR)": b"PURR / HTTP/1.1\r\n" + _HOST,
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + _HOST,
    "a blank before the colon": b"GET / HTTP/1.1\r\n" + _HOST + b"X-A : b\r\n",
    "a folded line": b"GET / HTTP/1.1\r\n" + _HOST + b"X-A: b\r\n c\r\n",
    "a zero byte in a value": b"GET / HTTP/1.1\r\n" + _HOST + b"X-A: b\x00c\r\n",
    "a bare CR in a value": b"GET / HTTP/1.1\r\n" + _HOST + b"X-A: b\rc\r\n",
    "a line that ends in LF alone": b"GET / HTTP/1.1\r\n" + _HOST + b"X-A: b\n",
    "Content-Length and chunked": b"POST / HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\n" + _CHUNKED,
    "Content-Length: 3, 3": b"POST / HTTP/1.1\r\n" + _HOST + b"Content-Length: 3, 3\r\n",
    "Content-Length: +3": b"POST / HTTP/1.1\r\n" + _HOST + b"Content-Length: +3\r\n",
    "Content-Length twice, 3 and 4": b"POST / HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: xchunked, chunked": b"POST / HTTP/1.1\r\n"
    + _HOST
    + b"Transfer-Encoding: xchunked, chunked\r\n",
    "Transfer-Encoding: chunked, gzip": b"POST / HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding in HTTP/1.0": b"POST / HTTP/1.0\r\n" + _HOST + _CHUNKED,
    "a blank in the target": b"GET /a b HTTP/1.1\r\n" + _HOST,
    "a fragment in the target": b"GET /a#b HTTP/1.1\r\n" + _HOST,
}

ODD_ANSWERS = {
    "an answer with Content-Length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + _CHUNKED,
    "an answer with Content-Length: 3, 3": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n",
    "an answer in HTTP/2.0": b"HTTP/2.0 200 OK\r\n",
}


def wire_accepts(message: bytes) -> bool:
    """Whether our grammar takes this head, given without its empty line."""
    try:
        if message.startswith(b"HTTP/"):
            response_length(b"GET", parse_response(message))
        else:
            request = parse_request(message)
            request_length(request.minor, request.section.fields)
    except (BadRequest, UpstreamProtocolError):
        return False
    return True


def llhttp_accepts(message: bytes) -> bool:
    """Whether httptools reads this head to its end."""
    reader = Reader()
    answer = message.startswith(b"HTTP/")
    parser = httptools.HttpResponseParser(reader) if answer else httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(message + b"\r\n")
    except httptools.HttpParserUpgrade:
        return True
    except httptools.HttpParserError:
        return False
    return reader.heads == 1


def pipelined() -> int:
    """Requests that httptools has read once it was given three in one piece."""
    reader = Reader()
    httptools.HttpRequestParser(reader).feed_data(REQUEST * 3)
    return reader.completed


def answers_to_head() -> int:
    """Answers that httptools takes two answers to HEAD for, each with the length that GET's would have."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    reader = Reader()
    httptools.HttpResponseParser(reader).feed_data(answer * 2)
    return reader.begun


def verdicts() -> list[tuple[str, bool, bool]]:
    """Each odd head by name: whether ours takes it, and whether llhttp does."""
    return [
        (name, wire_accepts(message), llhttp_accepts(message))
        for name, message in itertools.chain(ODD_REQUESTS.items(), ODD_ANSWERS.items())
    ]


# --- what each costs ---


def _wire_request(message: bytes) -> None:
    # As ``wire.stream`` takes a head: up to its empty line.
    parse_request(message[: message.index(b"\r\n\r\n") + 2])


def _wire_answer(message: bytes) -> None:
    response_length(b"GET", parse_response(message[: message.index(b"\r\n\r\n") + 2]))


def _llhttp_request() -> Callable[[bytes], None]:
    parser = httptools.HttpRequestParser(Reader())  # one for a connection, as httptools means it

    def read(message: bytes) -> None:
        parser.feed_data(message)
        parser.get_method(), parser.get_http_version(), parser.should_keep_alive()

    return read


def _llhttp_answer() -> Callable[[bytes], None]:
    parser = httptools.HttpResponseParser(Reader())

    def read(message: bytes) -> None:
        parser.feed_data(message)
        parser.get_status_code(), parser.get_http_version(), parser.should_keep_alive()

    return read


def costs(seconds: float = 0.25) -> list[tuple[str, float, float]]:
    """Kinds of head with the microseconds that ours and httptools take, each the best of five rounds."""
    targets = [REQUEST.replace(b"/users/me?", b"/users/%d?" % number) for number in range(5_000)]
    new = [REQUEST.replace(b"\r\n\r\n", b"\r\nX-Request-Id: %d\r\n\r\n" % number) for number in range(5_000)]
    kinds = (
        ("the same request again", [REQUEST], _wire_request, _llhttp_request()),
        ("another target, fields seen before", targets, _wire_request, _llhttp_request()),
        ("fields not seen before", new, _wire_request, _llhttp_request()),
        ("an answer", [ANSWER], _wire_answer, _llhttp_answer()),
    )
    found = []
    for name, messages, wire, llhttp in kinds:
        rounds = [(_time(wire, messages, seconds / 5), _time(llhttp, messages, seconds / 5)) for _ in range(5)]
        found.append((name, min(a for a, _ in rounds) * 1e6, min(b for _, b in rounds) * 1e6))
    return found


def _time(read: Callable[[bytes], None], messages: list[bytes], seconds: float) -> float:
    """Seconds of CPU for one message."""
    count, endless = 0, itertools.cycle(messages)
    started = time.process_time()
    while (took := time.process_time() - started) < seconds:
        for message in itertools.islice(endless, 200):
            read(message)
        count += 200
    return took / count

"""The labels of the requests that parsers disagree on are what a reader of the RFCs would give."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance import desync
from tests.conformance.cases import Names
from tests.conformance.desync import ODD_BYTES, PLACES, Label, label
from tests.conformance.grammar import Illegal, read_reply, read_request

_HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "request_, expected",
    [
        (b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", Label.RELAYED),
        (b"GET /x HTTP/1.0\r\n\r\n", Label.RELAYED),
        (b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n", Label.ANSWERED),
        (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", Label.REFUSED),
        (b"GET /x HTTP/1.1\r\n\r\n", Label.REFUSED),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Label.REFUSED),
        (b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n", Label.REFUSED),
        (b"GET /x HTTP/1.1\r\nHost: a\n\n", Label.REFUSED),
        (b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n", Label.REFUSED),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", Label.ANSWERED),
        (_HEAD + b"Content-Length: 2\r\n\r\nok", Label.RELAYED),
        (_HEAD + b"Content-Length: 02\r\n\r\nok", Label.ANSWERED),
        (_HEAD + b"Content-Length: 3\r\n\r\nok", Label.ODD),
        (_HEAD + b"Content-Length: +2\r\n\r\nok", Label.REFUSED),
        (_HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", Label.REFUSED),
        (_HEAD + b"Content-Length: 18446744073709551618\r\n\r\nok", Label.REFUSED),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Label.RELAYED),
        (_HEAD + b"Transfer-Encoding: \tChunked \r\n\r\n0\r\n\r\n", Label.RELAYED),
        (_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Label.ANSWERED),
        (_HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Label.REFUSED),
        (_HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", Label.REFUSED),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nokX\r\n0\r\n\r\n", Label.ODD),
        (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n", Label.ODD),
        (_HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Label.REFUSED),
        (_HEAD + b"X: a\r\n b\r\n\r\n", Label.REFUSED),
        (_HEAD + b"X: a\x00b\r\n\r\n", Label.REFUSED),
        (_HEAD + b"X: a\xffb\r\n\r\n", Label.ANSWERED),
        (b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Label.REFUSED),
    ],
)
def test_a_request_gets_the_label_that_the_rfcs_give_it(request_: bytes, expected: Label) -> None:
    assert label(request_) == expected


@pytest.mark.parametrize(
    "answer, content, rest",
    [
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nokHTTP", b"ok", b"HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx", b"ok", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None, b""),
    ],
)
def test_an_answer_ends_where_the_rfcs_say(answer: bytes, content: bytes | None, rest: bytes) -> None:
    reply = read_reply(answer)
    assert (reply.status, reply.content, reply.rest) == (200, content, rest)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/1.1 200\tOK\r\n\r\n", b"HTTP/1.1 2000\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: v\r\n\r\n", b"HTTP/1.1 200 OK\r\nX : v\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokX\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_illegal(answer: bytes) -> None:
    with pytest.raises(Illegal):
        read_reply(answer)


def test_what_follows_a_request_is_not_part_of_it() -> None:
    message = read_request(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: v\r\n\r\nGET /next")
    assert (message.content, message.rest) == (b"ok", b"GET /next")


def test_bytes_without_a_whole_head_are_no_request() -> None:
    with pytest.raises(Illegal):
        read_request(b"hello")


def test_the_corpus_puts_each_odd_byte_in_each_place() -> None:
    families = Counter(name.partition(":")[0] for name in desync.corpus(Names("a:1", "/t/x")))
    assert families["odd byte in transfer encoding"] == len(ODD_BYTES) * len(PLACES) == 130
    assert families["odd byte beside content length"] == 130
    assert sum(families.values()) > 600

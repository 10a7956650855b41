"""The runner reads what a proxy answers as it stands."""

from __future__ import annotations

import pytest

from tests.conformance.messages import BAD_CHUNK, MALFORMED, NO_STATUS, TRAILER, read_answers, values


def test_interim_answers_belong_to_the_final_one() -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    (answer,), rest = read_answers(data, ["GET"], ended=False)
    assert (answer.status, answer.interim, answer.body, answer.complete, rest) == (200, [103], b"ok", True, b"")


def test_answers_follow_one_another_each_by_its_own_framing() -> None:
    data = (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 33\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nX-T: v\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        b"HTTP/1.1 200 OK\r\n\r\nto the end"
    )
    answers, _ = read_answers(data, ["GET", "GET", "HEAD", "GET"], ended=True)
    assert [(each.status, each.framing, each.body, each.complete) for each in answers] == [
        (304, "cl", b"", True),
        (200, "te", b"ok", True),
        (200, "cl", b"", True),
        (200, "eof", b"to the end", True),
    ]
    assert values(answers[1].fields, "X-T") == []
    assert values(answers[1].fields, TRAILER + "X-T") == ["X-T: v"]


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhalf",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhalf",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_not_complete(body: bytes) -> None:
    (answer,), rest = read_answers(b"HTTP/1.1 200 OK\r\n" + body, ["GET"], ended=True)
    assert (answer.complete, answer.body, rest) == (False, b"half", b"")


def test_an_answer_without_length_is_complete_at_the_end_of_the_connection_only() -> None:
    (answer,), _ = read_answers(b"HTTP/1.1 200 OK\r\n\r\nsome", ["GET"], ended=False)
    assert not answer.complete


def test_what_follows_a_switch_of_protocols_is_the_tunnel() -> None:
    (answer,), tunnel = read_answers(b"HTTP/1.1 101 Switching Protocols\r\n\r\nframes", ["GET"], ended=False)
    assert (answer.complete, tunnel) == (True, b"frames")


def test_both_framings_of_an_answer_are_seen() -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    (answer,), _ = read_answers(data, ["GET"], ended=False)
    assert (answer.framing, answer.body) == ("both", b"ok")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-", NO_STATUS),
        (b"HTP/1.1 200 OK\r\n\r\n", MALFORMED),
        (b"HTTP/2 200 OK\r\n\r\n", MALFORMED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n", BAD_CHUNK),
    ],
)
def test_bytes_that_are_no_answer_have_no_status(data: bytes, status: int) -> None:
    (answer,), _ = read_answers(data, ["GET"], ended=True)
    assert (answer.status, answer.complete) == (status, False)

"""Heads: what is read, and what is refused because it could be read in two ways."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.fields import Fields, Shape
from proxy.errors import (
    BadRequest,
    FieldsTooLarge,
    ProxyError,
    UnknownCoding,
    UpstreamProtocolError,
    VersionNotSupported,
)
from proxy.wire.syntax import (
    CHUNKED,
    LONGEST_LENGTH,
    MOST_FIELDS,
    SMALL,
    UNTIL_CLOSE,
    parse_fields,
    parse_request,
    parse_response,
    request_length,
    response_length,
    stays_open,
)

TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
VALUE = [*range(0x20, 0x7F), 0x09, *range(0x80, 0x100)]
CONTROL = [byte for byte in [*range(0x20), 0x7F] if byte != 0x09]

names = st.text(TOKEN, min_size=1, max_size=12).map(str.encode)
values = st.lists(st.sampled_from(VALUE), max_size=20).map(bytes)
sections = st.lists(st.tuples(names, values), max_size=12)


def block(section: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b:%b\r\n" % field for field in section)


def fields(*lines: bytes) -> Fields:
    return parse_fields(b"".join(line + b"\r\n" for line in lines), BadRequest)


# --- sections ---


@given(sections)
def test_every_legal_section_is_read_to_the_same_names_and_values(section: list[tuple[bytes, bytes]]) -> None:
    read = parse_fields(block(section), BadRequest)
    assert read.shape.names == tuple(name.lower() for name, _ in section)
    assert read.lines == [b"%b:%b" % field for field in section]
    assert read.block == block(section)
    for name in read.shape.names:
        expected = [value.strip(b" \t") for other, value in section if other.lower() == name]
        assert read.get(name) == b", ".join(expected)
        assert name in read


@given(sections.filter(bool), st.sampled_from(CONTROL), st.data())
def test_a_control_character_anywhere_in_a_section_is_refused(
    section: list[tuple[bytes, bytes]], control: int, data: st.DataObject
) -> None:
    whole = block(section)
    at = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadRequest):
        parse_fields(whole[:at] + bytes([control]) + whole[at:], BadRequest)


@given(sections.filter(bool), st.data())
def test_a_section_that_lacks_one_of_its_line_ends_bytes_is_refused(
    section: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    whole = block(section)
    at = data.draw(st.sampled_from([at for at, byte in enumerate(whole) if byte in b"\r\n"]))
    with pytest.raises(BadRequest):
        parse_fields(whole[:at] + whole[at + 1 :], BadRequest)


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b":", b": x", b" x: y", b"\tx: y", b"x : y", b"x\t: y", b"x y: z", b"x(y): z", b"\xe9: y",
     b'"x": y', b"x,y: z"],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", b"a: b\r\n"])
def test_a_line_that_is_no_field_line_is_refused(line: bytes, before: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_fields(before + line + b"\r\n", BadRequest)
    with pytest.raises(UpstreamProtocolError):
        parse_fields(before + line + b"\r\n", UpstreamProtocolError)


def test_there_may_be_so_many_fields_and_no_more() -> None:
    assert len(fields(*[b"a: b"] * MOST_FIELDS).shape.names) == MOST_FIELDS
    with pytest.raises(FieldsTooLarge):
        fields(*[b"a: b"] * (MOST_FIELDS + 1))
    with pytest.raises(UpstreamProtocolError):
        parse_fields(b"a: b\r\n" * (MOST_FIELDS + 1), UpstreamProtocolError)


# --- requests ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1", (b"GET", b"/", 1)),
        (b"GET / HTTP/1.0", (b"GET", b"/", 0)),
        (b"GET / HTTP/1.2", (b"GET", b"/", 1)),
        (b"GET / HTTP/1.9", (b"GET", b"/", 1)),
        (b"get / HTTP/1.1", (b"get", b"/", 1)),
        (b"M-SEARCH * HTTP/1.1", (b"M-SEARCH", b"*", 1)),
        (b"OPTIONS * HTTP/1.1", (b"OPTIONS", b"*", 1)),
        (b"GET http://a/b HTTP/1.1", (b"GET", b"http://a/b", 1)),
        (b"GET /a%2Fb//../\xc3\xa9?x=%&y=[] HTTP/1.1", (b"GET", b"/a%2Fb//../\xc3\xa9?x=%&y=[]", 1)),
    ],
)
def test_a_request_line_is_taken_apart_as_it_came(line: bytes, expected: tuple[bytes, bytes, int]) -> None:
    head = parse_request(line + b"\r\nHost: a\r\n")
    assert (head.method, head.target, head.minor) == expected
    assert head.section.fields.get(b"host") == b"a"


@pytest.mark.parametrize(
    "line",
    [
        b"", b"GET", b"GET /", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ",
        b"GET\t/ HTTP/1.1", b"GET / /x HTTP/1.1", b"GET /#x HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\x7f HTTP/1.1",
        b"G(T / HTTP/1.1", b"G\xc9T / HTTP/1.1", b"GET / http/1.1", b"GET / HTTP/1", b"GET / HTTP/1.1\n",
        b"GET /\rHTTP/1.1", b"GET / HTTP/11", b"GET / HTTP/1.10", b"GET / HTTP/0x1.1", b"GET / HTP/1.1",
    ],
)  # fmt: skip
def test_a_malformed_request_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_request(line + b"\r\n")
    assert type(refused.value) is BadRequest


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/0.0", b"HTTP/2.0", b"HTTP/2.1", b"HTTP/3.0"])
def test_another_version_is_told_so(version: bytes) -> None:
    with pytest.raises(VersionNotSupported):
        parse_request(b"GET / %b\r\n" % version)


@pytest.mark.parametrize("size", [SMALL, SMALL + 1])
def test_small_and_large_sections_are_read_alike(size: int) -> None:
    padding = b"X: %b\r\n" % (b"x" * (size - len(b"Content-Length: 3\r\nX: \r\n")))
    head = b"GET / HTTP/1.1\r\nContent-Length: 3\r\n" + padding
    for _ in range(2):
        read = parse_request(head)
        assert read.section.length == 3
        assert len(read.section.fields.block) == size


def test_the_same_section_is_read_once_for_each_version() -> None:
    section = b"Connection: keep-alive\r\nX-Once: 1\r\n"
    first, again, old = (
        parse_request(b"GET /%b\r\n" % rest + section) for rest in (b"a HTTP/1.1", b"b HTTP/1.1", b" HTTP/1.0")
    )
    assert first.section is again.section
    assert old.section is not first.section


@pytest.mark.parametrize(
    ("version", "lines", "upgrade"),
    [
        (b"1.1", b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n", b"websocket"),
        (b"1.1", b"Connection: keep-alive, upgrade\r\nUpgrade: h2c\r\n", b"h2c"),
        (b"1.1", b"Upgrade: websocket\r\n", None),
        (b"1.1", b"Connection: Upgrade\r\n", None),
        (b"1.0", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", None),
    ],
)
def test_an_upgrade_is_one_that_connection_names(version: bytes, lines: bytes, upgrade: bytes | None) -> None:
    assert parse_request(b"GET / HTTP/%b\r\n" % version + lines).section.upgrade == upgrade


# --- where a message's body ends ---


@pytest.mark.parametrize(
    ("minor", "lines", "length"),
    [
        (1, [], 0),
        (0, [], 0),
        (1, [b"Content-Length: 0"], 0),
        (1, [b"Content-Length: 42"], 42),
        (0, [b"Content-Length:\t42\t"], 42),
        (1, [b"Content-Length: 007"], 7),
        (1, [b"Content-Length: " + b"9" * LONGEST_LENGTH], 10**LONGEST_LENGTH - 1),
        (1, [b"Transfer-Encoding: chunked"], CHUNKED),
        (1, [b"Transfer-Encoding: Chunked "], CHUNKED),
    ],
)
def test_a_requests_body_ends_where_one_reading_says(minor: int, lines: list[bytes], length: int) -> None:
    assert request_length(minor, fields(*lines)) == length


AMBIGUOUS_LENGTHS = [
    b"", b"5 5", b"5,5", b"+5", b"-5", b"5.0", b"0x5", b"5_0", b"\xb2", b"\xa05", b"9" * (LONGEST_LENGTH + 1), b"five",
]  # fmt: skip


@pytest.mark.parametrize("value", AMBIGUOUS_LENGTHS)
def test_a_length_that_is_not_one_number_is_refused_either_way(value: bytes) -> None:
    with pytest.raises(BadRequest):
        request_length(1, fields(b"Content-Length: " + value))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n" % value
    with pytest.raises(UpstreamProtocolError):
        response_length(b"GET", parse_response(answer))


@pytest.mark.parametrize(
    ("minor", "lines", "error"),
    [
        (1, [b"Content-Length: 5", b"Content-Length: 5"], BadRequest),
        (1, [b"Content-Length: 5", b"Content-Length: 6"], BadRequest),
        (1, [b"Content-Length: 5", b"Transfer-Encoding: chunked"], BadRequest),
        (1, [b"Content-Length: 5", b"Transfer-Encoding: identity"], BadRequest),
        (0, [b"Transfer-Encoding: chunked"], BadRequest),
        (1, [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], UnknownCoding),
        (1, [b"Transfer-Encoding:"], UnknownCoding),
        (1, [b"Transfer-Encoding: gzip, chunked"], UnknownCoding),
        (1, [b"Transfer-Encoding: xchunked"], UnknownCoding),
        (1, [b"Transfer-Encoding: chunked, identity"], UnknownCoding),
        (1, [b"Transfer-Encoding: \xa0chunked"], UnknownCoding),
    ],
)
def test_a_requests_body_whose_end_is_unclear_is_refused(
    minor: int, lines: list[bytes], error: type[ProxyError]
) -> None:
    with pytest.raises(error):
        request_length(minor, fields(*lines))


@pytest.mark.parametrize(
    ("method", "start", "lines", "length"),
    [
        (b"GET", b"HTTP/1.1 200 OK", b"", UNTIL_CLOSE),
        (b"GET", b"HTTP/1.0 200 OK", b"", UNTIL_CLOSE),
        (b"GET", b"HTTP/1.1 200 OK", b"Content-Length: 3\r\n", 3),
        (b"GET", b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked\r\n", CHUNKED),
        (b"GET", b"HTTP/1.1 401 No", b"Transfer-Encoding: CHUNKED\r\n", CHUNKED),
        (b"HEAD", b"HTTP/1.1 200 OK", b"Content-Length: 3\r\n", 0),
        (b"HEAD", b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked\r\n", 0),
        (b"GET", b"HTTP/1.1 204 No", b"Content-Length: 3\r\n", 0),
        (b"GET", b"HTTP/1.1 304 Not", b"Content-Length: 3\r\n", 0),
        (b"GET", b"HTTP/1.1 304 Not", b"", 0),
        (b"GET", b"HTTP/1.1 103 Early", b"", 0),
        (b"GET", b"HTTP/1.1 205 Reset", b"Content-Length: 0\r\n", 0),
    ],
)
def test_an_answers_body_ends_where_the_request_and_the_status_say(
    method: bytes, start: bytes, lines: bytes, length: int
) -> None:
    assert response_length(method, parse_response(start + b"\r\n" + lines)) == length


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: x\r\n",
    ],
)
def test_an_answers_body_whose_end_is_unclear_is_refused(method: bytes, head: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        response_length(method, parse_response(head))


# --- answers ---


@pytest.mark.parametrize(
    ("line", "status", "reason", "minor"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK", 1),
        (b"HTTP/1.0 404 Not Found", 404, b"Not Found", 0),
        (b"HTTP/1.2 200 OK", 200, b"OK", 1),
        (b"HTTP/1.1 200 ", 200, b"", 1),
        (b"HTTP/1.1 200", 200, b"", 1),
        (b"HTTP/1.1 999 \xc3\xa9t\xc3\xa9\t!", 999, b"\xc3\xa9t\xc3\xa9\t!", 1),
    ],
)
def test_a_status_line_is_read(line: bytes, status: int, reason: bytes, minor: int) -> None:
    head = parse_response(line + b"\r\nA: b\r\n")
    assert (head.status, head.reason, head.minor, head.fields.get(b"a")) == (status, reason, minor, b"b")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"HTTP/1.1", b"HTTP/1.1 20", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 x", b"HTTP/1.1  200 OK",
        b"HTTP/2.0 200 OK", b"HTTP/1.10 200 OK", b"HTP/1.1 200 OK", b"http/1.1 200 OK", b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200 O\x00K", b"200 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 200OK",
    ],
)  # fmt: skip
def test_a_malformed_status_line_is_refused(line: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        parse_response(line + b"\r\n")


@pytest.mark.parametrize(
    ("lines", "name", "value"),
    [
        (b"A: one\r\n two\r\n", b"a", b"one two"),
        (b"A: one \t\r\n \t two\r\nB: c\r\n", b"a", b"one two"),
        (b"A: one\r\n two\r\n three\r\n", b"a", b"one two three"),
        (b"A : one\r\nB: c\r\n", b"a", b"one"),
        (b"B: c\r\nA\t : one\r\n", b"a", b"one"),
    ],
)
def test_an_answers_folded_lines_and_blanks_before_colons_are_mended(lines: bytes, name: bytes, value: bytes) -> None:
    head = parse_response(b"HTTP/1.1 200 OK\r\n" + lines)
    assert head.fields.get(name) == value
    assert b"\r\n " not in head.fields.block
    assert b" :" not in head.fields.block


SECTIONS = [
    b"", b"A: 1\r\n", b"a: 1\r\n", b"A: 2\r\n", b"A:\r\n", b"A: 1\r\nB: 2\r\n", b"B: 2\r\nA: 1\r\n",
    b"A: 1\r\nA: 2\r\n", b"AB: 1\r\n", b"A : 1\r\n", b"A: 1\r\n B: 2\r\n", b"A: 1\r\nB\r\n", b"A: \x00\r\n",
    b"A: 1\n", b"A: 1\nB: 2\r\n", b":\r\n",
]  # fmt: skip


@pytest.mark.parametrize("before", SECTIONS)
@pytest.mark.parametrize("lines", SECTIONS)
def test_what_an_answer_is_likely_to_look_like_changes_nothing_of_it(before: bytes, lines: bytes) -> None:
    def read(like: Shape | None) -> tuple[object, ...] | None:
        try:
            fields = parse_response(b"HTTP/1.1 200 OK\r\n" + lines, like).fields
        except UpstreamProtocolError:
            return None
        return fields.block, fields.lines, fields.shape.names, fields.shape.at, fields.get(b"a"), fields.get(b"b")

    with contextlib.suppress(UpstreamProtocolError):
        like = parse_response(b"HTTP/1.1 200 OK\r\n" + before).fields.shape
        assert read(like) == read(None)


@pytest.mark.parametrize(
    "lines", [b" A: one\r\n", b"A: o\x00e\r\n", b"A: one\n", b"A: one\r\n\x0btwo\r\n", b"no field\r\n"]
)
def test_an_answers_section_that_is_broken_otherwise_is_refused(lines: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        parse_response(b"HTTP/1.1 200 OK\r\n" + lines)


@pytest.mark.parametrize(
    ("minor", "named", "stays"),
    [
        (1, [], True),
        (0, [], False),
        (1, [b"close"], False),
        (0, [b"keep-alive"], True),
        (0, [b"keep-alive", b"close"], False),
        (1, [b"keep-alive", b"close"], False),
        (1, [b"x"], True),
    ],
)
def test_a_connection_stays_open_as_version_and_options_say(minor: int, named: list[bytes], stays: bool) -> None:
    assert stays_open(minor, frozenset(named)) is stays

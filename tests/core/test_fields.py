"""Which fields pass, in both directions, and the one credential that leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.fields import (
    HOP_BY_HOP,
    OURS,
    Fields,
    Shape,
    authorize,
    below,
    end_to_end_request,
    end_to_end_response,
    options,
    own_bearer,
)

PLACEHOLDER = b"placeholder"


def fields(*lines: bytes) -> Fields:
    names = tuple(line.partition(b":")[0] for line in lines)
    return Fields(b"".join(line + b"\r\n" for line in lines), list(lines), Shape(names))


def request_lines(*lines: bytes, dropped: tuple[bytes, ...] = ()) -> list[bytes]:
    return end_to_end_request(fields(*lines), dropped).split(b"\r\n")[:-1]


def response_lines(*lines: bytes) -> list[bytes]:
    return end_to_end_response(fields(*lines)).split(b"\r\n")[:-1]


# --- a section ---


def test_a_section_is_kept_as_it_came() -> None:
    section = fields(b"Host: a", b"X-B:  spaced \t ", b"x-b: again")
    assert section.block == b"Host: a\r\nX-B:  spaced \t \r\nx-b: again\r\n"
    assert section.shape.names == (b"host", b"x-b", b"x-b")


def test_lines_of_one_name_are_one_value() -> None:
    section = fields(b"Accept: a", b"Via:1.1 x", b"accept:b ", b"ACCEPT: \t c")
    assert section.get(b"accept") == b"a, b, c"
    assert section.get(b"via") == b"1.1 x"


def test_a_field_that_is_absent_is_none_and_one_without_value_is_empty() -> None:
    section = fields(b"Empty:")
    assert section.get(b"absent") is None
    assert section.get(b"empty") == b""


def test_a_section_says_which_fields_it_has() -> None:
    section = fields(b"A: 1", b"B:")
    assert (b"a" in section, b"b" in section, b"A" in section, b"c" in section) == (True, True, False, False)


def test_an_empty_section_has_nothing() -> None:
    section = fields()
    assert section.shape.names == ()
    assert end_to_end_request(section) == end_to_end_response(section) == b""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, set()),
        (b"", set()),
        (b"close", {b"close"}),
        (b"Keep-Alive, \tX-A ,,", {b"keep-alive", b"x-a"}),
        (b"a,A,a", {b"a"}),
    ],
)
def test_a_list_is_read_without_regard_to_case_and_empty_elements(value: bytes | None, expected: set[bytes]) -> None:
    assert options(value) == expected


# --- a request on its way up ---


def test_lines_pass_in_order_and_as_they_came() -> None:
    lines = [b"Accept:text/html", b"x-Odd-CASE:  v  ", b"Cookie: a=b", b"accept: */*", b"Content-Length: 3"]
    assert request_lines(*lines) == lines


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | OURS | {b"forwarded", b"x-forwarded-for", b"x-forwarded-new"}))
def test_what_is_for_this_hop_or_ours_to_decide_stays_here(name: bytes) -> None:
    for spelled in (name, name.upper(), name.title(), name.replace(b"-", b"_"), name.title().replace(b"-", b"_")):
        assert request_lines(b"A: 1", spelled + b": x", b"B: 2") == [b"A: 1", b"B: 2"]


@pytest.mark.parametrize("name", [b"x-forwarded", b"forwarded-for", b"authorization-info", b"hosts", b"x-host", b"tes"])
def test_a_name_that_only_begins_alike_passes(name: bytes) -> None:
    assert request_lines(name + b": x") == [name + b": x"]


def test_what_connection_names_stays_here() -> None:
    assert request_lines(
        b"Connection: close, x-HOP", b"X-Hop: 1", b"X-End: 2", b"connection: X-Other", b"x-other: 3"
    ) == [b"X-End: 2"]


def test_connection_takes_no_length_away() -> None:
    # Without it the body would be read as the next request.
    assert request_lines(b"Connection: Content-Length", b"Content-Length: 5") == [b"Content-Length: 5"]


def test_names_and_lists_too_long_to_be_remembered_are_judged_alike() -> None:
    name = b"x-" + b"a" * 400
    assert request_lines(name + b": 1", b"X-Forwarded-" + name + b": 2") == [name + b": 1"]
    assert request_lines(b"Connection: " + name + b", x-b", name + b": 1", b"X-B: 2", b"X-C: 3") == [b"X-C: 3"]


def test_what_the_caller_drops_stays_here() -> None:
    assert request_lines(b"X-Genesys-Tenant: acme", b"A: 1", dropped=(b"x-genesys-tenant",)) == [b"A: 1"]


def test_a_section_is_judged_anew_for_other_names_to_drop() -> None:
    section = fields(b"A: 1", b"B: 2")
    assert end_to_end_request(section, (b"a",)) == b"B: 2\r\n"
    assert end_to_end_request(section, (b"b",)) == b"A: 1\r\n"
    assert end_to_end_request(section) == end_to_end_request(section) == b"A: 1\r\nB: 2\r\n"
    assert end_to_end_request(section, (b"a",)) == b"B: 2\r\n"


names = st.sampled_from(
    [
        *(b"Authorization", b"AUTHORIZATION", b"Host", b"Connection", b"Keep-Alive", b"TE", b"Transfer-Encoding"),
        *(b"Upgrade", b"Proxy-Authorization", b"Proxy_Authorization", b"Trailer", b"X-Proxy-Key", b"x_proxy_key"),
        *(b"X-Forwarded-For", b"Forwarded", b"HTTP2-Settings", b"Content-Length", b"Accept", b"X-A", b"Cookie"),
    ]
)
values = st.sampled_from([b"", b"close", b"authorization", b"host, X-A", b"content-length", b"cookie,accept", b"v"])
sections = st.lists(st.tuples(names, values).map(b": ".join), max_size=8)


@given(sections, st.sampled_from([b"Bearer t", None]))
@example([b"Connection: Authorization", b"Authorization: Bearer theirs"], b"Bearer t")
def test_exactly_one_authorization_leaves_and_it_is_ours(lines: list[bytes], credential: bytes | None) -> None:
    left = authorize(b"GET / HTTP/1.1\r\n" + end_to_end_request(fields(*lines)), credential)
    assert left.startswith(b"GET / HTTP/1.1\r\n")
    assert left.endswith(b"\r\n\r\n")
    assert left.count(b"\r\n\r\n") == 1
    found = [line for line in left.split(b"\r\n") if line.lower().startswith(b"authorization")]
    assert found == ([] if credential is None else [b"Authorization: Bearer t"])


@given(sections)
def test_what_passes_is_a_part_of_what_came_in_the_same_order(lines: list[bytes]) -> None:
    for passing in (request_lines(*lines), response_lines(*lines)):
        rest = iter(lines)
        assert all(line in rest for line in passing)
        for line in passing:
            assert line.partition(b":")[0].lower() not in HOP_BY_HOP


@given(sections)
def test_a_length_always_passes(lines: list[bytes]) -> None:
    lengths = [line for line in lines if line.lower().startswith(b"content-length")]
    for passing in (request_lines(*lines), response_lines(*lines)):
        assert [line for line in passing if line.lower().startswith(b"content-length")] == lengths


# --- an answer on its way down ---


def test_an_answer_without_fields_for_this_hop_is_not_touched() -> None:
    section = fields(b"Date: x", b"Set-Cookie: a", b"Set-Cookie: b", b"www-authenticate: Bearer")
    assert end_to_end_response(section) is section.block


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_what_is_for_this_hop_stays_here_on_the_way_down(name: bytes) -> None:
    assert response_lines(b"A: 1", name.title() + b": x", b"B: 2") == [b"A: 1", b"B: 2"]


def test_what_the_upstreams_connection_names_stays_here() -> None:
    lines = [b"Connection: X-Hop, content-length", b"x-hop: 1", b"Content-Length: 5"]
    assert response_lines(*lines) == [b"Content-Length: 5"]


def test_an_answers_own_names_to_drop_are_dropped() -> None:
    section = fields(b"Via: 1.1 up", b"A: 1", b"Connection: close")
    assert end_to_end_response(section, HOP_BY_HOP | {b"via"}) == b"A: 1\r\n"


def test_an_answers_authorization_and_trailer_fields_pass() -> None:
    lines = [b"Authorization: x", b"Host: x", b"Trailer: X-Sum", b"X-Forwarded-For: x"]
    assert response_lines(*lines) == lines


# --- credentials ---


def test_the_credential_comes_last_and_ends_the_head() -> None:
    opening = b"GET / HTTP/1.1\r\nA: 1\r\n"
    assert authorize(opening, b"Bearer t") == opening + b"Authorization: Bearer t\r\n\r\n"
    assert authorize(opening, None) == opening + b"\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer real",
        b"authorization:bearer real",
        b"AUTHORIZATION: BEARER  real",
        b"Authorization: Bearer a.b.c",
    ],
)
def test_a_callers_real_bearer_token_is_the_callers_own(line: bytes) -> None:
    assert own_bearer(fields(line), PLACEHOLDER) == line.partition(b":")[2].strip()


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Authorization:",),
        (b"Authorization: Bearer",),
        (b"Authorization: Bearer ",),
        (b"Authorization: Bearer    ",),
        (b"Authorization: [REDACTED]",),
        (b"Authorization: Bearer [REDACTED]",),
        (b"Authorization: Bearer " + PLACEHOLDER,),
        (b"Authorization: bearer  " + PLACEHOLDER + b" ",),
        (b"Authorization: Basic dXNlcjpwYXNz",),
        (b"Authorization: Bearerreal",),
        (b"Proxy-Authorization: Bearer real",),
    ],
)
def test_none_an_empty_one_a_blanked_one_and_our_placeholder_are_no_token(lines: tuple[bytes, ...]) -> None:
    assert own_bearer(fields(*lines), PLACEHOLDER) is None


# --- shapes ---


def test_what_a_shape_remembers_is_not_taken_for_another_set_of_names() -> None:
    shape = Shape((b"A", b"Connection", b"b"))
    assert shape.passing(frozenset({b"a"})) == (False, True, True)
    assert shape.passing(frozenset({b"b"})) == (True, True, False)
    assert shape.passing(frozenset({b"a"})) == (False, True, True)


@pytest.mark.parametrize("pass_on", [end_to_end_request, end_to_end_response])
def test_no_message_makes_its_shape_remember_what_its_connection_names(pass_on: Callable[[Fields], bytes]) -> None:
    shape = Shape((b"A", b"B", b"Connection"))
    for named, left in ((b"a", b"B: 2\r\n"), (b"b", b"A: 1\r\n"), (b"a, b", b""), (b"x", b"A: 1\r\nB: 2\r\n")):
        lines = [b"A: 1", b"B: 2", b"Connection: " + named]
        assert pass_on(Fields(b"".join(line + b"\r\n" for line in lines), lines, shape)) == left
    assert not shape._passing


# --- what an answer names for the client ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Location: /api/v2/x?a=/b", b"Location: /t/acme/api/v2/x?a=/b"),
        (b"location:/", b"location:/t/acme/"),
        (b"Content-Location: \t/x", b"Content-Location: \t/t/acme/x"),
        (b"Set-Cookie: a=b; Path=/; Secure", b"Set-Cookie: a=b; Path=/t/acme/; Secure"),
        (b"set-cookie: a=b;path = /x;PATH=/", b"set-cookie: a=b;path = /t/acme/x;PATH=/t/acme/"),
    ],
)
def test_a_path_that_an_answer_names_is_put_below_the_prefix(line: bytes, expected: bytes) -> None:
    changed = below(b"/t/acme", fields(b"A: /1", line, b"B: 2"))
    assert changed.lines == [b"A: /1", expected, b"B: 2"]
    assert changed.block == b"A: /1\r\n" + expected + b"\r\nB: 2\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"Location: https://files.example/x", b"Location: //files.example/x", b"Location: x", b"Location: ?a=/b",
        b"Location:", b"X-Location: /x", b"X: Location: /x", b"Link: </x>", b"Set-Cookie: a=b", b"Set-Cookie: path=/x",
        b"Set-Cookie: a=b; Domain=x; HttpOnly", b"Set-Cookie: a=; path/; xpath=/", b"Cookie: a=b; Path=/",
    ],
)  # fmt: skip
def test_all_else_stays_as_it_came(line: bytes) -> None:
    assert below(b"/t/acme", fields(line)).lines == [line]

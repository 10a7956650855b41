"""Which fields pass, which end at this hop, and which are ours (RFC 9110 7.6)."""

from __future__ import annotations

from tests.conformance.rules.making import (
    OK,
    RELAYED,
    Entries,
    Family,
    answer,
    chunked,
    coded,
    field,
    got,
    request,
    seen,
)

_FOR_ONE_HOP = (
    "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Proxy-Authenticate: Basic realm=x",
    "Proxy-Authentication-Info: x=y", "Proxy-Authorization: Basic c2VjcmV0", "Trailer: X-Foo", "Upgrade: h2c",
    "Upgrade: foo/2, websocket", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "Connection: keep-alive",
    "Connection: close", "Connection:", "Connection: ,", "TE: gzip", "TE:",
)  # fmt: skip
_OF_EARLIER_PROXIES = (
    "Forwarded: for=192.0.2.1;host=evil.example", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /prefix", "X-Forwarded-Port: 99999", "X_Forwarded_For: 192.0.2.1",
    "x-fOrWaRdEd-ServeR: evil.example",
)  # fmt: skip
_OF_REQUESTS = (
    "Accept: */*", "Accept-Encoding: br;q=1.0, gzip", "Accept-Language: de", "Age: 5", "Alt-Used: x",
    "Cache-Control: no-store", "Content-Language: de", "Content-Location: /y", "Cookie: a=b; c=d", "Date: x", "DNT: 1",
    "From: a@b.example", "If-Match: *", 'If-None-Match: W/"x"', "Link: </x>; rel=y", "Max-Forwards: 0",
    "MIME-Version: 1.0", "Pragma: no-cache", "Range: bytes=0-1", "Referer: http://x/", "Retry-After: 1",
    'Warning: 110 - "stale"', "User-Agent: x", "X-Real-IP: 192.0.2.1", "X-Request-Id: 1", "Accept_Encoding: x",
    "X-Empty:", "X-List: a,,b ,", 'X-Quoted: "a, b\\"c"', "X-Obs: \x80\xc3\xbc\xff", "X-Tab: a\tb", "ALL-CAPS: X",
    "x: 1", "!#$%&'*+-.^_`|~09: v", f"X-Long: {'v' * 8000}",
)  # fmt: skip
_OF_ANSWERS = (
    "Age: 5", "Warning: 110 - stale", "Date: x", "Server: y", "Set-Cookie: a=b", "WWW-Authenticate: Bearer", "ETag: x",
    "Location: http://other.example/", "Alt-Svc: clear", "Vary: *", "Content-Encoding: br", "Retry-After: 1",
    "Content-Range: bytes 0-1/5", "Accept-Ranges: bytes", "Allow: GET", "Strict-Transport-Security: max-age=1",
    "X-Empty:", "X-Obs: \x80\xc3\xbc\xff", "X-Tab: a\tb", f"X-Long: {'v' * 8000}",
)  # fmt: skip
_NEVER_ADDED = (
    "User-Agent", "Accept", "Accept-Encoding", "Date", "Server", "Content-Type", "Connection", "Expect", "TE",
    "Transfer-Encoding", "X-Forwarded-For", "Forwarded", "X-Request-Id", "traceparent", "Keep-Alive", "Proxy-Status",
)  # fmt: skip


def entries() -> Entries:
    yield from _requests()
    yield from _answers()
    yield from _named_in_connection()
    yield from _what_is_ours()
    yield from _via()
    yield from _trailers()


def _requests() -> Entries:
    hop = Family("hop-by-hop field of a request", "RFC 9110 7.6.1; RFC 7540 3.2.1")
    for line in _FOR_ONE_HOP:
        name, _ = field(line)
        for spelled in dict.fromkeys((line, line.replace(name, name.upper()), line.replace(name, name.lower()))):
            want = seen(field_absent=[name], has_field={"X-Last": "v"}, requests=1)
            yield hop.case(spelled, request(spelled, "X-Last: v"), RELAYED | want)
    for line in ("TE: trailers", "te: Trailers , gzip;q=0.5"):
        want = seen(field_values={"TE": ["trailers"], "Connection": ["TE"]})
        yield hop.case(f"{line} is said anew", request(line), RELAYED | want)
        yield hop.case(f"{line}, of HTTP/1.0", request(line, version="HTTP/1.0"), RELAYED | seen(field_absent=["TE"]))
    earlier = Family("what an earlier proxy said", "RFC 7239 8.1; CVE-2025-64484 (underscores)", level="PROD")
    for line in _OF_EARLIER_PROXIES:
        name, value = field(line)
        yield earlier.case(line, request(line), RELAYED | seen(field_absent=[name], raw_absent=[value]))
    passing = Family("end-to-end field of a request", "RFC 9110 5.1, 5.5, 7.6.1")
    for line in _OF_REQUESTS:
        name, value = field(line)
        yield passing.case(f"{line[:60]!a}", request(line), RELAYED | seen(field_values={name: [value]}))
    family = Family("fields of a request", "RFC 9110 5.2, 5.3; product promise")
    want = seen(field_values={"a": ["2", "4"], "b": ["1", "3"], "c": ["5"]})
    yield family.case("order", request("b: 1", "A: 2", "B: 3", "a:4", "C:   5\t"), RELAYED | want)
    for method in ("GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"):
        counts = {"Host": 1, "Via": 1, "Authorization": 1}
        want = seen(field_absent=_NEVER_ADDED, field_count=counts, framing=["none"])
        yield family.case(f"none is added to {method}", request(method=method), got(status=[200]) | want)


def _answers() -> Entries:
    hop = Family("hop-by-hop field of an answer", "RFC 9110 7.6.1")
    for line in (*_FOR_ONE_HOP, "Proxy-Connection: close"):
        name, _ = field(line)
        want = got(status=[200], body="ok", field_absent=[name, "Connection"], has_field={"X-Last": "v"})
        yield hop.case(line, request(), want, upstream=answer(line, "X-Last: v"))
    passing = Family("end-to-end field of an answer", "RFC 9110 5.1, 7.6.1")
    for line in _OF_ANSWERS:
        name, value = field(line)
        want = got(status=[200], body="ok", field_values={name: [value]})
        yield passing.case(f"{line[:60]!a}", request(), want, upstream=answer(line))
    family = Family("fields of an answer", "RFC 9110 5.2, 5.3; RFC 6265 3")
    lines = ("Set-Cookie: a=1, x", "X-A: 1", "set-cookie: b=2", "x-a: 2", "Set-Cookie: c=3; Expires=Wed, 01 Jan 2025")
    want = got(field_values={"Set-Cookie": ["a=1, x", "b=2", "c=3; Expires=Wed, 01 Jan 2025"], "X-A": ["1", "2"]})
    yield family.case("several of one name", request(), want, upstream=answer(*lines))
    want = got(field_absent=_NEVER_ADDED, field_values={"Via": ["1.1 genesys-auth-proxy"]})
    yield family.case("none is added", request(), want, upstream=OK)


def _named_in_connection() -> Entries:
    family = Family("field named in Connection", "RFC 9110 7.6.1")
    spellings = (
        ["Connection: X-Foo"], ["connection: x-foo"], ["Connection: close , X-FOO"], ["Connection: ,,X-Foo,"],
        ["Connection:\tX-Foo\t,\tkeep-alive"], ["Connection: keep-alive", "Connection: X-Foo"],
        ["Connection: X-Foo", "Connection: keep-alive"], ["X-Foo: 0", "Connection: X-Foo"],
        [f"Connection: {'x, ' * 300}X-Foo"],
    )  # fmt: skip
    for named in spellings:
        lines = (*named, "X-Foo: secret", "X-Food: v")
        want = seen(field_absent=["X-Foo", "Connection"], raw_absent=["secret"], has_field={"X-Food": "v"})
        yield family.case(f"of a request, {named!a:.70}", request(*lines), RELAYED | want)
        want = got(status=[200], body="ok", field_absent=["X-Foo"], raw_absent=["secret"], has_field={"X-Food": "v"})
        yield family.case(f"of an answer, {named!a:.70}", request(), want, upstream=answer(*lines))
    for name in ("Cookie", "Date", "Range", "Content-Type", "Accept"):
        sent = request(f"Connection: {name}", f"{name}: x")
        yield family.case(f"of a request, {name}", sent, RELAYED | seen(field_absent=[name]))


def _what_is_ours() -> Entries:
    family = Family("Connection that names what is ours", "RFC 9110 7.6.1; RFC 9112 6; CVE-2022-31813", level="SEC")
    ours = seen(
        field_count={"Host": 1, "Authorization": 1, "Via": 1}, has_field={"Authorization": r"~^Bearer \S+$"}
    )  # fmt: skip
    for name in ("Host", "Authorization", "Via", "Connection", "X-Proxy-Key", "close, Authorization, Host"):
        yield family.case(name, request(f"Connection: {name}"), RELAYED | ours)
    for name in ("Content-Length", "content-length, close", "Content-Length, Host, Transfer-Encoding"):
        sent = request(f"Connection: {name}", "Content-Length: 5", method="POST", body="hello")
        want = seen(complete=1, requests=1, framing=["cl"], body="hello")
        yield family.case(f"{name} of a request", sent, RELAYED | want)
        want = got(status=[200], body="ok", framing=["cl"], complete=True)
        yield family.case(f"{name} of an answer", request(), want, upstream=answer(f"Connection: {name}"))
    lines = ("Connection: Transfer-Encoding", "Transfer-Encoding: chunked")
    want = seen(complete=1, requests=1, framing=["te"], body="hello")
    sent = request(*lines, method="POST", body=chunked("hello"))
    yield family.case("Transfer-Encoding of a request", sent, RELAYED | want)
    want = got(status=[200], framing=["te"], body="hello", complete=True)
    up = coded("Connection: Transfer-Encoding", body=chunked("hello"))
    yield family.case("Transfer-Encoding of an answer", request(), want, upstream=up)


def _via() -> Entries:
    family = Family("Via", "RFC 9110 7.6.3")
    for version in ("1.1", "1.0"):
        for lines in ([], ["Via: 1.0 fred, 1.1 p.example"], ["Via: 1.0 fred", "via: 1.1 p.example (x, y)"]):
            path = [*(value for _, value in map(field, lines)), f"{version} genesys-auth-proxy"]
            sent = request(*lines, version=f"HTTP/{version}")
            want = seen(field_values={"Via": path}, line=["GET /x HTTP/1.1"])
            yield family.case(f"of a request in HTTP/{version} behind {path[:-1]}", sent, RELAYED | want)
            up = answer(*lines, version=f"HTTP/{version}")
            want = got(status=[200], body="ok", field_values={"Via": path})
            yield family.case(f"of an answer in HTTP/{version} behind {path[:-1]}", request(), want, upstream=up)


def _trailers() -> Entries:
    family = Family("trailer", "RFC 9110 6.5; RFC 9112 7.1.2")
    barred = (
        "Content-Length: 3", "Host: evil.example", "Transfer-Encoding: chunked", "Authorization: x", "Trailer: x",
        "Set-Cookie: a=b", "Connection: close",
    )  # fmt: skip
    content = chunked("hello", trailers=("X-Sum: abc", *barred, "X-Obs: \xff"))
    sent = request("Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST", body=content)
    want = seen(
        complete=1, body="hello", framing=["te"], field_count={"Host": 1, "Authorization": 1, "Via": 1},
        field_absent=["X-Sum", "Trailer", "Content-Length", "(trailer) X-Sum"],
    )  # fmt: skip
    yield family.case("of a request", sent, RELAYED | want)
    up = coded("Trailer: X-Sum", body=content)
    never = ["(trailer) " + name for name, _ in map(field, barred)]
    for line in ("TE: trailers", "te: gzip;q=0.5 , Trailers"):
        passed = {"(trailer) X-Sum": "X-Sum: abc", "(trailer) X-Obs": "X-Obs: \xff", "Trailer": "X-Sum"}
        want = got(body="hello", complete=True, framing=["te"], field_absent=never, has_field=passed)
        yield family.case(f"of an answer to {line}", request(line), want, upstream=up)
    none = [*never, "(trailer) X-Sum", "(trailer) X-Obs", "Trailer"]
    want = got(body="hello", complete=True, framing=["te"], field_absent=none)
    yield family.case("of an answer to a client that takes none", request(), want, upstream=up)
    want = got(body="hello", framing=["eof"], closed=True, field_absent=none)
    yield family.case("of an answer to HTTP/1.0", request("TE: trailers", version="HTTP/1.0"), want, upstream=up)

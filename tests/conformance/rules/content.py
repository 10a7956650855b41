"""Where content begins and ends, and that it passes untouched (RFC 9110 6.4, 15; RFC 9112 6, 7)."""

from __future__ import annotations

from itertools import product

from tests.conformance.rules.making import (
    AFTER,
    CLOSE,
    EVIL,
    NEXT,
    OK,
    RELAYED,
    Entries,
    Family,
    answer,
    chunked,
    coded,
    got,
    request,
    seen,
    unframed,
)

_STATUSES = (
    *range(200, 204), 205, 206, 226, *range(300, 304), 307, 308, *range(400, 418), 421, 422, 425, 426, 428, 429, 431,
    444, 451, 499, 500, 501, 502, 503, 504, 505, 511, 599, 600, 799, 999,
)  # fmt: skip
_LENGTHS = {"0": "", "00": "", "5": "hello", "05": "hello", "000000000000000010": "0123456789"}
_EVERY_BYTE = "".join(map(chr, range(256)))
_CODED = {
    "one chunk": (chunked("hello"), "hello"),
    "byte by byte": (chunked(*"hello"), "hello"),
    "no chunk": (chunked(), ""),
    "in upper case": ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
    "leading zeros": ("0005\r\nhello\r\n000\r\n\r\n", "hello"),
    "extensions": ('5;a;b=c;d="e;\\"f"\r\nhello\r\n0;x=y\r\n\r\n', "hello"),
    "blanks before an extension": ("5 ;x\r\nhello\r\n0 \t;y\r\n\r\n", "hello"),
    "line ends inside": (chunked("\r\n0\r\n\r\n", "GET /"), "\r\n0\r\n\r\nGET /"),
    "every byte": (chunked(_EVERY_BYTE), _EVERY_BYTE),
}
"""Chunked content, and what it is."""


def entries() -> Entries:
    yield from _statuses()
    yield from _bodiless()
    yield from _interim()
    yield from _of_requests()
    yield from _of_answers()
    yield from _untouched()


def _statuses() -> Entries:
    family = Family("status", "RFC 9110 15; RFC 9112 4")
    for status in _STATUSES:
        if status in (401, 429):
            continue  # for the tests of replays
        want = got(statuses=[status, 200], bodies=["hello", "next"])
        yield family.two(str(status), request(), want, answer(status=f"{status} x", body="hello"), AFTER)
    for reason in ("", " ", " \xe4 \x80", " a\tb", "  x"):
        want = got(status=[299], body="ok")
        yield family.case(f"{reason!a} as its reason", request(), want, upstream=answer(status=f"299{reason}"))


def _bodiless() -> Entries:
    family = Family("answer without content", "RFC 9110 6.4.1, 8.6, 9.3.2, 15.3.5, 15.4.5; RFC 9112 6.1, 6.3")
    framings: tuple[tuple[str, list[str], str], ...] = (
        ("no length", [], ""), ("length 0", ["Content-Length: 0"], ""), ("length 5", ["Content-Length: 5"], ""),
        ("length 5 and content", ["Content-Length: 5"], "hello"), ("chunks", ["Transfer-Encoding: chunked"], ""),
        ("chunks and content", ["Transfer-Encoding: chunked"], chunked("hello")), ("a surplus answer", [], EVIL),
    )  # fmt: skip
    kinds = [("HEAD", status) for status in (200, 404, 500, 204, 304, 206)]
    kinds += [(method, status) for method in ("GET", "POST", "OPTIONS") for status in (204, 304)]
    for (method, status), (name, lines, body) in product(kinds, framings):
        lengths = [line.partition(": ")[2] for line in lines if line.startswith("Content") and status != 204]
        codings = ["chunked"] if lines == ["Transfer-Encoding: chunked"] and status not in (204, 304) else []
        want = got(
            statuses=[status, 200], bodies=["", "next"], raw_absent=["hello", "EVIL"],
            field_values={"Content-Length": lengths, "Transfer-Encoding": codings, "ETag": ["x"]},
        )  # fmt: skip
        up = unframed("ETag: x", *lines, status=f"{status} x", body=body)
        variant = f"{status} to {method}, {name}"
        yield family.two(variant, request(method=method), want, up, AFTER, methods=[method, "GET"])


def _interim() -> Entries:
    family = Family("interim answer", "RFC 9110 15.2; RFC 8297")
    sections: tuple[list[str], ...] = (
        [], ["Link: </x>; rel=preload", "X-Obs: \xff"], ["Content-Length: 4"], ["Transfer-Encoding: chunked"],
        ["Connection: X-Hop", "X-Hop: EVIL"],
    )  # fmt: skip
    for status, lines in product((100, 102, 103, 104, 110, 199), sections):
        want = got(
            interim=[status], status=[200], body="ok", has_field={"X-Final": "v"},
            raw_absent=["EVIL", "Content-Length: 4", "Transfer-Encoding"],
        )  # fmt: skip
        up = unframed(*lines, status=f"{status} x") + answer("X-Final: v")
        yield family.case(f"{status} with {lines!a}", request(), want, upstream=up)
    several = "".join(unframed(status=f"{status} x") for status in (100, 103, 103, 102)) + OK
    yield family.case(
        "several", request(), got(interim=[100, 103, 103, 102], status=[200], body="ok"), upstream=several
    )
    want = got(interim=[], status=[200], body="ok")
    yield family.case("to HTTP/1.0", request(version="HTTP/1.0"), want, upstream=several)
    one_by_one = [unframed(status="103 x"), {"pause": 0.05}, unframed(status="102 x"), {"pause": 0.05}]
    want = got(interim=[103, 102], status=[204])
    yield family.case("one by one", request(), want, upstream=[[*one_by_one, unframed(status="204 x")]])
    want = got(status=[502], interim=[103])
    yield family.case("and then nothing", request(), want, upstream=[[unframed(status="103 x"), CLOSE]])
    for lines in ([], ["Connection: Upgrade", "Upgrade: websocket"], ["Connection: Upgrade", "Upgrade: h2c"]):
        up = unframed(*lines, status="101 Switching Protocols", body=OK)
        yield family.case(f"101 with {lines} that nobody asked for", request(), got(status=[502]), upstream=up)


def _of_requests() -> Entries:
    family = Family("content of a request", "RFC 9110 6.4, 8.6; RFC 9112 6.3, 7.1")
    both = got(statuses=[200, 200])
    methods = ("POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS", "QUERY")
    for method, (length, body) in product(methods, _LENGTHS.items()):
        sent = request(f"Content-Length: {length}", method=method, body=body)
        told = {"Content-Length": [str(len(body))]}
        want = seen(body=body, framing=["cl"], complete=2, requests=2, field_values=told)
        yield family.case(f"{method} with length {length}", sent + NEXT, both | want, answers=2)
    for method, (name, (data, body)) in product(("POST", "DELETE", "GET"), _CODED.items()):
        sent = request("Transfer-Encoding: chunked", method=method, body=data)
        want = seen(body=body, framing=["te"], complete=2, requests=2)
        yield family.case(f"{method} in chunks, {name}", sent + NEXT, both | want, answers=2)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        want = seen(framing=["none"], complete=2, requests=2)
        yield family.case(f"{method} without any", request(method=method) + NEXT, both | want, answers=2)


def _of_answers() -> Entries:
    family = Family("content of an answer", "RFC 9112 6.3, 7.1")
    for length, body in _LENGTHS.items():
        up = unframed(f"Content-Length: {length}", body=body)
        want = got(statuses=[200, 200], bodies=[body, "next"], framing=["cl"])
        yield family.two(f"length {length}", request(), want, up, AFTER)
    for name, (data, body) in _CODED.items():
        for spelled in ("chunked", "CHUNKED", " chunked\t"):
            up = unframed(f"Transfer-Encoding: {spelled}", body=data)
            want = got(statuses=[200, 200], bodies=[body, "next"], framing=["te"])
            yield family.two(f"{name}, {spelled!r}", request(), want, up, AFTER)
        want = got(status=[200], body=body, framing=["eof"], closed=True)
        yield family.case(f"{name}, to HTTP/1.0", request(version="HTTP/1.0"), want, upstream=coded(body=data))


def _untouched() -> Entries:
    family = Family("coded content", "RFC 9110 7.7, 8.4")
    for coding, body in product(
        ("gzip", "deflate", "br", "zstd", "x-unknown", "gzip, gzip"), ("\x1f\x8b\x08 none", "")
    ):
        line, named = f"Content-Encoding: {coding}", {"Content-Encoding": [coding]}
        want = got(status=[200], body=body, field_values=named, framing=["cl"])
        variant = f"{coding}, {len(body)} bytes"
        yield family.case(f"of an answer, {variant}", request(), want, upstream=answer(line, body=body))
        sent = request(line, f"Content-Length: {len(body)}", method="POST", body=body)
        want = seen(body=body, field_values=named, framing=["cl"])
        yield family.case(f"of a request, {variant}", sent, RELAYED | want)

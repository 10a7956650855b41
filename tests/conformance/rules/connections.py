"""How long connections live on both sides, and how a message that breaks off is told (RFC 9112 6.3, 8, 9)."""

from __future__ import annotations

from itertools import product

from tests.conformance.rules.making import (
    AFTER,
    CLOSE,
    NEXT,
    OK,
    RELAYED,
    RESET,
    Entries,
    Family,
    Steps,
    answer,
    chunked,
    coded,
    got,
    request,
    seen,
    unframed,
)

_CLIENTS: tuple[tuple[str, list[str], list[str]], ...] = (
    ("HTTP/1.1", [], []), ("HTTP/1.1", ["Connection: keep-alive"], []), ("HTTP/1.1", ["Connection: closed"], []),
    ("HTTP/1.1", ["Connection: x-close"], []), ("HTTP/1.1", ["Proxy-Connection: close"], []),
    ("HTTP/1.1", ["Keep-Alive: timeout=0"], []), ("HTTP/1.1", ["Connection: close"], ["close"]),
    ("HTTP/1.1", ["Connection: CLOSE"], ["close"]), ("HTTP/1.1", ["Connection: x , close"], ["close"]),
    ("HTTP/1.1", ["Connection: keep-alive, close"], ["close"]),
    ("HTTP/1.1", ["Connection: keep-alive", "Connection: close"], ["close"]), ("HTTP/1.0", [], ["close"]),
    ("HTTP/1.0", ["Connection: close"], ["close"]), ("HTTP/1.0", ["Connection: keep-alive"], ["keep-alive"]),
    ("HTTP/1.0", ["Connection: Keep-Alive"], ["keep-alive"]),
    ("HTTP/1.0", ["Connection: close, keep-alive"], ["close"]),
    ("HTTP/1.0", ["Proxy-Connection: keep-alive"], ["close"]), ("HTTP/1.0", ["Keep-Alive: timeout=5"], ["close"]),
)  # fmt: skip
"""Version and fields of a request, and what ``Connection`` of its answer says."""
_UPSTREAMS: tuple[tuple[str, list[str], int], ...] = (
    ("HTTP/1.1", [], 1), ("HTTP/1.1", ["Connection: keep-alive"], 1), ("HTTP/1.1", ["Connection: closed"], 1),
    ("HTTP/1.1", ["Keep-Alive: timeout=5"], 1), ("HTTP/1.1", ["Connection: close"], 2),
    ("HTTP/1.1", ["Connection: Close"], 2), ("HTTP/1.1", ["Connection: x", "Connection: y,close"], 2),
    ("HTTP/1.0", [], 2), ("HTTP/1.0", ["Connection: keep-alive"], 1), ("HTTP/1.0", ["Connection: close"], 2),
    ("HTTP/1.0", ["Proxy-Connection: keep-alive"], 2),
)  # fmt: skip
"""Version and fields of an answer, and how many connections it and the next one take."""


def entries() -> Entries:
    yield from _clients()
    yield from _upstreams()
    yield from _broken_answers()
    yield from _broken_heads()
    yield from _broken_requests()
    yield from _pipelines()
    yield from _surplus()


def _clients() -> Entries:
    family = Family("client's connection", "RFC 9112 9.3, 9.6; RFC 9110 7.6.1")
    delimited: dict[str, Steps] = {
        "a length": [answer()], "chunks": [coded(body=chunked("ok"))], "its end": [unframed(body="ok"), CLOSE],
    }  # fmt: skip
    for (version, lines, named), (how, up) in product(_CLIENTS, delimited.items()):
        if version == "HTTP/1.0" and how != "a length":
            named = ["close"]
        sent, told = request(*lines, version=version), {"Connection": named}
        variant = f"{version} {lines}, an answer delimited by {how}"
        if named == ["close"]:
            want = got(statuses=[200], bodies=["ok"], closed=True, complete=True, field_values=told)
            yield family.case(variant, sent + NEXT, want, upstream=[up, AFTER], answers=2)
        else:
            yield family.two(
                variant, sent, got(statuses=[200, 200], bodies=["ok", "next"], field_values=told), up, AFTER
            )


def _upstreams() -> Entries:
    family = Family("upstream's connection", "RFC 9112 9.3, 9.6")
    for version, lines, connections in _UPSTREAMS:
        want = got(statuses=[200, 200], bodies=["ok", "next"]) | seen(connections=connections, requests=2)
        yield family.two(f"after {version} {lines}", request(), want, answer(*lines, version=version), AFTER)


def _broken_answers() -> Entries:
    family = Family("answer that breaks off", "RFC 9112 6.3, 7.1, 8")
    chunks = coded(body="4\r\nhalf\r\n")
    inside = {
        "its length": unframed("Content-Length: 10", body="half"), "a chunk": chunks + "5\r\nmor",
        "its chunks": chunks, "a chunk, behind its data": chunks + "1\r\nx", "a chunk's CRLF": chunks + "1\r\nx\r",
        "a chunk's size": chunks + "1", "the last chunk": chunks + "0\r", "its end": chunks + "0\r\n",
        "its last CRLF": chunks + "0\r\n\r", "a trailer": chunks + "0\r\nX: ", "its trailers": chunks + "0\r\nX: y\r\n",
    }  # fmt: skip
    broken = got(status=[200], truncated=True, closed=True)
    ends: list[Steps] = [[CLOSE], [RESET], [{"pause": 0.08}, CLOSE], [{"pause": 0.08}, RESET]]
    for (name, sent), end, version in product(inside.items(), ends, ("HTTP/1.1", "HTTP/1.0")):
        variant = f"inside {name}, {_told(end)}, to {version}"
        yield family.case(variant, request(version=version), broken, got(status=[502]), upstream=[[sent, *end]])
    for version in ("HTTP/1.1", "HTTP/1.0"):
        sent, up = request(version=version), [unframed(body="half"), {"pause": 0.05}]
        whole = got(status=[200], body="half", complete=True)
        yield family.case(f"nowhere, to {version}", sent, whole, upstream=[[*up, CLOSE]])
        variant = f"by a reset, where its end delimits it, to {version}"
        yield family.case(variant, sent, broken, upstream=[[*up, RESET]])


def _broken_heads() -> Entries:
    family = Family("answer's head that breaks off", "RFC 9112 8; RFC 9110 15.6.3")
    heads = ("", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\n\r")
    for head, last in product(heads, (CLOSE, RESET)):
        want = got(status=[502]) | seen(requests=1)
        up: Steps = [*filter(None, [head]), {"pause": 0.02}, last]
        yield family.case(f"{head!r}, {_told([last])}", request(method="POST"), want, upstream=[up, OK])


def _broken_requests() -> Entries:
    family = Family("request that breaks off", "RFC 9112 6.3, 8; RFC 9110 6.1")
    chunks = request("Transfer-Encoding: chunked", method="POST", body="4\r\nhalf\r\n")
    inside = {
        "its length": request("Content-Length: 10", method="POST", body="half"), "a chunk": chunks + "5\r\nmor",
        "its chunks": chunks, "a chunk's size": chunks + "5", "a chunk, behind its data": chunks + "1\r\nx",
        "its end": chunks + "0\r\n", "its last CRLF": chunks + "0\r\n\r", "a trailer": chunks + "0\r\nX: y",
        "its head": request()[:-3], "its head, behind a line": "GET ${P}/x HTTP/1.1\r\n",
    }  # fmt: skip
    for (name, sent), end in product(inside.items(), (CLOSE, RESET, {"half_close": True})):
        steps = [sent, {"pause": 0.05}, end]
        yield family.case(f"inside {name}, {_told([end])}", steps, seen(complete=0), limit=1.0)


def _told(steps: Steps) -> str:
    return ", ".join(next(iter(step)) for step in steps)


def _pipelines() -> Entries:
    family = Family("pipeline", "RFC 9112 9.3.2")
    one, two, three = (answer(body=body) for body in ("one", "two", "three"))
    post = request("Content-Length: 5", method="POST", body="hello")
    chunks = request("Transfer-Encoding: chunked", method="POST", body=chunked("hello", "x"))
    all_three = got(statuses=[200, 200, 200], bodies=["one", "two", "three"]) | seen(requests=3, complete=3)
    kinds = {"GET": request() * 3, "POST": post * 3, "chunks": chunks * 3, "mixed": post + request() + chunks}
    for name, sent in kinds.items():
        yield family.case(f"of three, {name}", sent, all_three, upstream=[one, two, three], answers=3)
        slow: Steps = [[{"pause": 0.1}, one], two, three]
        yield family.case(f"of three, {name}, the first answer late", sent, all_three, upstream=slow, answers=3)
    only_one = seen(requests=1)
    for name, second in (
        ("malformed", "GET\r\n\r\n"),
        ("framed twice", request("Content-Length: 1", "Content-Length: 2")),
    ):
        want = got(statuses=[200, 400], closed=True) | only_one
        yield family.case(
            f"with a second that is {name}", request() + second + NEXT, want, upstream=[one, two], answers=3
        )
    for name, first in (("Connection: close", request("Connection: close")), ("HTTP/1.0", request(version="HTTP/1.0"))):
        want = got(statuses=[200], closed=True) | only_one
        yield family.case(f"behind {name}", first + NEXT, want, upstream=[one, two], answers=2)
    want = got(statuses=[502, 200]) | seen(requests=2)
    failing: Steps = [[CLOSE], two]
    yield family.case("whose first fails", request(method="POST") + NEXT, want, upstream=failing, answers=2)


def _surplus() -> Entries:
    family = Family("bytes behind an answer", "RFC 9112 9.2, 9.3, 11.1", level="SEC")
    evil = answer(body="EVIL")
    firsts = {
        "a length": answer(), "chunks": coded(body=chunked("ok")),
        "trailers": coded(body=chunked("ok", trailers=["X: y"])),
    }  # fmt: skip
    want = got(statuses=[200, 200], bodies=["ok", "next"], raw_absent=["EVIL"])
    surpluses = (evil, "\r\n", "x", evil * 3, "HTTP/1.1 100 Continue\r\n\r\n")
    for (name, first), surplus in product(firsts.items(), surpluses):
        variant = f"{name}, {surplus[:12]!r}, {len(surplus)} bytes"
        yield family.two(variant, request(), want, first + surplus, AFTER)
        late: Steps = [first, {"pause": 0.01}, surplus]
        steps = [request(), {"await_answers": 1}, {"pause": 0.25}, NEXT]
        yield family.case(f"{variant}, later", steps, want, upstream=[late, AFTER], answers=2)
    yield family.case("more than its length", request(), RELAYED, upstream=unframed("Content-Length: 2", body="okEVIL"))

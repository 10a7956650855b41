"""Expect and Upgrade (RFC 9110 7.8, 10.1.1; RFC 6455 4)."""

from __future__ import annotations

from tests.conformance.rules.making import (
    AFTER,
    OK,
    RELAYED,
    Entries,
    Family,
    answer,
    chunked,
    got,
    request,
    seen,
    unframed,
)

_CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n"
_KEY = ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
_UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", *_KEY]
_SWITCHED = "101 Switching Protocols"
_STAY = {"pause": 0.1}


def entries() -> Entries:
    yield from _expect()
    yield from _other_expectations()
    yield from _no_upgrade()
    yield from _upgrade()
    yield from _refused_upgrade()


def _expect() -> Entries:
    family = Family("Expect: 100-continue", "RFC 9110 10.1.1")
    framings = (
        ("a length", ["Content-Length: 5"], "hello"),
        ("chunks", ["Transfer-Encoding: chunked"], chunked("hello")),
    )
    want = seen(body="hello", complete=1, requests=1, field_values={"Expect": ["100-continue"]})
    for name, lines, body in framings:
        head = request("Expect: 100-continue", *lines, method="POST")
        waits = [head, {"await": "100 Continue"}, body]
        up = [[{"before_body": True}, _CONTINUE, {"pause": 0.2}, OK]]
        yield family.case(f"{name}, 100 and an answer", waits, got(interim=[100], status=[200]) | want, upstream=up)
        yield family.case(f"{name}, content that does not wait", head + body, RELAYED | want)
        yield family.case(f"{name}, content that waits a while", [head, {"pause": 0.2}, body], RELAYED | want)
        for status in (413, 417, 403, 200, 302):
            told = got(interim=[], status=[status], body="ok", raw_absent=["100 Continue"], closed=True)
            up = [[{"before_body": True}, answer(status=f"{status} x")]]
            steps = [head, {"await": "HTTP/1.1"}]
            yield family.case(f"{name}, {status} at once", steps, told | seen(complete=0), upstream=up)
    yield family.case("without content", request("Expect: 100-continue"), RELAYED | seen(requests=1))
    sent = request("Expect: 100-continue", "Content-Length: 5", method="POST", version="HTTP/1.0", body="hello")
    told = got(interim=[], status=[200], body="ok") | seen(body="hello", complete=1, field_absent=["Expect"])
    yield family.case("of HTTP/1.0", sent, told, upstream=[_CONTINUE + OK])


def _other_expectations() -> Entries:
    family = Family("Expect", "RFC 9110 10.1.1")
    for value in ("100-Continue", "x", "100-continue, x", "100-continue;q", '"x"', ""):
        sent = request(f"Expect: {value}", "Content-Length: 5", method="POST", body="hello")
        want = seen(field_values={"Expect": [value]}, complete=1, body="hello")
        yield family.case(f"{value!r}", sent, RELAYED | want)


def _no_upgrade() -> Entries:
    family = Family("upgrade that is none", "RFC 9110 7.8; RFC 6455 4.1; RFC 7540 3.2 (h2c smuggling)", level="SEC")
    plain = {
        "h2c": request(
            "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"
        ),
        "h2c alone": request("Connection: Upgrade", "Upgrade: h2c"),
        "H2C": request("Connection: upgrade", "Upgrade: H2C"),
        "TLS/1.2": request("Connection: Upgrade", "Upgrade: TLS/1.2"),
        "a list": request("Connection: Upgrade", "Upgrade: h2c, websocket", *_KEY),
        "websocket twice": request("Upgrade: websocket", *_UPGRADE),
        "not named in Connection": request("Upgrade: websocket", *_KEY),
        "no protocol": request("Connection: Upgrade"),
        "POST": request(*_UPGRADE, method="POST"),
        "content": request(*_UPGRADE, "Content-Length: 2", body="hi"),
        "chunks": request(*_UPGRADE, "Transfer-Encoding: chunked", body=chunked("hi")),
        "HTTP/1.0": request(*_UPGRADE, version="HTTP/1.0"),
    }
    want = seen(field_absent=["Upgrade", "HTTP2-Settings"], field_without={"Connection": "upgrade"}, requests=1)
    up = [[unframed("Connection: Upgrade", "Upgrade: websocket", status=_SWITCHED), _STAY]]
    for name, sent in plain.items():
        yield family.case(f"{name} goes on as a plain request", sent, RELAYED | want)
        told = got(interim=[], status=[502])
        yield family.case(f"{name}, and 101 all the same", sent, told, upstream=up)


def _upgrade() -> Entries:
    family = Family("upgrade", "RFC 9110 7.8; RFC 6455 4.1, 4.2.2")
    asking = (
        _UPGRADE, ["Connection: keep-alive, Upgrade", *_UPGRADE[1:]],
        ["connection: UPGRADE", "upgrade: WebSocket", *_KEY],
        ["Connection: Upgrade", "Connection: keep-alive", *_UPGRADE[1:]],
    )  # fmt: skip
    for lines in asking:
        named = {"Connection": ["Upgrade"], "Upgrade": ["websocket"]}
        want = got(status=[101]) | seen(field_values=named, field_count={"Sec-WebSocket-Key": 1})
        up = [[{"switch_to_websocket": True}, _STAY]]
        yield family.case(f"{lines[:2]}", request(*lines), want, upstream=up)
    lines = ["connection: upgrade, X-Hop", "X-Hop: EVIL", "Content-Length: 5", "Keep-Alive: x", "X-A: b"]
    up = [[unframed("Upgrade: WebSocket", *lines, status="101 Other Reason"), _STAY]]
    want = got(
        status=[101], field_values={"Connection": ["Upgrade"], "Upgrade": ["websocket"], "X-A": ["b"]},
        field_absent=["Content-Length", "Transfer-Encoding", "X-Hop", "Keep-Alive"], raw_absent=["EVIL"],
    )  # fmt: skip
    yield family.case("the fields of a 101", request(*_UPGRADE), want, upstream=up)


def _refused_upgrade() -> Entries:
    family = Family("upgrade that is refused", "RFC 9110 7.8, 15.2.2, 15.5.22; RFC 6455 4.2.2")
    for lines in (["Upgrade: h2c"], [], ["Upgrade: TLS/1.0"], ["Upgrade: xwebsocket"]):
        up = unframed(*lines, "Connection: Upgrade", status=_SWITCHED)
        yield family.case(f"101 with {lines}", request(*_UPGRADE), got(status=[502]), upstream=[[up, _STAY]])
    for status in (200, 400, 403, 404, 426, 500, 503):
        want = got(statuses=[status, 200], bodies=["no", "next"], raw_absent=[" 101 "]) | seen(connections=1)
        up = answer("Sec-WebSocket-Version: 13", status=f"{status} x", body="no")
        yield family.two(f"{status} leaves both connections as they were", request(*_UPGRADE), want, up, AFTER)
    for protocols, passed in (("websocket", ["websocket"]), ("WebSocket, h2c", ["websocket"]), ("TLS/1.2", [])):
        up = answer("Connection: upgrade", f"Upgrade: {protocols}", status="426 x")
        want = got(status=[426], field_values={"Upgrade": passed, "Connection": ["Upgrade"] if passed else []})
        yield family.case(f"426 says to what, {protocols}", request(), want, upstream=up)

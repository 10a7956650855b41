"""The request line's method and version, Host, and the lines around them (RFC 9112 2, 3, 5; RFC 9110 7.2)."""

from __future__ import annotations

from tests.conformance.rules.making import NEXT, RELAYED, Entries, Family, got, refused, request, seen

_OWN_HOSTS = (
    "localhost", "LocalHost", "localhost:${PORT}", "localhost:", "localhost:1", "127.0.0.1", "127.0.0.1:${PORT}",
    "[::1]", "[::1]:${PORT}", "any-0.localhost", "a.b.localhost:${PORT}", "  localhost\t",
)  # fmt: skip
_FOREIGN_HOSTS = (
    "evil.example", "evil.example:${PORT}", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost",
    "0.0.0.0", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "[::]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:0:0:1]",
    "192.0.2.1", "localhost-evil.example", "xn--localhost",
)  # fmt: skip
_NO_HOSTS = (
    "", " ", ":", ":80", "localhost:x", "localhost:-1", "localhost:+80", "localhost:999999", "localhost:80:80",
    "localhost/", "localhost/x", "http://localhost", "//localhost", "user@localhost", "user:x@localhost",
    "localhost@evil.example", "localhost,localhost", "localhost, evil.example", "localhost evil.example",
    "localhost\tevil.example", "::1", "[::1", "::1]", "[::1]x", "[::1]:x", "[]", "[v1.x]", "[::1%25lo]", "localhost?x",
    "localhost#x", "localhost\\evil.example", "%6cocalhost", "localhost%00", "l\xf6calhost", "\xef\xbd\x8cocalhost",
    ".", "-", "*", "_", "localhost.", ".localhost", '"localhost"', "<script>",
)  # fmt: skip
_VERSIONS = {
    "HTTP/1.0": 200, "HTTP/1.1": 200, "HTTP/1.2": 200, "HTTP/1.9": 200, "HTTP/0.9": 505, "HTTP/2.0": 505,
    "HTTP/3.0": 505, "HTTP/9.9": 505, "HTTP/0.0": 505, "HTTP/2": 400, "HTTP/1": 400, "HTTP/1.": 400, "HTTP/.1": 400,
    "HTTP/1.10": 400, "HTTP/1.01": 400, "HTTP/01.1": 400, "HTTP/11": 400, "HTTP/1,1": 400, "HTTP/1.1.1": 400,
    "HTTP/1.x": 400, "HTTP/A.1": 400, "HTTP/ 1.1": 400, "HTTP /1.1": 400, "http/1.1": 400, "Http/1.1": 400,
    "HTTPS/1.1": 400, "ICY/1.1": 400, "RTSP/1.0": 400, "HTTP/1.1 ": 400, "HTTP/1.1\t": 400, "HTTP/1.1\x0b": 400,
    "HTTP/1.1 HTTP/1.1": 400, "HTTP/-1.1": 400, "HTTP/\xb2.0": 400, "HTTP": 400, "HTTP/": 400, "/": 400,
}  # fmt: skip
_METHODS = (
    "get", "Get", "PROPFIND", "PURGE", "QUERY", "M-SEARCH", "PRI", "X", "GETX", "a!#$%&'*+-.^_`|~09Z", "LONG" * 16,
    "HTTP",
)  # fmt: skip
_NO_METHODS = (
    "",
    "GE T",
    "G\tET",
    "GET,",
    "G/ET",
    "(GET)",
    '"GET"',
    "G\x00ET",
    "G\x7fET",
    "G\xcbT",
    "GET\t",
    " GET",
    "=",
)
_CONTROLS = (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F)
_NO_TCHARS = (0x00, 0x09, 0x20, 0x22, 0x28, 0x2C, 0x2F, 0x3B, 0x40, 0x5B, 0x7B, 0x7F, 0x80, 0xA0, 0xFF)


def entries() -> Entries:
    yield from _hosts()
    yield from _versions()
    yield from _methods()
    yield from _max_forwards()
    yield from _lines()


def _hosts() -> Entries:
    family = Family("Host", "RFC 9112 3.2; RFC 9110 7.2; DNS rebinding")
    for host in _OWN_HOSTS:
        want = seen(requests=1, has_field={"Host": "~^localhost:[0-9]+$"}, field_count={"Host": 1})
        yield family.case(f"{host!a} is ours", request(host=host), RELAYED | want)
    for host in _FOREIGN_HOSTS:
        yield family.case(f"{host!a} is not ours", request(host=host), got(status=[403]) | seen(requests=0))
    for host in _NO_HOSTS:
        yield family.case(f"{host!a} is none", request(host=host), refused())
    yield family.case("none", "GET ${P}/x HTTP/1.1\r\n${X}\r\n", refused())
    yield family.case("none in HTTP/1.0", "GET ${P}/x HTTP/1.0\r\n${X}\r\n", RELAYED)
    for others in (["Host: ${H}"], ["Host: evil.example"], ["host:${H}"], ["Host:"], ["X: y", "HOST: evil.example"]):
        for version in ("HTTP/1.1", "HTTP/1.0"):
            yield family.case(f"two, {others!r} in {version}", request(*others, version=version), refused())


def _versions() -> Entries:
    family = Family("version", "RFC 9112 2.3; RFC 9110 2.5, 15.6.6")
    for version, status in _VERSIONS.items():
        want = RELAYED | seen(line=["GET /x HTTP/1.1"]) if status == 200 else refused(status)
        yield family.case(f"{version!a}", request(version=version), want)
    yield family.case("none", "GET ${P}/x\r\n\r\n", refused())
    yield family.case("none, with a blank", "GET ${P}/x \r\n\r\n", refused())


def _methods() -> Entries:
    family = Family("method", "RFC 9110 9.1, 9.3.6, 9.3.8; RFC 9112 3.1")
    for method in _METHODS:
        want = seen(line=[f"{method} /x HTTP/1.1"], requests=1)
        yield family.case(f"{method!a} passes", request(method=method), RELAYED | want)
    for method in _NO_METHODS:
        yield family.case(f"{method!a} is none", request(method=method), refused())
    barred = got(status=[405], has_field={"Allow": "~GET"}, raw_absent=["c2VjcmV0"]) | seen(requests=0)
    for lines in ([], ["Max-Forwards: 0"], ["Max-Forwards: 5"], ["Cookie: c2VjcmV0"]):
        yield family.case(f"TRACE with {lines}", request(*lines, method="TRACE"), barred)
    for host in ("", "a b", "localhost,localhost"):
        yield family.case(f"TRACE with Host {host!r}", request(method="TRACE", host=host) + NEXT, refused())
    barred = got(status=[405], has_field={"Allow": "~GET"}, closed=True, max_answers=1) | seen(requests=0)
    for target in ("evil.example:443", "${H}", "${P}/x", "/", "*"):
        # The tunnel that it takes for granted may begin at once.
        yield family.case(f"CONNECT {target}", request(method="CONNECT", target=target) + NEXT, barred)


def _max_forwards() -> Entries:
    family = Family("Max-Forwards", "RFC 9110 7.6.2")
    for hops, left in (("5", "4"), ("1", "0"), ("010", "9"), ("99", "98")):
        sent = request(f"Max-Forwards: {hops}", method="OPTIONS")
        yield family.case(f"{hops} of OPTIONS", sent, RELAYED | seen(field_values={"Max-Forwards": [left]}))
    here = got(status=[200], has_field={"Allow": "~GET"}, body="") | seen(requests=0)
    yield family.case("0 of OPTIONS", request("Max-Forwards: 0", method="OPTIONS"), here)
    for value in ("x", "-1", "1.5", "", "1, 2"):
        sent = request(f"Max-Forwards: {value}", method="OPTIONS")
        yield family.case(f"{value!r}, which is no number", sent, RELAYED | seen(requests=1))
    for method in ("GET", "POST", "DELETE"):
        sent = request("Max-Forwards: 0", method=method)
        yield family.case(f"0 of {method}", sent, RELAYED | seen(field_values={"Max-Forwards": ["0"]}))


def _lines() -> Entries:
    family = Family("lines of a head", "RFC 9112 2.2, 5, 5.1, 5.2; RFC 9110 5.1, 5.5")
    for blank in ("\r\n", "\r\n\r\n"):
        yield family.case(f"{blank!r} before it", blank + request(), RELAYED)
        steps = [request(), {"await_answers": 1}, blank + NEXT]
        yield family.case(f"{blank!r} between two", steps, got(statuses=[200, 200]), answers=2)
    for before in (
        "\n",
        "\r",
        " ",
        "\t",
        "\x00",
        "\r\r\n",
        "\n\r\n",
        "\r\n\n",
        "\r\n ",
        "\xef\xbb\xbf",
        "\r\nX: y\r\n",
    ):
        yield family.case(f"{before!a} before it", before + request(), refused())
    whole = request("X-A: b")
    for end in ("\n", "\r", "\r\r\n", "\n\r", " \r\n\t", "\r\n ", "\r\n\t"):
        yield family.case(f"{end!a} behind the request line", whole.replace("\r\n", end, 1), refused())
        yield family.case(f"{end!a} behind Host", whole.replace("${H}\r\n", "${H}" + end, 1), refused())
    yield family.case("a field without name", request(": v"), refused())
    yield family.case("a line that is no field", request("X-A"), refused())
    for byte in _CONTROLS:
        yield family.case(f"{byte:#04x} in a value", request(f"X-A: a{chr(byte)}b"), refused())
    for byte in _NO_TCHARS:
        yield family.case(f"{byte:#04x} in a name", request(f"X{chr(byte)}A: b"), refused())
        yield family.case(f"{byte:#04x} behind a name", request(f"X-A{chr(byte)}: b"), refused())

"""The forms of a request target, and that it leaves as it came (RFC 9112 3.2; RFC 9110 7.1)."""

from __future__ import annotations

from tests.conformance.rules.making import RELAYED, Entries, Family, got, refused, request, seen

_KEPT = (
    "", "/", "//", "///", "//evil.example/x", "/.", "/..", "/../x", "/a/../b/./c", "/a/./", "/a/..", "/%2e%2e/x",
    "/%2E/x", "/a%2fb", "/a%2Fb", "/a%5cb", "/%00", "/%0d%0aX:%20y", "/%", "/%zz", "/%2", "/a%20b", "/a+b", "/a;p=1;q",
    "/;/x", "/a?", "/a??", "/a?b=/../c", "/a?b=http://evil.example/", "/a?%20=%ff", "/a?b&&c=&=", "/~a_b-c.d",
    "/!$&'()*+,;=:@", "/a:80", "/:", "/@evil.example", "/http://evil.example/", "/a\\b", "/a|b", "/a^b", "/a`b",
    "/a{b}c", '/a"b', "/a<b>", "/[a]", "/\x80", "/\xc3\xa4\xff", "/a\xa0b", "/\xef\xbc\x8f", "/t/other/x", "/k/key/x",
    "?q=1", f"/{'a' * 8000}", f"/x?{'q' * 8000}",
)  # fmt: skip
_NOT_KEPT = (
    "/a b", "/a  b", "/ ", " /a", "/a\tb", "/a\x0bb", "/a\x00b", "/a\x01b", "/a\x7fb", "/a\rb", "/a\nb", "/a#b", "/#",
    "/a?b#c",
)  # fmt: skip
_IN_NO_FORM = (
    "", "x", "x/y", "?q", "#x", "../x", "*", "**", "*/x", "localhost", "localhost:80", "evil.example:443",
    "127.0.0.1:80", "http:", "http:/x", "http://", "http:///x", "http://:80/x", "http://user@${H}/x",
    "http://${H}:x/x", "http://${H} /x", "ftp://${H}/x", "ws://${H}/x", "file:///etc/passwd", "javascript:x",
    "http//${H}/x", "https:/\\${H}/x", "http://[::1/x", "http://${H},evil.example/x", "http://${H}\\@evil.example/x",
    "http://${H}#x", "://${H}/x", "\\x", "%2fx", "\xe4/x",
)  # fmt: skip


def entries() -> Entries:
    yield from _in_origin_form()
    yield from _in_absolute_form()
    yield from _in_other_forms()


def _in_origin_form() -> Entries:
    family = Family("target in origin-form", "RFC 9112 3, 3.2.1; RFC 3986 6.2 (nothing is normalized)")
    for path in _KEPT:
        passed = path if path.startswith("/") else f"/{path}"
        want = seen(line=[f"GET {passed} HTTP/1.1"], requests=1)
        yield family.case(f"{path[:60]!a} is kept", request(target="${P}" + path), RELAYED | want)
    for path in _NOT_KEPT:
        yield family.case(f"{path!a} is refused", request(target="${P}" + path), refused())
    yield family.case("16,000 bytes", request(target=f"${{P}}/{'a' * 16_000}"), RELAYED)
    for size in (32_000, 200_000):
        sent = request(target=f"${{P}}/{'a' * size}")
        yield family.case(f"{size} bytes", sent, got(status=[414, 431], closed=True) | seen(requests=0))


def _in_absolute_form() -> Entries:
    family = Family("target in absolute-form", "RFC 9112 3.2.2")
    for authority in ("${H}", "localhost", "LOCALHOST:1", "[::1]:1", "x.localhost"):
        for scheme in ("http", "HTTP", "https"):
            target = f"{scheme}://{authority}${{P}}/x?y"
            want = seen(line=["GET /x?y HTTP/1.1"], requests=1, field_count={"Host": 1}, raw_absent=["://"])
            yield family.case(f"{target} is ours", request(target=target), RELAYED | want)
    sent = request(target="http://${H}${P}/x", host="evil.example")
    want = seen(line=["GET /x HTTP/1.1"], raw_absent=["evil"])
    yield family.case("its authority counts, not Host", sent, RELAYED | want)
    for authority in ("evil.example", "evil.example:${PORT}", "localhost.evil.example", "[::2]"):
        for host in ("${H}", authority):
            sent = request(target=f"http://{authority}${{P}}/x", host=host)
            yield family.case(f"{authority} with Host {host}", sent, got(status=[403]) | seen(requests=0))
    for host in ("", "a b", "user@${H}", "${H},${H}"):
        yield family.case(f"with Host {host!r}", request(target="http://${H}${P}/x", host=host), refused())
    yield family.case("without Host", "GET http://${H}${P}/x HTTP/1.1\r\n${X}\r\n", refused())


def _in_other_forms() -> Entries:
    family = Family("target in no form", "RFC 9112 3.2")
    for target in _IN_NO_FORM:
        yield family.case(f"{target!a}", request(target=target), refused())
    family = Family("target in asterisk-form", "RFC 9112 3.2.4", tenant="default")
    for target, passed in (
        ("*", "*"), ("http://${H}", "*"), ("http://localhost", "*"), ("http://${H}/", "/"), ("http://${H}?", "/?"),
    ):  # fmt: skip
        want = seen(line=[f"OPTIONS {passed} HTTP/1.1"], requests=1)
        sent = request(method="OPTIONS", target=target)
        yield family.case(f"{target} of OPTIONS leaves as {passed}", sent, RELAYED | want)
    for method in ("HEAD", "POST", "options", "PROPFIND"):
        yield family.case(f"of {method}", request(method=method, target="*"), refused())

"""Whose request it is, what it is for, and that its target goes on as it came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.routing import TENANT_NAME, Kind, Target, kind_of, readings, split, tenant_of
from proxy.errors import BadRequest

GUEST_PATHS = [
    b"/api/v2/webdeployments/token/oauthcodegrantjwtexchange",
    b"/api/v2/webdeployments/token/refresh",
    b"/api/v2/webdeployments/token/revoke",
    b"/api/v2/webmessaging/messages",
    b"/api/v2/webdeployments/deployments/d1/cobrowse",
    b"/api/v2/webdeployments/deployments/d1/cobrowse/c2",
    b"/api/v2/webmessaging/deployments/d1/pushdevices",
    b"/api/v2/webmessaging/deployments/d1/pushdevices/t3",
    b"/api/v2/knowledge/guest/sessions",
    b"/api/v2/knowledge/guest",
    b"/api/v2/journey/deployments/d1/appevents",
    b"/api/v2/journey/deployments",
]

# --- a target taken apart ---


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/api/v2/users", Target(None, None, None, b"/api/v2/users", usual=True)),
        (b"/", Target(None, None, None, b"/")),
        (b"/t/acme/api/v2/users?a=1", Target(None, None, b"acme", b"/api/v2/users?a=1", usual=True)),
        (b"/t/acme", Target(None, None, b"acme", b"/")),
        (b"/t/acme/", Target(None, None, b"acme", b"/")),
        (b"/t/acme?a=1", Target(None, None, b"acme", b"/?a=1")),
        (b"/t/acme/?a=/t/emca/", Target(None, None, b"acme", b"/?a=/t/emca/")),
        (b"/t/acme/t/emca/x", Target(None, None, b"acme", b"/t/emca/x")),
        (b"/t/ac%6de/x", Target(None, None, b"ac%6de", b"/x")),
        (b"/t//api", Target(None, None, b"", b"/api")),
        (b"/k/key/t/acme/api", Target(None, b"key", b"acme", b"/api")),
        (b"/k/key/api", Target(None, b"key", None, b"/api")),
        (b"/k/key", Target(None, b"key", None, b"/")),
        (b"/k/key?a", Target(None, b"key", None, b"/?a")),
        (b"/k//api", Target(None, b"", None, b"/api")),
        (b"/t/acme/k/key/api", Target(None, None, b"acme", b"/k/key/api")),
        (b"/k/key/tt/acme", Target(None, b"key", None, b"/tt/acme")),
        (b"/t", Target(None, None, None, b"/t")),
        (b"/k", Target(None, None, None, b"/k")),
        (b"/T/acme/x", Target(None, None, None, b"/T/acme/x")),
        (b"//t/acme/x", Target(None, None, None, b"//t/acme/x")),
        (b"/tenants/x", Target(None, None, None, b"/tenants/x")),
        (b"http://proxy.example:8080/t/acme/x?y", Target(b"proxy.example:8080", None, b"acme", b"/x?y")),
        (b"HTTPS://proxy.example/k/key/x", Target(b"proxy.example", b"key", None, b"/x")),
        (b"http://proxy.example", Target(b"proxy.example", None, None, b"/")),
        (b"http://proxy.example?a=1", Target(b"proxy.example", None, None, b"/?a=1")),
        (b"http://", Target(b"", None, None, b"/")),
    ],
)
def test_a_target_is_taken_apart(target: bytes, expected: Target) -> None:
    assert split(b"GET", target) == expected


words = st.sampled_from(
    b"t k api v2 users Users webdeployments token refresh webmessaging web messages knowledge guest journey "
    b"deployments . .. %2e a;b \xc3\xa9 ".split(b" ")
)


@example([b"api", b"v2", b"users", b"3f6c5d1e-0a0b-4c1d-9e2f-7a8b9c0d1e2f"], b"?a=/../b")
@example([b"api", b"v2", b"webdeployments", b"token", b"refresh"], b"")
@given(st.lists(words, max_size=7), st.sampled_from([b"", b"?a=1", b"?//", b"?", b";a"]))
def test_what_is_usual_is_the_apis_by_every_reading(path: list[bytes], query: bytes) -> None:
    for start in (b"/", b"/api/v2/", b"/t/acme/api/v2/", b"/k/key/t/acme/api/v2/"):
        target = split(b"GET", start + b"/".join(path) + query)
        if target.usual:
            alone = target.rest.partition(b"?")[0]
            assert readings(alone) == (alone,)
            assert kind_of(target.rest, websocket=False) is kind_of(target.rest, websocket=True) is Kind.API


@pytest.mark.parametrize(
    "target",
    [
        *GUEST_PATHS, b"/api/v2/", b"/api/v2", b"/api/v2/users/", b"/api/v2//users", b"/api/v2/a.b", b"/api/v2/Users",
        b"/api/v2/a%20b", b"/api/v1/users", b"/v1", b"/oauth/token", b"http://localhost/api/v2/users",
        b"/x/api/v2/users",
    ],
)  # fmt: skip
def test_what_needs_a_closer_look_is_not_usual(target: bytes) -> None:
    assert not split(b"GET", target).usual


def test_options_may_ask_for_the_server_itself() -> None:
    assert split(b"OPTIONS", b"*") == Target(None, None, None, b"*")
    assert split(b"OPTIONS", b"http://localhost") == Target(b"localhost", None, None, b"*")
    assert split(b"OPTIONS", b"http://localhost/").rest == b"/"
    assert split(b"OPTIONS", b"http://localhost?").rest == b"/?"
    assert split(b"GET", b"http://localhost").rest == b"/"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"*"),
        (b"OPTIONS", b"**"),
        (b"CONNECT", b"example.com:443"),
        (b"GET", b"example.com/x"),
        (b"GET", b"ftp://example.com/x"),
        (b"GET", b"http:/x"),
        (b"GET", b"http:x"),
        (b"GET", b"http://example.com/x#y"),
        (b"GET", b"?x"),
        (b"GET", b""),
        (b"GET", b"javascript:x"),
        (b"GET", b"wss://example.com/v1"),
    ],
)
def test_any_other_form_is_a_bad_request(method: bytes, target: bytes) -> None:
    with pytest.raises(BadRequest):
        split(method, target)


segments = st.lists(
    st.sampled_from([b"a", b"%2F", b"%2fb", b"..", b".", b"", b"~c", b"%7Ec", b"t", b"k", b"x;y=1", b"\xff", b"*"]),
    max_size=6,
)
queries = st.sampled_from([b"", b"?", b"?a=1&b=%20", b"?x=/t/other/", b"??", b"?%"])


@given(segments, queries)
def test_path_and_query_go_on_byte_for_byte(path: list[bytes], query: bytes) -> None:
    rest = b"/" + b"/".join(path) + query
    for prefix in (b"/t/acme", b"/k/key/t/acme", b"http://h/t/acme"):
        assert split(b"GET", prefix + rest).rest == rest


@given(st.binary(max_size=30).map(lambda rest: b"/" + rest.replace(b"#", b"")))
def test_nothing_is_lost_or_added_whatever_the_target(target: bytes) -> None:
    parts = split(b"GET", target)
    prefix = b"" if parts.key is None else b"/k/" + parts.key
    prefix += b"" if parts.tenant is None else b"/t/" + parts.tenant
    assert prefix + parts.rest in (target, target + b"/", target.replace(b"?", b"/?", 1))


# --- whose it is ---


def whose(target: bytes, header: bytes | None = None, host: bytes = b"localhost") -> bytes | None:
    return tenant_of(split(b"GET", target), header, host, b"default")


def test_the_path_comes_first_then_the_header_then_the_host_then_the_default() -> None:
    assert whose(b"/t/path/x", b"header", b"host.localhost") == b"path"
    assert whose(b"/x", b"header", b"host.localhost") == b"header"
    assert whose(b"/x", None, b"host.localhost") == b"host"
    assert whose(b"/x") == b"default"
    assert tenant_of(split(b"GET", b"/x"), None, b"localhost", None) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"acme.localhost:8080", b"acme"),
        (b"ACME.LocalHost", b"acme"),
        (b"acme.b.localhost", b"acme.b"),
        (b"b.acme.localhost:1", b"b.acme"),
        (b"localhost:8080", b"default"),
        (b"127.0.0.1:8080", b"default"),
        (b"[::1]:8080", b"default"),
        (b"acme.localhost.example", b"default"),
        (b"acme.example", b"default"),
        (b"", b"default"),
    ],
)
def test_a_host_names_a_tenant_only_under_localhost(host: bytes, expected: bytes) -> None:
    assert whose(b"/x", None, host) == expected


@pytest.mark.parametrize("name", [b"", b"ACME", b"ac%6de", b"acme ", b"../acme"])
def test_a_name_is_taken_as_it_stands(name: bytes) -> None:
    # Compared exactly with the configured ones, so none of these finds "acme", and none the default tenant.
    assert whose(b"/t/%b/x" % name.replace(b"/", b"%2F")) == name.replace(b"/", b"%2F")
    assert whose(b"/x", name) == name


@pytest.mark.parametrize("name", [b"a", b"acme", b"acme-2_b", b"0" * 63])
def test_a_tenants_name_is_a_host_label(name: bytes) -> None:
    assert TENANT_NAME.fullmatch(name)


@pytest.mark.parametrize("name", [b"", b"-a", b"a-", b"A", b"a.b", b"a/b", b"0" * 64, b"\xff", b"a b"])
def test_nothing_else_is_a_tenants_name(name: bytes) -> None:
    assert not TENANT_NAME.fullmatch(name)


# --- what it is for ---


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        (b"/api/v2/users", Kind.API),
        (b"/api/v2/users?x=/oauth/token", Kind.API),
        (b"/api/v1/anything", Kind.API),
        (b"/", Kind.API),
        (b"*", Kind.API),
        (b"/platform/x", Kind.API),
        (b"/oauth/token", Kind.TOKEN),
        (b"/oauth/token?x=1", Kind.TOKEN),
        (b"/oauth/authorize", Kind.LOGIN_PAGE),
        (b"/oauth/authorize?client_id=x", Kind.LOGIN_PAGE),
        (b"/logout", Kind.LOGIN_PAGE),
        (b"/logout?x", Kind.LOGIN_PAGE),
        (b"/v1", Kind.API),
        (b"/v1?deploymentId=x", Kind.API),
        (b"/webdeployments/v1/deployments/d1/config.json", Kind.CDN),
        (b"/webdeployments", Kind.API),
        (b"/api/v2/webdeployments/deployments", Kind.API),
        (b"/api/v2/webdeployments/deployments/d1", Kind.API),
        (b"/api/v2/webdeployments/token", Kind.API),
        (b"/api/v2/webmessaging/messages/x", Kind.API),
        (b"/api/v2/webmessaging/deployments/d1/pushdevicesx", Kind.API),
        (b"/api/v2/knowledge/guests", Kind.API),
        (b"/api/v2/journey/deploymentsx", Kind.API),
        (b"/api/v2/journey/sessions", Kind.API),
        (b"/x/api/v2/webmessaging/messages", Kind.API),
    ],
)
def test_a_path_says_what_a_request_is_for(rest: bytes, kind: Kind) -> None:
    assert kind_of(rest, websocket=False) is kind


@pytest.mark.parametrize(
    ("rest", "kind"),
    [(b"/v1", Kind.WEBMESSAGING), (b"/v1?deploymentId=x", Kind.WEBMESSAGING), (b"/v1/", Kind.API), (b"/v2", Kind.API)],
)
def test_a_websocket_on_v1_is_web_messaging(rest: bytes, kind: Kind) -> None:
    assert kind_of(rest, websocket=True) is kind


@pytest.mark.parametrize("path", GUEST_PATHS)
def test_a_guests_call_is_known(path: bytes) -> None:
    expected = Kind.GUEST
    if path.startswith(b"/api/v2/webdeployments/token/"):
        expected = Kind.GUEST_REVOKE if path.endswith(b"/revoke") else Kind.GUEST_TOKEN
    assert kind_of(path, websocket=False) is expected
    assert kind_of(path + b"?x=1", websocket=False) is expected


def encode_all(path: bytes) -> bytes:
    return b"/".join(b"".join(b"%%%02x" % byte for byte in segment) for segment in path.split(b"/"))


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "upper case": bytes.upper,
    "a slash at the end": lambda path: path + b"/",
    "a path parameter": lambda path: path + b";v=1",
    "a path parameter in the middle": lambda path: path.replace(b"/v2", b"/v2;v=1"),
    "two slashes": lambda path: path.replace(b"/", b"//"),
    "a dot": lambda path: path.replace(b"/v2/", b"/./v2/./"),
    "two dots": lambda path: b"/x/.." + path,
    "two dots in the middle": lambda path: path.replace(b"/v2/", b"/v2/x/../"),
    "more dots than there are segments": lambda path: b"/../.." + path,
    "encoded": encode_all,
    "an encoded slash": lambda path: path[:7] + path[7:].replace(b"/", b"%2F", 1),
    "encoded twice": lambda path: encode_all(path).replace(b"%", b"%25"),
    "encoded dots": lambda path: b"/x/%2e%2E" + path,
    "an encoded parameter": lambda path: path + b"%3bv=1",
    "an encoded query": lambda path: path + b"%3Fv=1",
    "backslashes": lambda path: path.replace(b"/", b"\\").replace(b"\\", b"/", 1),
    "encoded backslashes": lambda path: path[:1] + path[1:].replace(b"/", b"%5c"),
    "a blank at the end": lambda path: path + b"%20",
    "blanks in the middle": lambda path: path.replace(b"/v2/", b"/%20v2%20/"),
    "a tab": lambda path: path + b"%09",
    "a control in the middle": lambda path: path.replace(b"/v2", b"/v%0d2"),
    "a zero byte": lambda path: path + b"%00.json",
    "a dot at the end": lambda path: path + b".",
    "dots and blanks in the middle": lambda path: path.replace(b"/v2/", b"/v2.%20./"),
    "an encoded fragment": lambda path: path + b"%23x",
    "a fragment encoded twice": lambda path: path + b"%2523x",
    "full width letters": lambda path: path.replace(b"a", "ａ".encode()).replace(b"e", b"%EF%BD%85"),
    "letters that are folded": lambda path: path.replace(b"s", "ſ".encode()),
    "UTF-8 that is too long": lambda path: path[:1] + path[1:].replace(b"/", b"%c0%af").replace(b"p", b"%C1%B0"),
    "dots in UTF-8 that is too long": lambda path: b"/x/%c0%ae%c0%ae" + path,
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("path", GUEST_PATHS)
def test_a_path_that_an_upstream_could_read_as_a_guests_gets_no_token(path: bytes, disguise: str) -> None:
    assert kind_of(DISGUISES[disguise](path), websocket=False) is Kind.GUEST


# --- every reading ---


@pytest.mark.parametrize("path", [b"/api/v2/users", b"/", b"/api/v2/users/me", b"*", b"/api/v2/a.b~c-d_e/1:2"])
def test_a_plain_path_has_one_reading(path: bytes) -> None:
    assert readings(path) == (path,)


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (b"/a/../b", b"/b"),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/a/%252e%252e/b", b"/b"),
        (b"/a%2Fb", b"/a/b"),
        (b"/a%252Fb", b"/a/b"),
        (b"/a\\b", b"/a/b"),
        (b"/A/B", b"/a/b"),
        (b"/a;x=1/b", b"/a/b"),
        (b"/a;x=1/b", b"/a;x=1/b"),
        (b"/a//b/", b"/a/b"),
        (b"/../../a", b"/a"),
        (b"/a%3Fb", b"/a"),
        (b"/a%23b", b"/a"),
        (b"/a%20", b"/a"),
        (b"/a%20", b"/a "),
        (b"/a%00b", b"/a"),
        (b"/a%00b", b"/ab"),
        (b"/a./b", b"/a/b"),
        (b"/b/.. /a%2e%2e%20/../a", b"/a"),
        (b"/\xe2\x84\xaa", b"/k"),
        (b"/a\xff", b"/a\xff"),
        (b"/a%zzb", b"/a%zzb"),
    ],
)
def test_another_reading_of_a_path_is_found(path: bytes, other: bytes) -> None:
    assert readings(path)[0] == path
    assert other in readings(path)


@given(st.binary(max_size=40).map(lambda path: b"/" + path.replace(b"?", b"")))
def test_the_path_itself_is_the_first_of_few_readings(path: bytes) -> None:
    found = readings(path)
    assert found[0] == path
    assert len(set(found)) == len(found) <= 1 + 3 * 2 * 3
    assert all(reading.startswith(b"/") for reading in found)


@given(st.sampled_from(GUEST_PATHS), st.data())
def test_no_mixture_of_encodings_hides_a_guests_path(path: bytes, data: st.DataObject) -> None:
    forms = data.draw(
        st.lists(st.sampled_from([b"%c", b"%%%02x", b"%%25%02X"]), min_size=len(path), max_size=len(path))
    )
    disguised = b"".join(form % byte for form, byte in zip(forms, path, strict=True))
    assert kind_of(b"/" + disguised, websocket=False) is Kind.GUEST


def test_a_target_longer_than_what_is_remembered_is_judged_like_any_other() -> None:
    query = b"?" + b"x" * 400
    assert split(b"GET", b"/k/key/t/acme/a" + query) == Target(None, b"key", b"acme", b"/a" + query)
    assert kind_of(b"/api/v2/webmessaging/messages" + query, websocket=False) is Kind.GUEST
    assert kind_of(b"/v1" + query, websocket=True) is Kind.WEBMESSAGING
    assert kind_of(b"/v1" + query, websocket=False) is Kind.API


def test_what_is_remembered_of_one_method_says_nothing_for_another() -> None:
    assert split(b"OPTIONS", b"*").rest == b"*"
    with pytest.raises(BadRequest):
        split(b"GET", b"*")
    assert kind_of(b"/v1", websocket=True) is not kind_of(b"/v1", websocket=False)


def test_a_path_longer_than_what_is_remembered_is_read_like_any_other() -> None:
    path = b"/a" * 2000 + b"/%2e%2e/b"
    assert b"/a" * 1999 + b"/b" in readings(path)

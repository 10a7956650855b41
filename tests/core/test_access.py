"""Who may call, what a page may do, and what a tenant's policy lets pass."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.access import (
    CORS_FIELDS,
    EXPOSED,
    METHODS,
    Caller,
    Callers,
    Policy,
    caller_of,
    callers,
    check_caller,
    check_host,
    check_policy,
    check_tenant,
    host_of,
    named,
    parse_rule,
    preflight,
    shared_with,
)
from proxy.core.fields import Fields, Shape
from proxy.core.report import CallerTally
from proxy.errors import BadRequest, NotAllowed

PAGE = b"https://chat.example.com"
KEY = "0123456789abcdef"
OTHER_KEY = "fedcba9876543210"

RULES = callers("192.0.2.7", ["Proxy.Example"], ["https://Chat.example.com"], [])
WEB = Caller("web", CallerTally(), 10, 10)
OTHERS = Caller("", CallerTally(), 10, 10, frozenset({b"acme", b"globex"}))
KEYED = callers("127.0.0.1", [], [], [(KEY, WEB), (OTHER_KEY, OTHERS)])


def policy(*, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> Policy:
    return Policy(tuple(map(parse_rule, allow)), tuple(map(parse_rule, deny)))


def passes(rules: Policy, method: bytes, rest: bytes) -> bool:
    try:
        check_policy(rules, method, rest)
    except NotAllowed:
        return False
    return True


# --- Host ---


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"localhost", b"localhost"),
        (b"LOCALHOST:8080", b"localhost"),
        (b"a-b_c.example:1", b"a-b_c.example"),
        (b"127.0.0.1:65535", b"127.0.0.1"),
        (b"[::1]:8080", b"[::1]"),
        (b"[2001:DB8::1]", b"[2001:db8::1]"),
        (b"localhost:", b"localhost"),
    ],
)
def test_a_host_is_read_without_its_port(authority: bytes, host: bytes) -> None:
    assert host_of(authority) == host


@pytest.mark.parametrize(
    "authority",
    [
        b"", b":8080", b"a b", b"a,b", b"localhost, evil.example", b"user@localhost", b"localhost@evil.example", b"a/b",
        b"http://localhost", b"localhost:80:80", b"localhost:123456", b"localhost:x", b"[::1", b"::1", b"[]", b"[::1]x",
        b"-a", b"a-", b".localhost", b"localhost.", b"a\x00", b"a\n", b"\xffa", b"loc%61lhost", b"a#b", b"a?b", b"a\\b",
    ],
)  # fmt: skip
def test_what_is_no_host_and_port_is_a_bad_request(authority: bytes) -> None:
    with pytest.raises(BadRequest):
        host_of(authority)


@pytest.mark.parametrize(
    "authority",
    [
        b"localhost:8080", b"LocalHost", b"127.0.0.1:8080", b"[::1]:8080", b"acme.localhost:8080", b"a.b.localhost",
        b"192.0.2.7:8080", b"proxy.example", b"PROXY.EXAMPLE:443",
    ],
)  # fmt: skip
def test_local_names_and_configured_ones_are_ours(authority: bytes) -> None:
    check_host(RULES, authority)


@pytest.mark.parametrize(
    "authority",
    [
        b"evil.example", b"localhost.evil.example", b"evillocalhost", b"127.0.0.2", b"[::2]", b"192.0.2.8",
        b"x.proxy.example",
    ],
)  # fmt: skip
def test_a_name_that_was_rebound_to_our_address_is_not_ours(authority: bytes) -> None:
    with pytest.raises(NotAllowed, match="allowed_hosts"):
        check_host(RULES, authority)


def test_an_ipv6_address_to_listen_on_is_ours_in_brackets() -> None:
    check_host(callers("2001:DB8::7", [], [], []), b"[2001:db8::7]:8080")


# --- Origin and Sec-Fetch-Site ---


def test_a_program_that_is_no_browser_passes() -> None:
    assert check_caller(RULES, b"localhost:8080", None, None) is None


@pytest.mark.parametrize("site", [b"none", b"same-origin"])
def test_a_person_who_types_the_address_passes(site: bytes) -> None:
    assert check_caller(RULES, b"localhost:8080", None, site) is None


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"", b"None", b"cross-site, none", b"unheard-of"])
def test_a_page_of_another_site_is_refused_though_its_browser_sends_no_origin(site: bytes) -> None:
    with pytest.raises(NotAllowed, match="page of another site"):
        check_caller(RULES, b"localhost:8080", None, site)


@pytest.mark.parametrize("site", [None, b"cross-site"])
@pytest.mark.parametrize("origin", [PAGE, PAGE.upper()])
def test_a_page_of_an_allowed_origin_passes_and_is_named(origin: bytes, site: bytes | None) -> None:
    assert check_caller(RULES, b"localhost:8080", origin, site) == origin


@pytest.mark.parametrize("origin", [b"http://localhost:8080", b"https://localhost:8080", b"HTTP://LOCALHOST:8080"])
def test_our_own_pages_pass(origin: bytes) -> None:
    assert check_caller(RULES, b"LocalHost:8080", origin, b"same-origin") is None


@pytest.mark.parametrize(
    "origin",
    [
        b"null", b"", b"*", b"https://evil.example", PAGE + b".evil.example", PAGE + b":8443", b"http://chat.example.com",
        PAGE + b"/", PAGE + b", https://evil.example", b"http://localhost", b"http://localhost:8081",
        b"http://localhost:8080.evil.example", b"http://evil@localhost:8080", b"ftp://localhost:8080",
    ],
)  # fmt: skip
def test_any_other_origin_is_refused(origin: bytes) -> None:
    for site in (None, b"same-origin", b"none"):
        with pytest.raises(NotAllowed, match="allowed_origins"):
            check_caller(RULES, b"localhost:8080", origin, site)


def test_a_page_on_a_rebound_name_is_refused_though_it_is_its_own_origin() -> None:
    with pytest.raises(NotAllowed, match="allowed_hosts"):
        check_caller(RULES, b"evil.example:8080", b"http://evil.example:8080", b"same-origin")


def test_the_name_is_checked_though_the_origin_is_allowed() -> None:
    with pytest.raises(NotAllowed, match="allowed_hosts"):
        check_caller(RULES, b"evil.example", PAGE, None)


def test_what_is_remembered_for_one_set_of_rules_says_nothing_for_another() -> None:
    assert check_caller(RULES, b"localhost", PAGE, None) == PAGE
    with pytest.raises(NotAllowed):
        check_caller(callers("192.0.2.7", ["Proxy.Example"], [], []), b"localhost", PAGE, None)


def test_names_and_origins_too_long_to_be_remembered_are_judged_alike() -> None:
    label = b"a" * 1000
    assert check_caller(RULES, label + b".localhost", PAGE, None) == PAGE
    with pytest.raises(NotAllowed, match="allowed_hosts"):
        check_caller(RULES, label + b".example", None, None)
    with pytest.raises(NotAllowed, match="allowed_origins"):
        check_caller(RULES, b"localhost", b"https://" + label, None)
    with pytest.raises(NotAllowed, match="page of another site"):
        check_caller(RULES, b"localhost", None, label)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"globx", 'Host "globx"'),
        (b"[2001:db8::1]", 'Host "[2001:db8::1]"'),
        (b"proxy.default.svc.cluster.local", 'Host "proxy.default.svc.cluster.local"'),
        (b"x" * 24, f'Host "{"x" * 24}"'),
        (b"x" * 25, "This Host"),
        (b"a.b" * 21, f'Host "{"a.b" * 21}"'),
        (b"a.b" * 21 + b"c", "This Host"),
        (b"", "This Host"),
        (b"a b", "This Host"),
        (b'"><script>', "This Host"),
        (b"ma\xc3\xbcer", "This Host"),
        (b"a\n", "This Host"),
    ],
)
def test_a_message_repeats_a_name_only_where_it_is_plain_and_short(name: bytes, said: str) -> None:
    assert named("Host", name) == said


def test_a_refused_name_is_told() -> None:
    with pytest.raises(NotAllowed, match=r'^Host "evil\.example" is not allowed here; name it in access'):
        check_host(RULES, b"evil.example:8080")


# --- caller keys ---


@pytest.mark.parametrize(
    ("header", "path", "caller"),
    [
        (KEY, None, WEB),
        (OTHER_KEY, None, OTHERS),
        (None, KEY, WEB),
        (None, OTHER_KEY, OTHERS),
        (KEY, OTHER_KEY, WEB),
        (KEY, "wrong", WEB),
    ],
)
def test_a_caller_shows_any_of_the_keys_in_the_field_or_in_the_path(
    header: str | None, path: str | None, caller: Caller
) -> None:
    assert caller_of(KEYED, header.encode() if header else None, path.encode() if path else None) is caller


@pytest.mark.parametrize(
    ("header", "path"),
    [
        (None, None),
        (b"", None),
        (None, b""),
        (b"", KEY.encode()),
        (b"wrong", KEY.encode()),
        (KEY[:-1].encode(), None),
        (KEY.encode() + b"x", None),
        (KEY.upper().encode(), None),
        (f"{KEY}, {KEY}".encode(), None),
        (KEY.encode() + OTHER_KEY.encode(), None),
        (b"\xff", None),
    ],
)
def test_without_a_right_key_nobody_passes(header: bytes | None, path: bytes | None) -> None:
    with pytest.raises(NotAllowed, match="X-Proxy-Key"):
        caller_of(KEYED, header, path)


def test_without_configured_keys_anybody_passes() -> None:
    assert caller_of(RULES, None, None) is None
    assert caller_of(RULES, b"anything", None) is None


def test_a_key_is_for_its_tenants_alone_whether_there_are_others_or_not() -> None:
    for tenant in (b"acme", b"globex"):
        check_tenant(OTHERS, tenant)
    for tenant in (b"initech", b"nobody", b"", b"ACME"):
        with pytest.raises(NotAllowed, match="not for this tenant"):
            check_tenant(OTHERS, tenant)
        check_tenant(WEB, tenant)
        check_tenant(None, tenant)


def test_rules_show_no_key_and_are_equal_only_to_themselves() -> None:
    assert KEY not in repr(KEYED)
    assert "keys=2" in repr(KEYED)
    assert all(KEY.encode() not in digest for digest, _ in KEYED.keys)
    assert callers("127.0.0.1", [], [], [(KEY, WEB), (OTHER_KEY, OTHERS)]) != KEYED
    assert isinstance(KEYED, Callers)


# --- CORS ---


def lines_of(section: bytes) -> dict[bytes, bytes]:
    lines = section.split(b"\r\n")
    assert lines.pop() == b""
    return dict(line.split(b": ", 1) for line in lines)


def section(*lines: bytes) -> Fields:
    names = tuple(line.partition(b":")[0] for line in lines)
    return Fields(b"".join(line + b"\r\n" for line in lines), list(lines), Shape(names))


def test_a_preflight_is_granted_what_it_asks_for() -> None:
    asked = section(
        b"Access-Control-Request-Method: PATCH",
        b"Access-Control-Request-Headers: authorization, genesys-app",
        b"Access-Control-Request-Private-Network: true",
    )
    granted = lines_of(preflight(asked))
    assert granted[b"Access-Control-Allow-Methods"] == b"PATCH"
    assert granted[b"Access-Control-Allow-Headers"] == b"authorization, genesys-app"
    assert granted[b"Access-Control-Allow-Private-Network"] == b"true"
    assert b"Access-Control-Request-Method" in granted[b"Vary"]


def test_a_preflight_is_granted_no_private_network_unasked() -> None:
    granted = lines_of(preflight(section(b"Access-Control-Request-Method: GET")))
    assert b"Access-Control-Allow-Private-Network" not in granted
    assert granted[b"Access-Control-Allow-Headers"] == b"Authorization, Genesys-App, Content-Type"
    assert lines_of(preflight(section()))[b"Access-Control-Allow-Methods"] == b"GET"


def test_an_allowed_page_reads_the_answer_and_the_fields_that_clients_go_by() -> None:
    shared = lines_of(shared_with(PAGE))
    assert shared[b"Access-Control-Allow-Origin"] == PAGE
    assert shared[b"Vary"] == b"Origin"
    exposed = {name.lower() for name in shared[b"Access-Control-Expose-Headers"].split(b", ")}
    assert {b"retry-after", b"inin-correlation-id", b"inin-ratelimit-count", b"inin-ratelimit-reset"} <= exposed
    assert shared[b"Access-Control-Expose-Headers"] == EXPOSED


def test_no_page_is_allowed_credentials_of_the_browser() -> None:
    assert b"Credentials" not in shared_with(PAGE) + preflight(section())


def test_every_cors_field_that_we_write_replaces_the_upstreams() -> None:
    written = {
        *lines_of(shared_with(PAGE)),
        *lines_of(preflight(section(b"Access-Control-Request-Private-Network: true"))),
    }
    assert {name.lower() for name in written} - {b"vary"} <= CORS_FIELDS


# --- rules ---


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ("GET /api/v2/users", b"/api/v2/users", True),
        ("GET /api/v2/users", b"/api/v2/users/", True),
        ("GET /api/v2/users", b"/api/v2/users/x", False),
        ("GET /api/v2/users", b"/api/v2/usersx", False),
        ("GET /api/v2/users", b"/x/api/v2/users", False),
        ("GET /API/V2/Users", b"/api/v2/users", True),
        ("GET /api/v2/users/*", b"/api/v2/users/me", True),
        ("GET /api/v2/users/*", b"/api/v2/users/me/", True),
        ("GET /api/v2/users/*", b"/api/v2/users/me/x", False),
        ("GET /api/v2/users/*", b"/api/v2/users", False),
        ("GET /api/*/users", b"/api/v2/users", True),
        ("GET /api/*/users", b"/api/v2/x/users", False),
        ("GET /api/v2/u*s", b"/api/v2/users", True),
        ("GET /api/v2/u*s", b"/api/v2/u/s", False),
        ("GET /api/v2/**", b"/api/v2/users/me", True),
        ("GET /api/v2/**", b"/api/v2/", True),
        ("GET /api/v2/**", b"/api/v2", True),
        ("GET /api/v2/**", b"/api/v2x", False),
        ("GET /api/**/me", b"/api/me", True),
        ("GET /api/**/me", b"/api/v2/users/me", True),
        ("GET /api/**/me", b"/api/v2/usersme", False),
        ("GET /**", b"/", True),
        ("GET /**", b"/anything/at\nall", True),
        ("GET /api/v2/a**", b"/api/v2/ab/c", True),
        ("GET /a.c", b"/abc", False),
        ("GET /a+", b"/aa", False),
        ("GET /[a-z]", b"/x", False),
        ("GET /(a|b)", b"/a", False),
    ],
)
def test_a_rule_matches_a_segment_by_one_star_and_any_number_by_two(rule: str, path: bytes, expected: bool) -> None:
    assert parse_rule(rule).matches(b"GET", path) is expected


@pytest.mark.parametrize(("method", "expected"), [(b"GET", True), (b"HEAD", False), (b"get", False), (b"", False)])
def test_a_rule_is_for_its_method(method: bytes, expected: bool) -> None:
    assert parse_rule("GET /x").matches(method, b"/x") is expected
    assert parse_rule("* /x").matches(method, b"/x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET",
        "GET ",
        "/x",
        "get /x",
        "GET x",
        "GET  /x",
        " GET /x",
        "GET /x ",
        "GET /a b",
        "G3T /x",
        "** /",
        "GET /é",
    ],
)
def test_what_is_no_method_and_path_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match="expected a method"):
        parse_rule(text)


def plainly(path: str) -> re.Pattern[bytes]:
    """What a rule's path means, as a plain regular expression, which takes for ever on some paths."""
    pattern = re.sub(r"/\\\*\\\*(?=/|$)", r"(?:/.*)?", re.escape(path.lower()))
    pattern = pattern.replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.compile(pattern.encode() + rb"/?", re.DOTALL)


pieces = st.sampled_from(["/", "*", "**", "/**", "/**/", "/*/", "a", "b", "ab", "/a", ".", "A"])
short_rules = st.lists(pieces, max_size=7).map(lambda found: "/" + "".join(found))
short_paths = st.lists(st.sampled_from([b"/", b"a", b"b", b"ab", b"/a", b"/b", b".", b"\n"]), max_size=9)


@given(short_rules, short_paths.map(lambda found: b"/" + b"".join(found)))
@example("/a**b*b/**", b"/ab/bb/x")
@example("/**a*b", b"/a/ab/b")
@example("/**/a*/**/b", b"/ab/a/b")
@settings(max_examples=300)
def test_a_rule_means_what_its_plain_regular_expression_means(rule: str, path: bytes) -> None:
    assert parse_rule(f"GET {rule}").matches(b"GET", path) is (plainly(rule).fullmatch(path) is not None)


@pytest.mark.parametrize(
    "rule, opening, filling",
    [
        ("/api/v2/**/queues/**/users/**/skills", b"/api/v2", b"/queues/users"),
        ("/api/v2/**/queues/**/users/**/skills", b"/api/v2" + b"/queues" * 40, b"/users"),
        ("/**a**b**c", b"/", b"ab"),
        ("/**a*b*c", b"/", b"ab"),
        ("/*a*b*c", b"/", b"ab"),
        ("/**/*a*b/c", b"/", b"ab"),
        ("/**a*b", b"/", b"a"),
    ],
)
def test_a_path_eight_times_as_long_takes_a_rule_no_more_than_eight_times_as_long(
    rule: str, opening: bytes, filling: bytes
) -> None:
    matches = parse_rule(f"GET {rule}").matches

    def seconds(times: int, length: int) -> float:
        path = opening + filling * (length // len(filling)) + b"/!"
        before = time.thread_time()
        for _ in range(times):
            assert not matches(b"GET", path)
        return time.thread_time() - before

    # Quadratic were 8 times as much, cubic 64 times.
    assert min(seconds(1, 8000) for _ in range(5)) < 3 * min(seconds(8, 1000) for _ in range(5))


def test_a_rule_keeps_its_text() -> None:
    assert parse_rule("GET /Api/**").text == "GET /Api/**"


# --- a policy ---


def test_an_empty_policy_lets_everything_pass() -> None:
    assert passes(Policy(), b"DELETE", b"/api/v2/tokens/me")


def test_allow_lets_nothing_else_pass() -> None:
    rules = policy(allow=("GET /api/v2/users/**", "POST /api/v2/messages"))
    assert passes(rules, b"GET", b"/api/v2/users/me?expand=x")
    assert passes(rules, b"POST", b"/api/v2/messages")
    assert not passes(rules, b"GET", b"/api/v2/messages")
    assert not passes(rules, b"DELETE", b"/api/v2/users/me")
    assert not passes(rules, b"OPTIONS", b"*")


def test_what_is_answered_here_is_shut_by_deny_alone() -> None:
    check_policy(policy(allow=("GET /api/v2/**",)), b"POST", b"/oauth/token", answered_here=True)
    with pytest.raises(NotAllowed, match="deny"):
        check_policy(policy(deny=("POST /oauth/token",)), b"POST", b"/oauth/token", answered_here=True)


def test_deny_wins_over_allow() -> None:
    rules = policy(allow=("* /api/v2/**",), deny=("DELETE /api/v2/tokens/me",))
    assert passes(rules, b"GET", b"/api/v2/tokens/me")
    assert not passes(rules, b"DELETE", b"/api/v2/tokens/me")
    assert not passes(rules, b"DELETE", b"/api/v2/tokens/me?x=1")


def test_a_method_in_lower_case_is_no_way_around_a_rule() -> None:
    assert not passes(policy(deny=("DELETE /api/v2/tokens/me",)), b"delete", b"/api/v2/tokens/me")


def test_a_query_is_no_part_of_the_path() -> None:
    assert not passes(policy(allow=("GET /a",)), b"GET", b"/b?/a")
    assert passes(policy(deny=("GET /a",)), b"GET", b"/b?/a")


ODD = [
    b"/API/v2/Tokens/ME", b"/api/v2/tokens/me/", b"/api/v2/tokens//me", b"//api/v2/tokens/me", b"/api/v2/tokens/./me",
    b"/api/v2/tokens/x/../me", b"/x/../api/v2/tokens/me", b"/api/v2/tokens/%6de", b"/api/v2/tokens%2fme",
    b"/api/v2/tokens%252Fme", b"/api/v2/tokens/me;x=1", b"/api/v2/tokens;x/me", b"/api/v2/tokens\\me",
    b"/api/v2/tokens/x/%2e%2e/me", b"/api/v2/tokens/me%3Fx", b"/api/v2/tokens/me/%2e", b"/%61pi/v2/tokens/me",
    b"/api/v2/tokens/me%20", b"/api/v2/tokens/me%09", b"/api/v2/tokens/me%00", b"/api/v2/tokens/me%00x",
    b"/api/v2/tokens/me.", b"/api/v2/tokens/me%23x", b"/api/v2/tokens./me", b"/api/v2/tokens/%20me",
    b"/api/v2/tokens/m%00e", b"/api/v2/tokens/me%20%00x", b"/api/v2/to%E2%84%AAens/me", b"/api/v2/tokens/me;%20",
    b"/api/v2/tokens%c0%afme", b"/api/v2/tokens/me.%2e%20", b"/api/v2/tokens/me%0d%0a", b"/api/v2/tokens/me%7f",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD)
def test_no_spelling_of_a_denied_path_passes(path: bytes) -> None:
    assert not passes(policy(deny=("DELETE /api/v2/tokens/me",)), b"DELETE", path)


@pytest.mark.parametrize("path", ODD)
def test_a_path_that_can_also_be_read_as_another_one_is_not_allowed_by_one_reading(path: bytes) -> None:
    assert not passes(policy(allow=("DELETE /x/**", "DELETE /api/v2/tokens/x/**")), b"DELETE", path)


def test_a_way_out_of_an_allowed_folder_is_refused() -> None:
    rules = policy(allow=("GET /api/v2/users/**",))
    for path in (b"/api/v2/users/../tokens/me", b"/api/v2/users/%2e%2e/tokens/me", b"/api/v2/users/..%2ftokens"):
        assert not passes(rules, b"GET", path)
    assert passes(rules, b"GET", b"/api/v2/users/a%20b")
    assert passes(rules, b"GET", b"/api/v2/users/x/../y")


@given(st.binary(max_size=30).map(lambda path: b"/" + path), st.sampled_from([b"GET", b"DELETE", b"get"]))
def test_what_one_rule_denies_no_rule_of_allow_lets_pass(path: bytes, method: bytes) -> None:
    denied = policy(deny=("DELETE /**",))
    allowed = policy(allow=("* /**",), deny=("DELETE /**",))
    assert passes(denied, method, path) == passes(allowed, method, path) == (method != b"DELETE")


def test_a_refusal_names_its_rule_and_why_it_is_there() -> None:
    with pytest.raises(NotAllowed, match=r'deny = \["DELETE /api/v2/tokens/me"\]. It would revoke the token'):
        check_policy(policy(deny=("DELETE /api/v2/tokens/me",)), b"DELETE", b"/api/v2/tokens/me")
    with pytest.raises(NotAllowed, match=r'deny = \["GET /x"\].$'):
        check_policy(policy(deny=("GET /x",)), b"GET", b"/x")
    with pytest.raises(NotAllowed, match="no rule of allow matches"):
        check_policy(policy(allow=("GET /x",)), b"GET", b"/y")


rule_texts = st.builds("{} {}".format, st.sampled_from(["GET", "DELETE", "*"]), st.sampled_from(["/**", "/a", "/a/*"]))


@given(
    st.lists(rule_texts, max_size=2).map(tuple),
    st.lists(rule_texts, max_size=2).map(tuple),
    st.sampled_from([*sorted(METHODS), b"get", b"PURGE"]),
    st.sampled_from([b"/", b"/a", b"/a/b", b"/A%2Fb"]),
)
def test_a_method_that_is_called_harmless_always_passes(
    allow: tuple[str, ...], deny: tuple[str, ...], method: bytes, path: bytes
) -> None:
    rules = policy(allow=allow, deny=deny)
    assert passes(rules, method, path) or method not in rules.harmless


def test_a_method_that_no_rule_names_is_harmless() -> None:
    assert policy(deny=("DELETE /x",)).harmless == METHODS - {b"DELETE"}
    assert Policy().harmless == METHODS

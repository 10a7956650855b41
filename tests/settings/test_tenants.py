"""A tenant's keys, ``[defaults]``, and what the region makes of them."""

from __future__ import annotations

import pytest

from proxy.core.secret import Secret
from proxy.core.urls import BaseUrl
from tests.settings.folder import TENANT, Folder

CLIENT = 'client_id = "id"\nclient_secret = "secret"\n'
PLAIN = f"[tenants.acme]\n{CLIENT}"
"""A tenant without region."""


def urls(folder: Folder, text: str) -> list[str]:
    tenant = folder.load(text).tenants["acme"]
    return [str(url) for url in (tenant.api_url, tenant.login_url, tenant.webmessaging_url, tenant.cdn_url)]


def test_a_tenant_has_defaults(folder: Folder) -> None:
    tenant = folder.tenant("")
    assert tenant.name == "acme"
    assert tenant.region == "mypurecloud.de"
    assert tenant.grant == "client_credentials"
    assert tenant.client_id == "id"
    assert tenant.client_auth == "client_secret_basic"
    assert tenant.client_secret == Secret("secret")
    assert (tenant.signing_key, tenant.assertion, tenant.subject, tenant.audience) == (None, None, None, None)
    assert tenant.scope == ()
    assert tenant.resource_server is None
    assert tenant.token_parameters == {}
    assert tenant.token_headers == {}
    assert tenant.org_id is None
    assert tenant.refresh_ahead == 60
    assert tenant.keep_warm is True
    assert tenant.authorization == "replace"
    assert tenant.allow == ()
    assert tenant.deny == ("DELETE /api/v2/tokens/me",)


# --- region and URLs ---

REGION_URLS = [
    "https://api.mypurecloud.de",
    "https://login.mypurecloud.de",
    "https://webmessaging.mypurecloud.de",
    "https://api-cdn.mypurecloud.de",
]


@pytest.mark.parametrize("region", ["eu-central-1", "mypurecloud.de", "MyPureCloud.de"])
def test_the_region_gives_the_four_urls(folder: Folder, region: str) -> None:
    assert urls(folder, f'{PLAIN}region = "{region}"') == REGION_URLS


@pytest.mark.parametrize(
    ("position", "key"), list(enumerate(["api_url", "login_url", "webmessaging_url", "cdn_url"])), ids=str
)
def test_each_url_can_be_overridden(folder: Folder, position: int, key: str) -> None:
    expected = [*REGION_URLS]
    expected[position] = "https://gateway.example/x"
    assert urls(folder, f'{TENANT}{key} = "https://gateway.example/x/"') == expected


def test_without_region_api_and_login_are_needed_and_the_rest_is_the_api(folder: Folder) -> None:
    pair = f'{PLAIN}api_url = "https://a.example/x"\nlogin_url = "https://l.example"\n'
    assert urls(folder, pair) == ["https://a.example/x", "https://l.example"] + ["https://a.example/x"] * 2
    assert folder.load(pair).tenants["acme"].region is None
    own = f'{pair}webmessaging_url = "wss://w.example"\ncdn_url = "http://c.example"'
    assert urls(folder, own)[2:] == ["https://w.example", "http://c.example"]


@pytest.mark.parametrize("keys", ["", 'api_url = "https://a.example"', 'login_url = "https://a.example"'])
def test_neither_region_nor_both_urls_is_a_problem(folder: Folder, keys: str) -> None:
    assert folder.problems(PLAIN + keys) == [
        "proxy.toml: tenants.acme.region: expected the org's region, e.g. eu-central-1, or api_url and login_url"
    ]


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9", "wss://w.example", "http://127.0.0.1:9", "https://w.example"])
def test_the_web_messaging_url_may_be_written_as_a_socket(folder: Folder, url: str) -> None:
    found = folder.tenant(f'webmessaging_url = "{url}"').webmessaging_url
    assert (found.scheme, found.tls) == (("https", True) if url.startswith(("wss:", "https:")) else ("http", False))


@pytest.mark.parametrize("key", ["api_url", "login_url", "cdn_url"])
def test_other_urls_are_http(folder: Folder, key: str) -> None:
    for url in ("wss://w.example", "ws://127.0.0.1", "ftp://w.example"):
        (problem,) = folder.problems(f'{TENANT}{key} = "{url}"')
        assert problem.startswith(f"proxy.toml: tenants.acme.{key}: expected a URL that begins with https://")


@pytest.mark.parametrize("key", ["api_url", "login_url"])
@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost:8090", "[::1]"])
def test_http_is_accepted_on_loopback(folder: Folder, key: str, host: str) -> None:
    found: BaseUrl = getattr(folder.tenant(f'{key} = "http://{host}"'), key)
    assert not found.tls


@pytest.mark.parametrize("key", ["api_url", "login_url"])
@pytest.mark.parametrize("host", ["login.example", "10.0.0.1", "sandbox:8090", "localhost.example", "x.localhost"])
def test_http_to_anywhere_else_is_refused(folder: Folder, key: str, host: str) -> None:
    reason = "over http the secret and the tokens would be sent in the clear"
    assert folder.problems(f'{TENANT}{key} = "http://{host}"') == [
        f"proxy.toml: tenants.acme.{key}: expected https: {reason}"
    ]


@pytest.mark.parametrize("key", ["api_url", "login_url", "webmessaging_url", "cdn_url"])
@pytest.mark.parametrize("url", ["https://a.example?x", "https://a.example#x", "https://", "a.example"])
def test_a_url_is_a_base_url(folder: Folder, key: str, url: str) -> None:
    (problem,) = folder.problems(f'{TENANT}{key} = "{url}"')
    assert problem.startswith(f"proxy.toml: tenants.acme.{key}: expected a ")
    assert problem.endswith(f'(got "{url}")')


@pytest.mark.parametrize("key", ["api_url", "login_url", "webmessaging_url", "cdn_url"])
def test_a_password_in_a_url_is_refused_and_not_shown(folder: Folder, key: str) -> None:
    assert folder.problems(f'{TENANT}{key} = "https://me:hunter2@a.example"') == [
        f"proxy.toml: tenants.acme.{key}: expected no user name or password before the host"
    ]


# --- defaults ---


def test_a_tenants_own_key_wins_over_defaults(folder: Folder) -> None:
    text = f"""
    [defaults]
    region = "us-west-2"
    refresh_ahead = 30
    deny = []
    scope = ["a", "b"]
    token_headers = {{ X-A = "a" }}
    {PLAIN}
    refresh_ahead = 60
    scope = []
    token_headers = {{ X-B = "b" }}
    """
    tenant = folder.load(text).tenants["acme"]
    assert tenant.region == "usw2.pure.cloud"
    assert tenant.refresh_ahead == 60
    assert tenant.deny == ()
    assert tenant.scope == ()
    assert tenant.token_headers == {"X-B": "b"}


def test_any_key_may_stand_in_defaults(folder: Folder) -> None:
    settings = folder.load(f'[defaults]\nregion = "eu-west-1"\n{CLIENT}\n[tenants.a]\n[tenants.b]')
    assert [tenant.client_id for tenant in settings.tenants.values()] == ["id", "id"]


def test_a_region_of_its_own_wins_over_the_urls_of_defaults(folder: Folder) -> None:
    defaults = '[defaults]\napi_url = "https://a.example"\nlogin_url = "https://l.example"\n'
    assert urls(folder, defaults + PLAIN)[:2] == ["https://a.example", "https://l.example"]
    assert urls(folder, defaults + TENANT) == REGION_URLS
    assert urls(folder, f'{defaults}region = "us-east-1"\n{TENANT}cdn_url = "https://c.example"') == [
        *REGION_URLS[:3],
        "https://c.example",
    ]


def test_the_urls_of_defaults_win_over_the_region_of_defaults(folder: Folder) -> None:
    text = f'[defaults]\nregion = "eu-central-1"\nlogin_url = "https://l.example"\n{PLAIN}'
    assert urls(folder, text) == [REGION_URLS[0], "https://l.example", *REGION_URLS[2:]]


def test_a_problem_in_defaults_is_told_once(folder: Folder) -> None:
    text = f'[defaults]\nregion = "nowhere"\n{CLIENT}[tenants.a]\n[tenants.b]'
    (problem,) = folder.problems(text)
    assert problem.startswith("proxy.toml: defaults.region: ")


def test_defaults_of_another_shape_are_one_problem(folder: Folder) -> None:
    assert folder.problems("defaults = []\n[tenants.a]") == ["proxy.toml: defaults: expected a table (got a list)"]


# --- the token request ---


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        ('["messaging:write", "a"]', ("messaging:write", "a")),
        ('"messaging:write"', ("messaging:write",)),
        ('"a b"', ("a", "b")),
        ("[]", ()),
    ],
)
def test_a_scope_is_a_list_or_a_string(folder: Folder, value: str, scope: tuple[str, ...]) -> None:
    assert folder.tenant(f"scope = {value}").scope == scope


@pytest.mark.parametrize("token", ["", "a b", 'a"', "a\\", "ä", "a\t"])
def test_a_scope_is_made_of_scope_tokens(folder: Folder, token: str) -> None:
    escaped = token.replace("\\", "\\\\").replace('"', '\\"')
    (problem,) = folder.problems(f'{TENANT}scope = ["ok", "{escaped}"]')
    assert problem.startswith('proxy.toml: tenants.acme.scope[1]: expected a scope without space, " and \\')


@pytest.mark.parametrize(("value", "where"), [('"a,b"', 0), ('"a, b"', 0), ('["a", "b,c"]', 1)])
def test_scopes_are_not_separated_by_commas(folder: Folder, value: str, where: int) -> None:
    (problem,) = folder.problems(f"{TENANT}scope = {value}")
    expected = "expected scopes in a list or with a space between them, no comma (got "
    assert problem.startswith(f"proxy.toml: tenants.acme.scope[{where}]: {expected}")


@pytest.mark.parametrize(("value", "got"), [("5", "a number"), ("{}", "a table")])
def test_a_scope_of_another_shape_is_refused(folder: Folder, value: str, got: str) -> None:
    expected = "a list of scopes, or one string with a space between them"
    assert folder.problems(f"{TENANT}scope = {value}") == [
        f"proxy.toml: tenants.acme.scope: expected {expected} (got {got})"
    ]


def test_a_grant_is_one_of_these(folder: Folder) -> None:
    assert folder.tenant('grant = "client_credentials"').grant == "client_credentials"
    assert folder.problems(f'{TENANT}grant = "password"') == [
        (
            'proxy.toml: tenants.acme.grant: expected "client_credentials", "refresh_token", "saml2_bearer" or '
            '"jwt_bearer" (got "password")'
        )
    ]


@pytest.mark.parametrize("key", ["client_id", "org_id", "resource_server"])
@pytest.mark.parametrize("value", ["", "ä", "a\\nb", "a\\u007f"])
def test_an_id_is_printable_ascii(folder: Folder, key: str, value: str) -> None:
    tenant = '[tenants.acme]\nregion = "eu-central-1"\nclient_secret = "x"\n'
    tenant += "" if key == "client_id" else 'client_id = "x"\n'
    assert getattr(folder.load(f'{tenant}{key} = "a-1"').tenants["acme"], key) == "a-1"
    (problem,) = folder.problems(f'{tenant}{key} = "{value}"')
    assert problem.startswith(f"proxy.toml: tenants.acme.{key}: expected ")


def test_a_token_parameter_is_a_string_or_several(folder: Folder) -> None:
    tenant = folder.tenant('token_parameters = { audience = "x", resource = ["a", "b"], "ö" = "" }')
    assert tenant.token_parameters == {"audience": ("x",), "resource": ("a", "b"), "ö": ("",)}


@pytest.mark.parametrize(
    "name",
    [
        "grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "assertion",
        "refresh_token", "",
    ],
)  # fmt: skip
def test_a_token_parameter_is_none_of_the_proxys_own(folder: Folder, name: str) -> None:
    (problem,) = folder.problems(f'{TENANT}token_parameters = {{ "{name}" = "x" }}')
    assert problem.endswith("expected another parameter: this one is the proxy's to send")
    assert problem.startswith("proxy.toml: tenants.acme.token_parameters.")


@pytest.mark.parametrize(
    ("value", "where", "message"),
    [
        ('"x"', "", "expected a table (got a string)"),
        ("{ a = 1 }", ".a", "expected a string, or a list of strings (got a number)"),
        ("{ a = {} }", ".a", "expected a string, or a list of strings (got a table)"),
        ('{ a = ["x", 1] }', ".a[1]", "expected a string (got a number)"),
    ],
)
def test_token_parameters_of_another_shape_are_refused(folder: Folder, value: str, where: str, message: str) -> None:
    assert folder.problems(f"{TENANT}token_parameters = {value}") == [
        f"proxy.toml: tenants.acme.token_parameters{where}: {message}"
    ]


def test_a_token_header_is_a_field(folder: Folder) -> None:
    tenant = folder.tenant('token_headers = { resource_server = "partner", X-Key = "a b\\tc" }')
    assert tenant.token_headers == {"resource_server": "partner", "X-Key": "a b\tc"}


@pytest.mark.parametrize(
    "name",
    ["Authorization", "authorization", "Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection",
     "Accept", "Accept-Encoding", "Content_Type", "TE", "Upgrade", "Proxy-Authorization", "Expect"],
)  # fmt: skip
def test_a_token_header_is_none_of_the_proxys_own(folder: Folder, name: str) -> None:
    assert folder.problems(f'{TENANT}token_headers = {{ {name} = "x" }}') == [
        (
            f"proxy.toml: tenants.acme.token_headers.{name}: expected another field than {name}, "
            "which is the proxy's to decide"
        )
    ]


@pytest.mark.parametrize("value", ["", " a", "a ", "a\\nb", "a\\rb", "a\\u0000", "ä"])
def test_a_token_header_has_a_field_value(folder: Folder, value: str) -> None:
    (problem,) = folder.problems(f'{TENANT}token_headers = {{ X-A = "{value}" }}')
    assert problem.startswith("proxy.toml: tenants.acme.token_headers.X-A: expected printable ASCII")


def test_a_token_header_has_a_field_name(folder: Folder) -> None:
    (problem,) = folder.problems(f'{TENANT}token_headers = {{ "X A" = "x" }}')
    assert problem.endswith('expected a field name (RFC 9110 5.1) (got "X A")')


def test_a_token_header_is_given_once(folder: Folder) -> None:
    for other in ("x-a", "X_A"):
        assert folder.problems(f'{TENANT}token_headers = {{ X-A = "1", {other} = "2" }}') == [
            "proxy.toml: tenants.acme.token_headers: expected each field once, in upper or lower case, with - or _"
        ]


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ('scope = "a"', 'token_parameters = { scope = "b" }', "token_parameters: expected no scope"),
        (
            'resource_server = "a"',
            'token_parameters = { resourceServer = "b" }',
            "token_parameters: expected no resourceServer",
        ),
        (
            'resource_server = "a"',
            'token_headers = { Resource_Server = "b" }',
            "token_headers: expected no resource_server",
        ),
        (
            'resource_server = "a"',
            'token_headers = { Resource-Server = "b" }',
            "token_headers: expected no resource_server",
        ),
    ],
)
def test_a_parameter_that_has_a_key_is_not_given_again(folder: Folder, first: str, second: str, problem: str) -> None:
    folder.tenant(first)
    folder.tenant(second)
    (found,) = folder.problems(f"{TENANT}{first}\n{second}")
    assert found.startswith(f"proxy.toml: tenants.acme.{problem} beside the key ")


# --- how the token is kept and used ---


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", '"60"', "true", "86401"])
def test_refresh_ahead_is_a_time(folder: Folder, value: str) -> None:
    assert folder.tenant("refresh_ahead = 0.5").refresh_ahead == 0.5
    (problem,) = folder.problems(f"{TENANT}refresh_ahead = {value}")
    assert problem.startswith("proxy.toml: tenants.acme.refresh_ahead: expected ")


def test_keep_warm_is_true_or_false(folder: Folder) -> None:
    assert folder.tenant("keep_warm = false").keep_warm is False
    (problem,) = folder.problems(f"{TENANT}keep_warm = 0")
    assert problem == "proxy.toml: tenants.acme.keep_warm: expected true or false (got a number)"


def test_authorization_is_replace_or_fill(folder: Folder) -> None:
    assert folder.tenant('authorization = "replace"').authorization == "replace"
    assert folder.tenant('authorization = "fill"').authorization == "fill"
    assert folder.problems(f'{TENANT}authorization = "keep"') == [
        'proxy.toml: tenants.acme.authorization: expected "replace" or "fill" (got "keep")'
    ]


@pytest.mark.parametrize("key", ["allow", "deny"])
def test_a_rule_is_a_method_and_a_path(folder: Folder, key: str) -> None:
    rules = ("GET /api/v2/**", "* /api/v2/users/*", "DELETE /")
    assert getattr(folder.tenant(f"{key} = {list(rules)}".replace("'", '"')), key) == rules


@pytest.mark.parametrize("key", ["allow", "deny"])
@pytest.mark.parametrize("rule", ["", "GET", "/api", "get /api", "GET api", "GET  /api", "GET /a b", "GET /api\\n"])
def test_any_other_rule_is_refused(folder: Folder, key: str, rule: str) -> None:
    (problem,) = folder.problems(f'{TENANT}{key} = ["{rule}"]')
    assert problem.startswith(f"proxy.toml: tenants.acme.{key}[0]: expected a method or * and a path")


@pytest.mark.parametrize("key", ["allow", "deny"])
def test_a_rule_that_could_match_nothing_is_refused(folder: Folder, key: str) -> None:
    (problem,) = folder.problems(f'{TENANT}{key} = ["GET /api/v2/users?state=active"]')
    message = 'expected a path without a query: rules look at the path alone (got "GET /api/v2/users?state=active")'
    assert problem == f"proxy.toml: tenants.acme.{key}[0]: {message}"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("client_id", "expected the id of the org's OAuth client"),
        ("client_secret", 'expected the OAuth client\'s secret, e.g. { env = "ACME_SECRET" }'),
    ],
)
def test_id_and_secret_are_required(folder: Folder, key: str, message: str) -> None:
    text = "\n".join(line for line in TENANT.splitlines() if not line.startswith(key))
    assert folder.problems(text) == [f"proxy.toml: tenants.acme.{key}: {message}"]

"""The configuration: what the file may say (pydantic models) and what the program gets (``Settings``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.core.detour import Detours, parse_direct
from proxy.core.grants import AssertionFile, SigningKey
from proxy.core.secret import Secret
from proxy.core.urls import BaseUrl, bracketed, is_loopback
from proxy.settings.callers import CallerKey
from proxy.settings.keys import Algorithm, AssertionValue, PrivateKeyValue
from proxy.settings.stores import EncryptionKey, StorePlace, StoreUrl
from proxy.settings.values import (
    BufferSize,
    Bytes,
    CaFile,
    ClientSecret,
    Count,
    FieldCount,
    FieldName,
    FieldValue,
    File,
    Flag,
    Headers,
    HeaderSize,
    Host,
    HostValue,
    KeyFile,
    Mode,
    Origin,
    ParameterName,
    ParameterValues,
    PoolSize,
    Port,
    Printable,
    ProxyValue,
    RedirectUri,
    Region,
    Rule,
    Scope,
    Seconds,
    SecureUrl,
    Share,
    SocketPath,
    SocketUrl,
    Stamp,
    Text,
    Url,
    User,
    Wait,
)

FallbackGrant = Literal["client_credentials", "saml2_bearer", "jwt_bearer"]
Grant = Literal["client_credentials", "refresh_token", "saml2_bearer", "jwt_bearer"]
ClientAuth = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]


class Section(BaseModel):
    """A table of the file: every key has a description, and no other key passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ListenSettings(Section):
    """Where clients connect."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(default=8080, description="Port to listen on; 0 takes any free one and prints it.")
    tls_certificate: File | None = Field(
        default=None,
        description="File of PEM certificates, the proxy's own first: clients connect with TLS. Read again when it "
        "changes.",
    )
    tls_key: KeyFile | None = Field(
        default=None, description="File of the certificate's private key, PEM, not encrypted."
    )
    client_ca: CaFile | None = Field(
        default=None,
        description="File of PEM certificates: over TCP, only clients that one of them vouches for may connect.",
    )
    unix_socket: SocketPath | None = Field(
        default=None,
        description="Path of a Unix socket to listen on. The port is open beside it only where host or port is given.",
    )
    unix_socket_mode: Mode = Field(
        default=0o600,
        description="Mode of the socket's file: who may write may connect. \"0600\" is the proxy's own user alone.",
        json_schema_extra={"default": "0600"},
    )
    unix_socket_users: tuple[User, ...] = Field(
        default=(),
        description="Names or numbers of the only users whose processes may connect to the Unix socket, whatever its "
        "mode lets; the kernel tells who they are (Linux).",
    )

    @property
    def tcp(self) -> bool:
        """Whether the port is opened."""
        return self.unix_socket is None or not self.model_fields_set.isdisjoint(("host", "port"))

    def urls(self, port: int) -> tuple[str, ...]:
        """Where clients connect, ``unix:`` before the port.

        :param port: that was opened
        """
        scheme = "http" if self.tls_certificate is None else "https"
        unix = () if self.unix_socket is None else (f"unix:{self.unix_socket}",)
        return unix + ((f"{scheme}://{bracketed(self.host)}:{port}",) if self.tcp else ())


class AdminSettings(Section):
    """Health, readiness, metrics and the status page; never on the port that clients use."""

    host: Host = Field(
        default="127.0.0.1",
        description="Address of the admin port. It has no password: whoever reaches it sees every tenant's state, has "
        "tokens refreshed and the configuration reloaded. Beyond loopback, let in probes and Prometheus alone.",
    )
    port: Port = Field(default=8081, description="Admin port; 0 takes any free one and prints it.")


class AccessSettings(Section):
    """Who may use the proxy."""

    allowed_hosts: tuple[HostValue, ...] = Field(
        default=(),
        description="Host names, without port, that clients reach the proxy by, beside localhost, "
        "*.localhost, 127.0.0.1, [::1] and listen.host.",
    )
    allowed_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Origins (scheme://host[:port]) of the browser pages that may use the proxy.",
    )
    caller_keys: tuple[CallerKey, ...] = Field(
        default=(),
        description="Secrets of at least 16 characters. If there are any, every caller shows one: in the "
        'field X-Proxy-Key, or in the path /k/<key>/t/<tenant>/…. { key = …, name = "web", tenants = ["acme"] } '
        "names the caller in metrics and logs, and keeps it to these tenants.",
    )
    open: Flag = Field(
        default=False,
        description="true: anybody who reaches the port acts as the tenants. Say so if the network in front "
        "is trusted, e.g. inside a pod; needed to listen beyond loopback without caller_keys. With it, admin.host "
        "elsewhere is not warned of.",
    )


class StoreSettings(Section):
    """Where tokens are kept, so that they outlive the process and are shared by several."""

    url: StoreUrl | None = Field(
        default=None,
        description='"sqlite:FILE", relative to $STATE_DIRECTORY or else to this file\'s folder; "memory:", which ends '
        'with the process; or "redis://HOST:PORT/DATABASE", also rediss:// and unix://, shared by replicas. Default: '
        '"sqlite:tokens.db".',
    )
    encryption_keys: tuple[EncryptionKey, ...] = Field(
        default=(),
        description="Secrets of at least 32 characters, newest first. If there are any, nothing is written to the "
        "store unencrypted; the first encrypts, all decrypt.",
    )


class LimitsSettings(Section):
    """How long and how much."""

    request_timeout: Seconds = Field(
        default=15.0,
        description="s from a request's last byte to its answer's first, waits and replay included.",
    )
    connect_timeout: Seconds = Field(default=5.0, description="s to connect to an upstream, TLS included.")
    idle_timeout: Seconds = Field(default=75.0, description="s for which an idle connection is kept open.")
    tunnel_idle_timeout: Seconds = Field(
        default=3600.0, description="s of silence after which a WebSocket tunnel is closed."
    )
    retry_after_max: Wait = Field(
        default=0.0,
        description="s that a request may wait, Retry-After in all, to be sent again when the API answers 429; within "
        "request_timeout. 0: 429 is passed on.",
    )
    drain_timeout: Seconds = Field(
        default=20.0,
        description="s at the end for requests in flight and WebSockets; what is left is then broken off.",
    )
    replay_buffer: BufferSize = Field(
        default=524_288,
        description="Bytes of a request's body kept for a replay; a longer one is sent once it is wanted.",
    )
    max_header_bytes: HeaderSize = Field(
        default=65_536, description="Bytes of a request line and header section; 1024 to 1048576."
    )
    max_request_line_bytes: HeaderSize = Field(default=16_384, description="Bytes of a request line; 1024 to 1048576.")
    max_header_count: FieldCount = Field(default=200, description="Fields of a request; 16 to 1000.")
    max_body_bytes: Bytes | None = Field(default=None, description="Bytes of a request's body; without it, any number.")
    body_timeout: Seconds = Field(
        default=60.0,
        description="s for which a client may keep the proxy waiting for a request's body, and one more for each 1024 "
        "bytes of it.",
    )
    max_connections: Count = Field(
        default=10_000,
        description="Connections of clients. One more closes those that have been idle longest; where none is idle, it "
        "is answered 503. Never more than the process may have files open for.",
    )
    max_requests_per_connection: Count = Field(
        default=10_000, description="Requests after which a client's connection is closed, with an answer."
    )
    max_pipelined_requests: Count = Field(
        default=128,
        description="Requests sent without waiting for answers after which a client's connection is closed.",
    )
    max_requests_per_tenant: Count = Field(
        default=1000, description="Requests of one tenant under way at the same time; one more is answered 503 at once."
    )
    max_requests_per_caller: Count = Field(
        default=500,
        description="Requests of one caller, by the name of its key, under way at the same time; one more is answered "
        "503 at once.",
    )
    max_websockets_per_caller: Count = Field(
        default=5000,
        description="WebSockets of one caller, by the name of its key, open at the same time; one more is answered 503 "
        "at once.",
    )


class UpstreamSettings(Section):
    """How the proxy reaches Genesys Cloud; certificates are always verified."""

    ca_file: CaFile | None = Field(
        default=None,
        description="File of PEM certificates to trust beside the system's; relative to this file's folder.",
    )
    proxy: ProxyValue | None = Field(
        default=None,
        description="URL of a forward proxy, http://[user:password@]host:port, for API and login; a secret like any "
        'other. Default: what HTTPS_PROXY says; "" for none. This machine itself is always reached directly.',
    )
    no_proxy: tuple[Text, ...] | None = Field(
        default=None,
        description="Hosts reached without the forward proxy: names with all below them, addresses, networks. "
        "Default: what NO_PROXY says.",
    )

    @property
    def detours(self) -> Detours:
        """The way to each host."""
        entries = " ".join(self.no_proxy or ())
        return Detours(self.proxy, parse_direct(entries))


class RoutingSettings(Section):
    """Which tenant a request belongs to: path /t/<tenant>/, header, host <tenant>.localhost, the default."""

    default_tenant: Text | None = Field(
        default=None, description="Tenant of requests that name none; with one tenant, that one."
    )
    tenant_header: FieldName = Field(
        default="X-Genesys-Tenant", description="Field that names a request's tenant; it never goes upstream."
    )


class LogSettings(Section):
    """What the log tells of single requests."""

    access: Literal["failed", "all", "none"] = Field(
        default="failed",
        description='Which requests have a line in the log. "failed": those that were answered with 401, 429 or 5xx, '
        "were replayed, or whose client left before the answer.",
    )
    access_share: Share = Field(
        default=1.0,
        description='With access = "all", the share of the requests that did not fail that have a line, e.g. 0.01.',
    )


class TenantTable(Section):
    """One Genesys Cloud org and the OAuth client to use there, as the file tells it."""

    region: Region | None = Field(
        default=None,
        description="Region of the org, an alias or a domain. It gives the four URLs below; without it api_url and "
        "login_url are needed.",
    )
    api_url: SecureUrl | None = Field(default=None, description="URL of the API; default: https://api.<domain>.")
    login_url: SecureUrl | None = Field(
        default=None, description="URL of the login host, for tokens; default: https://login.<domain>."
    )
    webmessaging_url: SocketUrl | None = Field(
        default=None,
        description="URL of the web messaging socket; default: https://webmessaging.<domain>, or api_url.",
    )
    cdn_url: Url | None = Field(
        default=None,
        description="URL of the deployment files; default: https://api-cdn.<domain>, or api_url.",
    )
    grant: Grant = Field(default="client_credentials", description="OAuth grant that gets the token.")
    refresh_token: ClientSecret | None = Field(
        default=None,
        description="The first refresh token, given like a secret, for the grant refresh_token; those that come after "
        'it are kept in the store. Without one, "login" gets it.',
    )
    fallback_grant: FallbackGrant | None = Field(
        default=None, description="Grant that gets the token once the refresh token is refused (invalid_grant)."
    )
    redirect_uri: RedirectUri = Field(
        default="http://localhost:8085/oauth/callback",
        description='Where "login" waits for the browser; the OAuth client must have it exactly so. Port 0: any free '
        "one, for servers that take any.",
    )
    client_id: Printable | None = Field(default=None, description="Id of the OAuth client; required.")
    client_auth: ClientAuth = Field(
        default="client_secret_basic", description="How the client proves at the token endpoint who it is."
    )
    client_secret: ClientSecret | None = Field(
        default=None,
        description='Secret of the OAuth client: { env = "NAME" }, { file = "path" } or the text; required for '
        "client_secret_basic and client_secret_post.",
    )
    private_key: PrivateKeyValue | None = Field(
        default=None,
        description="Private key in PEM, given like a secret, that signs what private_key_jwt and jwt_bearer show.",
    )
    key_id: Printable | None = Field(default=None, description="kid in what private_key signs.")
    signing_algorithm: Algorithm | None = Field(
        default=None,
        description="alg of what private_key signs; default: RS256 for an RSA key, else the only one of its curve.",
    )
    assertion: AssertionValue | None = Field(
        default=None,
        description="Assertion for the grants saml2_bearer and jwt_bearer, given like a secret and sent as it is; "
        "a file is read for every token request.",
    )
    subject: Printable | None = Field(
        default=None, description="sub of the assertion that private_key signs for jwt_bearer: whom the token is for."
    )
    audience: Printable | None = Field(
        default=None, description="aud of what private_key signs; default: the URL of the token endpoint."
    )
    scope: Scope = Field(default=(), description="Scopes to ask for; none: all that the client has.")
    resource_server: FieldValue | None = Field(
        default=None,
        description="Sent with the token request as parameter resourceServer and as field resource_server.",
    )
    token_parameters: dict[ParameterName, ParameterValues] = Field(
        default_factory=dict,
        repr=False,
        description="Further parameters of the token request; a list is sent as the parameter repeated.",
        json_schema_extra={"default": {}},
    )
    token_headers: Headers = Field(
        default_factory=dict,
        repr=False,
        description="Further fields of the token request.",
        json_schema_extra={"default": {}},
    )
    org_id: Printable | None = Field(
        default=None,
        description="Id of the org that the token must belong to; no token is used before the API has confirmed it.",
    )
    refresh_ahead: Seconds = Field(
        default=60.0,
        description="s before expiry to get the next token; never more than a fifth of the lifetime.",
    )
    token_pool_size: PoolSize = Field(
        default=1,
        description="Tokens kept for this tenant, 1 to 50, each with a rate limit of its own; with the grant "
        "client_credentials.",
    )
    keep_warm: Flag = Field(default=True, description="false: refresh ahead of expiry only while the tenant is in use.")
    authorization: Literal["replace", "fill"] = Field(
        default="replace",
        description='What becomes of a caller\'s own bearer token: "replace" it, or "fill" in ours only '
        "where there is none.",
    )
    guest_refresh: Flag = Field(
        default=False,
        description="true: keep web messaging guests' JWTs fresh, in memory; a leaked one then lives as long as its "
        "refresh token.",
    )
    allow: tuple[Rule, ...] = Field(
        default=(),
        description='If any, only requests that match one pass, e.g. "GET /api/v2/**": * is one path '
        "segment, ** any number. Logging in (/oauth/token, /oauth/authorize, /logout) needs no rule; the web messaging "
        'socket needs "GET /v1", deployment files "GET /webdeployments/**".',
    )
    deny: tuple[Rule, ...] = Field(
        default=("DELETE /api/v2/tokens/me",), description="Requests that never pass, whatever allow says."
    )
    policy: Literal["enforce", "observe"] = Field(
        default="enforce",
        description='"observe": what allow and deny would refuse passes, is counted, and logged once for each kind of '
        "request.",
    )


class ConfigurationFile(Section):
    """The configuration of genesys-auth-proxy (TOML)."""

    include: tuple[Text, ...] = Field(
        default=(),
        description="Further files with [tenants.NAME] sections, as patterns relative to this file's folder, "
        'e.g. ["tenants.d/*.toml"].',
    )
    listen: ListenSettings = Field(default_factory=ListenSettings, description="Where clients connect.")
    admin: AdminSettings = Field(
        default_factory=AdminSettings, description="Where health, metrics and the status page are."
    )
    access: AccessSettings = Field(default_factory=AccessSettings, description="Who may use the proxy.")
    store: StoreSettings = Field(default_factory=StoreSettings, description="Where tokens are kept.")
    limits: LimitsSettings = Field(default_factory=LimitsSettings, description="How long and how much.")
    upstream: UpstreamSettings = Field(
        default_factory=UpstreamSettings, description="How the proxy reaches Genesys Cloud."
    )
    routing: RoutingSettings = Field(default_factory=RoutingSettings, description="Which tenant a request belongs to.")
    log: LogSettings = Field(default_factory=LogSettings, description="What the log tells of single requests.")
    defaults: TenantTable = Field(default_factory=TenantTable, description="Any key of a tenant; a tenant's own wins.")
    tenants: dict[str, TenantTable] = Field(
        default_factory=dict, description="The tenants by name, a section [tenants.NAME] each; at least one."
    )


class IncludedFile(Section):
    """A file that another one includes."""

    tenants: dict[str, TenantTable] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """One tenant with everything resolved: its own keys, those of ``[defaults]``, and the region's URLs."""

    name: str
    region: str | None
    """The region's domain; None where the URLs are given instead."""
    api_url: BaseUrl
    login_url: BaseUrl
    webmessaging_url: BaseUrl
    cdn_url: BaseUrl
    grant: Grant
    refresh_token: Secret | None
    fallback_grant: FallbackGrant | None
    redirect_uri: str
    client_id: str
    client_auth: ClientAuth
    client_secret: Secret | None
    """None where ``client_auth`` shows none; likewise the next four where nothing needs them."""
    signing_key: SigningKey | None
    assertion: Secret | AssertionFile | None
    subject: str | None
    audience: str | None
    scope: tuple[str, ...]
    resource_server: str | None
    token_parameters: Mapping[str, tuple[str, ...]] = field(repr=False)
    token_headers: Mapping[str, str] = field(repr=False)
    org_id: str | None
    refresh_ahead: float
    token_pool_size: int
    keep_warm: bool
    authorization: Literal["replace", "fill"]
    guest_refresh: bool
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    policy: Literal["enforce", "observe"]


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, checked; two that are equal make the proxy behave the same."""

    listen: ListenSettings
    admin: AdminSettings
    access: AccessSettings
    store: StorePlace
    encryption_keys: tuple[Secret, ...]
    """Newest first."""
    limits: LimitsSettings
    upstream: UpstreamSettings
    routing: RoutingSettings
    """``default_tenant`` is filled in where there is but one tenant."""
    log: LogSettings
    tenants: Mapping[str, TenantSettings]
    """By name, in the order of the files."""
    sources: Mapping[Path, Stamp] = field(compare=False)
    """Every file that was read, absolute, as it was before: the configuration, what it includes, secrets and
    certificates."""
    file: Path = field(compare=False)
    """The configuration, as it was named; messages begin with it."""
    secret_files: tuple[Path, ...]
    """Every file that a secret stands in, absolute."""
    included: tuple[str, ...] = ()
    """The patterns of ``include``, absolute; ``load.matching`` finds their files."""

    @property
    def rehearses(self) -> bool:
        """Every login is on this machine and callers show no key: a sandbox, it seems, whose secrets open nothing."""
        return not self.access.caller_keys and all(is_loopback(each.login_url.host) for each in self.tenants.values())

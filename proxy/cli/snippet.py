"""``snippet``: an SDK's gateway settings for this proxy, ready to paste.

The names were read in the SDKs themselves: Python 269.0.0, JavaScript 262.0.0, .NET 270.0.0, Go 188.0.0, the CLI
166.0.0, the Terraform provider 1.84.1, and the templates that Java's is generated from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import config_option, tenant_names
from proxy.errors import ConfigurationError

if TYPE_CHECKING:
    from proxy.settings import Settings, TenantSettings

SDKS = ("python", "javascript", "java", "dotnet", "go", "cli", "terraform")


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where an SDK finds the proxy: the values of its gateway settings."""

    tenant: str
    protocol: str
    host: str
    port: int
    path: str
    """For login and API alike, without a slash at either end."""
    region: str | None
    """Alias of the org's region, where it has one."""


@click.command()
@click.argument("tenant", required=False, shell_complete=tenant_names)
@click.option("--sdk", type=click.Choice(SDKS), metavar="SDK", required=True, help=f"One of {', '.join(SDKS)}.")
@click.option("--url", metavar="URL", help="Where clients reach the proxy; default: listen.host and listen.port.")
@config_option
def snippet(tenant: str | None, sdk: str, url: str | None, config: Path) -> None:
    """Print an SDK's settings for this proxy.

    TENANT's calls then go through the proxy, which adds its token. Where there is but one, it need not be named.
    """
    from proxy.settings import load

    settings = load(config)
    found = _found(settings, tenant)
    protocol, host, port = _listen(settings, config) if url is None else _parsed(url)
    path = f"t/{found.name}"
    if settings.access.caller_keys:
        path = f"k/CALLER-KEY/{path}"
        click.echo("Put one of access.caller_keys in place of CALLER-KEY; where it stands, it is a secret.", err=True)
    click.echo(_WRITERS[sdk](Gateway(found.name, protocol, host, port, path, _alias(found))))


def _found(settings: Settings, tenant: str | None) -> TenantSettings:
    from proxy.cli.options import tenants_named

    found = tenants_named(settings, () if tenant is None else (tenant,))
    if len(found) > 1:
        raise click.BadParameter(f"say which: {', '.join(settings.tenants)}", param_hint="TENANT")
    return found[0]


def _listen(settings: Settings, config: Path) -> tuple[str, str, int]:
    from proxy.core.urls import bracketed

    host, port = settings.listen.host, settings.listen.port
    if not settings.listen.tcp:
        problem = "no SDK connects to a Unix socket; give host or port as well, or --url"
        raise ConfigurationError([f"{config}: listen.unix_socket: {problem}"])
    if port == 0:
        raise ConfigurationError([f"{config}: listen.port: expected a fixed port for a snippet (got 0), or --url"])
    protocol = "http" if settings.listen.tls_certificate is None else "https"
    return protocol, bracketed({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)), port


def _parsed(url: str) -> tuple[str, str, int]:
    from proxy.core.urls import bracketed, parse_base_url

    try:
        base = parse_base_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    if base.path:
        raise click.BadParameter("expected a URL without a path", param_hint="--url")
    return base.scheme, bracketed(base.host), base.port


def _alias(tenant: TenantSettings) -> str | None:
    from proxy.core.regions import REGIONS

    return next((alias for alias, domain in REGIONS.items() if domain == tenant.region), None)


def _python(gateway: Gateway) -> str:
    return f"""\
# pip install PureCloudPlatformClientV2
import PureCloudPlatformClientV2

gateway = PureCloudPlatformClientV2.GatewayConfiguration()
gateway.protocol = "{gateway.protocol}"
gateway.host = "{gateway.host}"
gateway.port = {gateway.port}
gateway.path_params_login = "{gateway.path}"
gateway.path_params_api = "{gateway.path}"
PureCloudPlatformClientV2.configuration.gateway_configuration = gateway

# No login, and no access token: the proxy adds the token of {gateway.tenant}.
organization = PureCloudPlatformClientV2.OrganizationApi().get_organizations_me()
print(organization.name)"""


def _javascript(gateway: Gateway) -> str:
    return f"""\
// npm install purecloud-platform-client-v2
const platformClient = require("purecloud-platform-client-v2");

platformClient.ApiClient.instance.setGateway({{
  protocol: "{gateway.protocol}",
  host: "{gateway.host}",
  port: {gateway.port},
  path_params_login: "{gateway.path}",
  path_params_api: "{gateway.path}",
}});

// No login, and no access token: the proxy adds the token of {gateway.tenant}.
new platformClient.OrganizationApi()
  .getOrganizationsMe()
  .then((organization) => console.log(organization.name))
  .catch((error) => console.error(error.message));"""


def _java(gateway: Gateway) -> str:
    settings = f'"{gateway.host}", "{gateway.protocol}", {gateway.port}, "{gateway.path}", "{gateway.path}"'
    return f"""\
// Maven: com.mypurecloud:platform-client-v2, a version of 2025 or later
import com.mypurecloud.sdk.v2.ApiClient;
import com.mypurecloud.sdk.v2.Configuration;

ApiClient apiClient = ApiClient.Builder.standard().build();
Configuration.setDefaultApiClient(apiClient);
// In this order: setDefaultApiClient takes the gateway from ~/.genesyscloudjava/config if there is such a file.
apiClient.setGateway({settings});

// No login, and no access token: the proxy adds the token of {gateway.tenant}."""


def _dotnet(gateway: Gateway) -> str:
    settings = f'"{gateway.host}", "{gateway.protocol}", {gateway.port}, "{gateway.path}", "{gateway.path}"'
    return f"""\
// dotnet add package PureCloudPlatform.Client.V2
// If there is a file ~/.genesysclouddotnet/config, its [gateway] wins, and no [gateway] means none: set it there.
using PureCloudPlatform.Client.V2.Client;

Configuration.Default.ApiClient.SetGateway({settings});

// No login, and no access token: the proxy adds the token of {gateway.tenant}."""


def _go(gateway: Gateway) -> str:
    # SetGateway reads gateway.Auth, which is nil here, and panics; the field itself is what the requests read.
    return f"""\
// The version in the import path (v188) is the one of your go.mod.
import "github.com/mypurecloud/platform-client-sdk-go/v188/platformclientv2"

config := platformclientv2.GetDefaultConfiguration()
// Not SetGateway, which panics without a user name.
config.GateWayConfiguration = &platformclientv2.GateWayConfiguration{{
	Protocol: "{gateway.protocol}",
	Host:     "{gateway.host}",
	Port:     "{gateway.port}",
	PathParams: []*platformclientv2.PathParams{{
		{{PathName: "login", PathValue: "{gateway.path}"}},
		{{PathName: "api", PathValue: "{gateway.path}"}},
	}},
}}

// No login, and no access token: the proxy adds the token of {gateway.tenant}."""


def _cli(gateway: Gateway) -> str:
    region = gateway.region or "REGION"
    hint = "" if gateway.region else "# In place of REGION, any region of Genesys Cloud: it is not asked.\n"
    return f"""\
# The gateway belongs to a profile; this makes one (once). The proxy asks for no client: any id and secret will do.
{hint}mkdir -p ~/.gc
cat >> ~/.gc/config.toml <<'END'

[{gateway.tenant}]
environment = "{region}"
client_credentials = "proxy"
client_secret = "proxy"
END
cat > gateway.json <<'END'
{{
  "protocol": "{gateway.protocol}",
  "host": "{gateway.host}",
  "port": "{gateway.port}",
  "pathParams": {{ "login": "{gateway.path}", "api": "{gateway.path}" }}
}}
END
gc gateway --file=gateway.json -p={gateway.tenant}
gc organizations me get -p={gateway.tenant}"""


def _terraform(gateway: Gateway) -> str:
    region = f'"{gateway.region}"' if gateway.region else '"us-east-1" # any: it is not asked'
    return f"""\
provider "genesyscloud" {{
  # The proxy asks for no client: any id and secret will do.
  oauthclient_id     = "proxy"
  oauthclient_secret = "proxy"
  aws_region         = {region}

  gateway {{
    protocol = "{gateway.protocol}"
    host     = "{gateway.host}"
    port     = "{gateway.port}"
    path_params {{
      path_name  = "login"
      path_value = "{gateway.path}"
    }}
    path_params {{
      path_name  = "api"
      path_value = "{gateway.path}"
    }}
  }}
}}"""


_WRITERS: dict[str, Callable[[Gateway], str]] = {
    "python": _python,
    "javascript": _javascript,
    "java": _java,
    "dotnet": _dotnet,
    "go": _go,
    "cli": _cli,
    "terraform": _terraform,
}

"""The official Python SDK, driven over standard input: a JSON object a line in, one a line out.

``{"do": name, ...}`` calls the function of that name with the other members. The answer is ``{"value": ...}``, or
``{"error": {"status": ..., "body": ...}}`` where the SDK raised what its callers meet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import PureCloudPlatformClientV2 as sdk  # noqa: N813 - its own name is 25 letters long
from PureCloudPlatformClientV2.rest import ApiException

OAUTH = ["PureCloud OAuth"]


class Program:
    """What a program that uses the SDK does; one API client after the other."""

    def __init__(self) -> None:
        self.client = sdk.api_client.ApiClient()

    # --- settings ---

    def gateway(self, **settings: Any) -> None:
        """The gateway in code."""
        sdk.configuration.gateway_configuration = sdk.GatewayConfiguration(**settings)
        self.client = sdk.api_client.ApiClient()

    def host(self, url: str) -> None:
        """The host in code, which login follows."""
        sdk.configuration.gateway_configuration = None
        sdk.configuration.host = url
        self.client = sdk.api_client.ApiClient()

    # --- logins ---

    def client_credentials(self, client_id: str, secret: str) -> str:
        self.client.get_client_credentials_token(client_id, secret)
        return str(self.client.access_token)

    def code(self, client_id: str, secret: str, code: str, redirect_uri: str) -> str:
        self.client.get_code_authorization_token(client_id, secret, code, redirect_uri)
        return str(self.client.access_token)

    def pkce(self, client_id: str, verifier: str, code: str, redirect_uri: str) -> str:
        self.client.get_pkce_token(client_id, verifier, code, redirect_uri)
        return str(self.client.access_token)

    def refresh(self, client_id: str, secret: str, refresh_token: str) -> str:
        self.client.client_id, self.client.client_secret = client_id, secret
        self.client.refresh_code_authorization_token(client_id, secret, refresh_token)
        return str(self.client.access_token)

    # --- the API ---

    def organization(self) -> str:
        return str(sdk.OrganizationApi(self.client).get_organizations_me().name)

    def token(self) -> str:
        return str(sdk.TokensApi(self.client).get_tokens_me().organization.name)

    def row(self, table: str, row: str) -> Any:
        return sdk.ArchitectApi(self.client).get_flows_datatable_row(table, row)

    def echo(self) -> Any:
        return self.client.call_api("/api/v2/echo", "GET", response_type="object", auth_settings=OAUTH)

    def write(self, external_id: str) -> Any:
        """A POST that the SDK has no method for, by the one that all of its methods call."""
        body = {"externalId": external_id}
        contacts = "/api/v2/messaging/contacts"
        return self.client.call_api(contacts, "POST", body=body, response_type="object", auth_settings=OAUTH)["id"]

    def many(self, calls: int) -> list[str]:
        """Calls at once; the names that came back."""
        with ThreadPoolExecutor(calls) as threads:
            return list(threads.map(lambda _: self.organization(), range(calls)))

    # --- guests, whose JWT is a field by default: the SDK's own credential is not sent with their calls ---

    def guest_exchange(self, deployment: str, code: str) -> list[str]:
        request = sdk.WebDeploymentsOAuthExchangeRequest()
        request.deployment_id = deployment
        request.oauth = sdk.WebDeploymentsOAuthRequestParameters()
        request.oauth.code = code
        answer = sdk.WebDeploymentsApi(self.client).post_webdeployments_token_oauthcodegrantjwtexchange(request)
        return [answer.jwt, answer.refresh_token]

    def guest_refresh(self, refresh_token: str) -> str:
        request = sdk.WebDeploymentsRefreshJWTRequest()
        request.refresh_token = refresh_token
        return str(sdk.WebDeploymentsApi(self.client).post_webdeployments_token_refresh(body=request).jwt)

    def guest_messages(self, jwt: str) -> int:
        self.client.set_default_header("Authorization", f"Bearer {jwt}")
        return int(sdk.WebMessagingApi(self.client).get_webmessaging_messages().total)

    def guest_revoke(self, jwt: str) -> None:
        self.client.set_default_header("Authorization", f"Bearer {jwt}")
        sdk.WebDeploymentsApi(self.client).delete_webdeployments_token_revoke()


def answer(action: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": action(**arguments)}
    except ApiException as error:
        return {"error": {"status": error.status, "body": error.body}}
    except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it
        return {"error": {"status": None, "body": f"{type(error).__name__}: {error}"}}


def main() -> None:
    program = Program()
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(answer(getattr(program, arguments.pop("do")), arguments)), flush=True)


main()

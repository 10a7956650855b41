"""What a token endpoint's refusal means for the operator, and what to do about it."""

from __future__ import annotations

import re

from proxy.core.grants import Client

_ADDRESS = re.compile(r"\bip[ ._-]?address|\bip\b.*\ballow|allow.?list|white.?list", re.IGNORECASE)
_RESOURCE = re.compile(r"resource.?server", re.IGNORECASE)


def refusal(client: Client, error: str, status: int, described: str, code: str = "") -> str:
    """What a token endpoint's refusal means and what to do, in one or two sentences.

    :param error: its error code (RFC 6749 5.2)
    :param described: the endpoint's own words, which are looked at and never repeated
    :param code: of an answer in Genesys's error shape, as a gateway gives it
    """
    if _ADDRESS.search(described):
        return (
            f"this machine's IP address is not one that the OAuth client may be used from ({code or error}); add it to "
            "the client's allowed addresses in the org's admin pages."
        )
    if error == "invalid_target" or (client.resource_server is not None and _RESOURCE.search(described)):
        return (
            f"the token endpoint does not know the resource server ({error}); compare resource_server, and resource in "
            "token_parameters, with what the org calls it."
        )
    match error:
        case "invalid_client":
            return _client(client, described)
        case "invalid_grant":
            return _grant(client)
        case "unauthorized_client" | "unsupported_grant_type":
            return (
                f"this OAuth client may not use the grant {client.grant} ({error}); allow it in the org's admin pages."
            )
        case "invalid_scope":
            return "the token endpoint refuses the scope (invalid_scope); compare scope with the client's own."
    if 300 <= status < 400:
        return f"the token endpoint redirects ({status}), and a secret never follows; check region and login_url."
    said = f"status {status} {code}".strip() if error == f"http_{status}" else f"{error}, status {status}"
    check = "region, login_url and client"
    if status == 403:
        check = "region, login_url, client, and whether the org lets this machine's IP address in"
    return f"the token endpoint refused the request ({said}); check {check}."


def _client(client: Client, described: str) -> str:
    if "not found" in described:
        return (
            "the token endpoint does not know this client (invalid_client). The usual cause is the wrong region: an "
            "OAuth client exists in one org of one region. Then client_id."
        )
    proof = {
        "private_key_jwt": "what its private_key signs; compare key_id and audience, and this machine's clock",
        "none": "that it shows no proof; compare client_auth",
    }.get(client.client_auth, "its client_secret")
    if "authentication failed" in described:
        return f"the token endpoint knows this client and refuses {proof} (invalid_client)."
    return (
        f"the token endpoint does not know this client or refuses {proof} (invalid_client). "
        "The usual cause is the wrong region; then client_id."
    )


def _grant(client: Client) -> str:
    match client.grant:
        case "refresh_token":
            return (
                "the refresh token was used before, has expired or was revoked, or is another client's or org's "
                f"(invalid_grant). Get a new one: genesys-auth-proxy login {client.tenant}"
            )
        case "authorization_code":
            return "the login took too long, or its redirect_uri is not the client's (invalid_grant); log in again."
        case "saml2_bearer" | "jwt_bearer":
            return (
                "the token endpoint refuses the assertion (invalid_grant): it has expired or was used before, or is "
                "meant for another org or audience; compare this machine's clock."
            )
    return "the token endpoint refuses this grant (invalid_grant); compare the OAuth client's grant type."

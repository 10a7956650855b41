"""What an operator is told to do about a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.advice import refusal
from tests.core.test_grants import CLIENT


@pytest.mark.parametrize(
    ("changes", "error", "described", "advice"),
    [
        ({}, "invalid_client", "client not found", "The usual cause is the wrong region"),
        ({}, "invalid_client", "authentication failed", "knows this client and refuses its client_secret"),
        (
            {},
            "invalid_client",
            "",
            "refuses its client_secret (invalid_client). The usual cause is the wrong region",
        ),
        ({"client_auth": "private_key_jwt"}, "invalid_client", "authentication failed", "this machine's clock"),
        ({"client_auth": "none"}, "invalid_client", "authentication failed", "compare client_auth"),
        ({"grant": "refresh_token"}, "invalid_grant", "", "used before, has expired or was revoked"),
        ({"grant": "refresh_token"}, "invalid_grant", "", "or is another client's or org's"),
        ({"grant": "refresh_token"}, "invalid_grant", "", "genesys-auth-proxy login acme"),
        ({"grant": "authorization_code"}, "invalid_grant", "", "log in again"),
        ({"grant": "saml2_bearer"}, "invalid_grant", "", "it has expired or was used before"),
        ({"grant": "jwt_bearer"}, "invalid_grant", "", "this machine's clock"),
        ({}, "invalid_grant", "", "grant type"),
        ({}, "unauthorized_client", "", "may not use the grant client_credentials"),
        ({}, "invalid_scope", "", "compare scope"),
        ({}, "invalid_target", "", "does not know the resource server"),
        ({"resource_server": "x"}, "invalid_request", "unknown resourceServer", "does not know the resource server"),
        ({}, "invalid_request", "unknown resourceServer", "refused the request (invalid_request, status 400)"),
        ({}, "access_denied", "IP address 192.0.2.1 is not allowed", "this machine's IP address"),
        ({}, "invalid_client", "the ip is not in the allow list", "this machine's IP address"),
        ({}, "invalid_request", "zip code", "refused the request"),
    ],
)
def test_each_refusal_has_its_advice(changes: dict[str, Any], error: str, described: str, advice: str) -> None:
    assert advice in refusal(replace(CLIENT, **changes), error, 400, described)


@given(st.text(), st.sampled_from(["invalid_client", "invalid_grant", "invalid_target", "http_400", "access_denied"]))
def test_the_endpoints_own_words_are_never_repeated(described: str, error: str) -> None:
    marked = f"\x1b{described}\x1b"
    told = refusal(replace(CLIENT, resource_server="x"), error, 400, marked)
    assert "\x1b" not in told
    assert told.endswith((".", "acme"))

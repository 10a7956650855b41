"""What Genesys Cloud's clients rely on in an error, and what marks it as the proxy's own."""

from __future__ import annotations

import re

from tests.support.stages import Answer

_PROXY_STATUS = re.compile(r'genesys-auth-proxy; error=[a-z_]+; details="(?:[^"\\]|\\["\\])+"')
"""RFC 9209 2, with the parameters of 2.1.1 and 2.1.4."""


def assert_own_failure(answer: Answer) -> None:
    """It is the proxy that failed here: never 401, in Genesys's shape, and marked (RFC 9209)."""
    assert 400 <= answer.status < 600
    assert answer.status != 401, "SDKs answer a 401 with a storm of token requests"
    assert _PROXY_STATUS.fullmatch(answer.proxy_status), answer.proxy_status
    assert answer.fields["Content-Type"] == "application/json"
    body = answer.json
    assert body.keys() == {"message", "code", "status", "contextId", "details", "errors"}
    assert body["status"] == answer.status
    assert all(body[name] for name in ("message", "code", "contextId"))
    assert body["details"] == body["errors"] == []

"""A person's login for a tenant: the authorization code grant with PKCE (RFC 6749 4.1, RFC 7636, RFC 8252)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from proxy.core.grants import Client, Code
from proxy.core.secret import Secret
from proxy.errors import LoginFailed


@dataclass(frozen=True, slots=True)
class Login:
    """One login, from the page that is opened to the code that comes back.

    :param state: ties the answer to this login (RFC 6749 10.12); unguessable
    :param verifier: proves to the token endpoint that who redeems the code has asked for it; 43 characters or more
    """

    client: Client
    authorize_url: str
    """Of the authorization endpoint, without a query."""
    redirect_uri: str
    state: Secret
    verifier: Secret

    def page(self, parameters: Mapping[str, str]) -> str:
        """The URL that a browser opens.

        :param parameters: further ones, such as ``org``, ``provider`` and ``target``
        """
        query = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self.state.reveal(),
            "code_challenge": challenge(self.verifier.reveal()),
            "code_challenge_method": "S256",
        }
        if self.client.scope:
            query["scope"] = " ".join(self.client.scope)
        return f"{self.authorize_url}?{urlencode({**query, **parameters})}"

    def is_answer(self, url: str) -> bool:
        """Whether a URL, or a request target, has the redirect URI's path: others are none of our business."""
        return urlsplit(url).path == (urlsplit(self.redirect_uri).path or "/")

    def code(self, url: str) -> Code:
        """The code in the URL that a browser was sent to in the end (RFC 6749 4.1.2).

        :raises LoginFailed: it is the answer to another login, or none, or says that there is no code
        """
        try:
            said = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=32))
        except ValueError:
            said = {}
        state = said.get("state", "")
        if not state:
            raise LoginFailed("expected the whole address that the login page ends at, with code= and state= in it")
        # Compared before anything else counts, and in constant time: whoever does not know it can't even end the login.
        if not hmac.compare_digest(state.encode(), self.state.reveal().encode()):
            raise LoginFailed(
                "this answer belongs to no login that is under way, or is cut off; take the whole address that this "
                "login's own page ends at"
            )
        if "error" in said:
            raise LoginFailed(_refusal(said["error"]), final=True)
        if not said.get("code"):
            raise LoginFailed("the login page has sent no code", final=True)
        return Code(Secret(said["code"]), self.redirect_uri, self.verifier)


def challenge(verifier: str) -> str:
    """The S256 code challenge of a verifier (RFC 7636 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _refusal(error: str) -> str:
    match error:
        case "access_denied":
            return "the login was refused (access_denied): by the person, or the org does not allow this client"
        case "unauthorized_client" | "unsupported_response_type":
            return f"this OAuth client may not be logged in with ({error}); its grant type must be Code Authorization"
        case "invalid_scope":
            return "the login page refuses the scope (invalid_scope); compare scope with the client's own"
        case "invalid_request" | "server_error" | "temporarily_unavailable" | "login_required" | "invalid_target":
            return f"the login page refuses the request ({error})"
    return "the login page refuses the request"

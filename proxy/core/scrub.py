"""The last line of defence of secrets in texts for people: what looks like one is left out, whoever wrote the text."""

from __future__ import annotations

import re

HIDDEN = "***"

_NAMES = (
    "access_token|refresh_token|id_token|client_secret|client_assertion|assertion|code_verifier|password|refreshToken"
    "|subject_token|actor_token|jwt|x-proxy-key|proxy-authorization|authorization|cookie|set-cookie"
)
_QUOTED = r"""b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\]|\\.)*'"""
_BARE = r"""[^\s"'&,;<>]+"""
_SECRETS = re.compile(
    # A parameter, a field, a JSON member or a Python item, with a scheme before its value or without. Behind a dot it
    # is a key of the configuration, and a message about it follows.
    rf"""(?P<named>(?<![\w.-])(?:{_NAMES})\b["']?\s*[:=]\s*)(?!\*\*\*)(?:{_QUOTED}|(?:(?:bearer|basic|digest)\s+)?{_BARE})"""
    # "code" is an ordinary word as well: only as a parameter, or as a member that is no error code of the API.
    rf"""|(?P<code>(?<![\w-])code=|["']code["']\s*:\s*)(?!\*\*\*|["'][a-z_]+(?:\.[a-z_]+)*["'])(?:{_QUOTED}|{_BARE})"""
    # A credential without its field; nothing else follows these words in that form.
    r"""|(?P<scheme>\b(?:bearer|basic)\s+)(?=[\w.~+/=-]{16})[\w.~+/=-]+"""
    r"""|(?P<key>/k/)(?!<)[^/\s"'?]+"""
    # A JSON Web Token: a guest's, or an assertion.
    r"""|(?P<token>)\beyJ[\w-]+\.[\w-]+\.[\w-]*""",
    re.IGNORECASE,
)


def scrubbed(text: str) -> str:
    """A text without what looks like a token, a secret, a code, an assertion or a caller key."""
    return _SECRETS.sub(lambda found: (found[found.lastgroup or "token"] or "") + HIDDEN, text)

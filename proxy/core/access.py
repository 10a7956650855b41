"""Whether a request may pass: Host, Origin, caller key, and the tenant's policy by method and path."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from proxy.core.fields import Fields
from proxy.core.report import CallerTally
from proxy.core.routing import readings
from proxy.errors import BadRequest, NotAllowed

_AUTHORITY = re.compile(
    rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::([0-9]{0,5}))?",
)

_PLAIN = re.compile(rb"(?=.{1,63}$)\[?[A-Za-z0-9_-]{0,24}(?:[.:][A-Za-z0-9_-]{0,24})*\]?")
"""Names and addresses whose labels are shorter than any token."""

METHODS = frozenset({b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"})
"""What the API knows; others pass too, but not by the shortest way."""

REMEMBERED = 512
"""Bytes of what a caller says of itself up to which the decision on it is remembered."""

EXPOSED = (
    b"inin-ratelimit-count, inin-ratelimit-allowed, inin-ratelimit-reset, ININ-Correlation-Id, Retry-After, "
    b"Proxy-Status"
)
"""Response fields that a page's script may read (Fetch, CORS-safelisted response-header names aside)."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Those who show a key of one name."""

    name: str
    tally: CallerTally
    most_at_once: int
    """Requests under way at the same time."""
    most_websockets: int
    """Open at the same time."""
    tenants: frozenset[bytes] | None = None
    """The only ones that they may use; None for all."""


@dataclass(frozen=True, slots=True, eq=False)
class Callers:
    """Who may call: Host values, browser origins and keys. Build it with ``callers``; equal only to itself."""

    hosts: frozenset[bytes]
    origins: frozenset[bytes]
    keys: tuple[tuple[bytes, Caller], ...] = field(repr=False)
    """Digests of the keys, so that what a comparison takes tells nothing of a key, its length included."""

    def __repr__(self) -> str:
        names = sorted({caller.name for _, caller in self.keys})
        return f"Callers(hosts={sorted(self.hosts)}, origins={sorted(self.origins)}, keys={len(self.keys)} of {names})"


def callers(
    listen_host: str, hosts: Iterable[str], origins: Iterable[str], keys: Iterable[tuple[str, Caller]]
) -> Callers:
    """The rules for a proxy listening on ``listen_host``: local names always pass, all else is named."""
    own = f"[{listen_host}]" if ":" in listen_host else listen_host
    names = ["localhost", "127.0.0.1", "[::1]", own, *hosts]
    return Callers(
        frozenset(name.lower().encode("ascii") for name in names),
        frozenset(origin.lower().encode("ascii") for origin in origins),
        tuple((_digest(key.encode("utf-8")), caller) for key, caller in keys),
    )


def host_of(authority: bytes) -> bytes:
    """The host of a Host value or an authority, in lower case, without the port.

    :raises BadRequest: it is not ``host [":" port]`` (RFC 9112 3.2): userinfo, lists and paths included
    """
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise BadRequest("There is more than one Host, or it is not a host and port (RFC 9112 3.2).")
    return parts[1].lower()


def check_host(rules: Callers, authority: bytes) -> None:
    """Passes a request for a name that is ours: a name re-bound to our address is somebody else's (DNS rebinding).

    :raises NotAllowed: the name is not allowed
    :raises BadRequest: it is no name
    """
    host = host_of(authority)
    if host not in rules.hosts and not host.endswith(b".localhost"):
        raise NotAllowed(f"{named('Host', host)} is not allowed here; name it in access.allowed_hosts.")


def named(what: str, name: bytes) -> str:
    """How a message speaks of a name that a caller sent: by it, where it can do no harm and is no token."""
    return f'{what} "{name.decode("ascii")}"' if _PLAIN.fullmatch(name) else f"This {what}"


def check_caller(rules: Callers, authority: bytes, origin: bytes | None, fetch_site: bytes | None) -> bytes | None:
    """Passes a request for a name that is ours and from a page that may call, if it is from a page at all.

    Without Origin a browser still says where a simple GET comes from.

    :param authority: that the request is for
    :param origin: the field's value (RFC 6454 7)
    :param fetch_site: of ``Sec-Fetch-Site`` (Fetch Metadata)
    :return: the page's origin if it is a foreign one that is allowed, None if there is no page or it is our own
    :raises NotAllowed: the name, or the page's origin, is not allowed
    :raises BadRequest: the authority is no name
    """
    if len(authority) + len(origin or b"") + len(fetch_site or b"") > REMEMBERED:
        return _check_caller.__wrapped__(rules, authority, origin, fetch_site)
    return _check_caller(rules, authority, origin, fetch_site)


@lru_cache(maxsize=1024)
def _check_caller(rules: Callers, authority: bytes, origin: bytes | None, fetch_site: bytes | None) -> bytes | None:
    check_host(rules, authority)
    if origin is None:
        if fetch_site in (None, b"none", b"same-origin"):
            return None
        raise NotAllowed("A page of another site asked for this, and its browser sent no Origin.")
    if origin.lower() in rules.origins:
        return origin
    if origin.lower() in (b"http://" + authority.lower(), b"https://" + authority.lower()):
        return None
    raise NotAllowed("Pages of this Origin are not allowed here; name it in access.allowed_origins.")


def caller_of(rules: Callers, header: bytes | None, path: bytes | None) -> Caller | None:
    """Who shows a configured key, found in constant time; None where none is configured.

    :raises NotAllowed: keys are configured and none was shown, or a wrong one
    """
    if not rules.keys:
        return None
    shown = _digest((header if header is not None else path) or b"")
    # No early end: which key matched must not show in the time it takes.
    found = [caller for digest, caller in rules.keys if hmac.compare_digest(shown, digest)]
    if not found:
        raise NotAllowed("Show a caller key in X-Proxy-Key, or as /k/<key>/ before the path.")
    return found[0]


def check_tenant(caller: Caller | None, tenant: bytes) -> None:
    """Passes a caller to a tenant that is theirs; whether another one exists, they don't learn.

    :raises NotAllowed: the key is not for this tenant
    """
    if caller is not None and caller.tenants is not None and tenant not in caller.tenants:
        raise NotAllowed("This caller key is not for this tenant.")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def preflight(fields: Fields) -> bytes:
    """The section that answers a CORS preflight of an allowed origin (Fetch 3.2.2, Private Network Access)."""
    methods = fields.get(b"access-control-request-method") or b"GET"
    names = fields.get(b"access-control-request-headers") or b"Authorization, Genesys-App, Content-Type"
    private = fields.get(b"access-control-request-private-network") == b"true"
    return (
        b"Access-Control-Allow-Methods: %b\r\nAccess-Control-Allow-Headers: %b\r\nAccess-Control-Max-Age: 600\r\n"
        b"%bVary: Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
    ) % (methods, names, b"Access-Control-Allow-Private-Network: true\r\n" if private else b"")


def shared_with(origin: bytes) -> bytes:
    """The lines that let a page of an allowed origin read an answer, each with its CRLF."""
    return (b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Expose-Headers: %b\r\nVary: Origin\r\n") % (
        origin,
        EXPOSED,
    )


CORS_FIELDS = frozenset(
    b"access-control-" + name
    for name in (
        b"allow-origin",
        b"allow-credentials",
        b"allow-headers",
        b"allow-methods",
        b"allow-private-network",
        b"expose-headers",
        b"max-age",
    )
)
"""The upstream's own, which are for its own name; replaced, never doubled."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A method, or ``*``, and a pattern of paths: ``*`` is one segment, ``**`` any number of them."""

    text: str
    method: bytes
    path: re.Pattern[bytes]

    def matches(self, method: bytes, path: bytes) -> bool:
        return self.method in (b"*", method) and self.path.fullmatch(path) is not None


@lru_cache(maxsize=1024)  # thousands of tenants have the same few
def parse_rule(text: str) -> Rule:
    """The rule in a text such as ``GET /api/v2/users/*``.

    :raises ValueError: the text is not a method and a path
    """
    parts = re.fullmatch(r"(\*|[A-Z]+) (/\S*)", text)
    if parts is None or not text.isascii():
        raise ValueError('expected a method or * and a path, such as "GET /api/v2/users/**"')
    if "?" in parts[2]:
        raise ValueError("expected a path without a query: rules look at the path alone")
    return Rule(text, parts[1].encode(), _pattern(parts[2].lower()))


_STARS = re.compile(r"(/\*\*(?=/|$)|\*\*|\*)")


def _pattern(path: str) -> re.Pattern[bytes]:
    """The paths of a rule, found in a time linear in the path that is looked at, whatever the rule.

    ``*`` is any text in a segment, ``**`` any number of whole segments and then a ``*``; ``/**`` ends where a segment
    does. A ``*`` takes as little as the text after it lets it, and no more later, hence the atomic groups: the first
    place leaves most to what follows. So does a ``**``, with all up to the next one, which is tried once in each
    segment: if it fails with the first place there, it does with the others.
    """
    first, *others = _STARS.split(path)
    stars, texts = others[::2], others[1::2]
    ends = [r"(?=/|\Z)" if star.startswith("/") else "" for star in stars] + [r"/?\Z"]
    pieces = [re.escape(first) + ends[0]]
    for star, text, end in zip(stars, texts, ends[1:], strict=True):
        if star != "*":
            pieces.append(r"(?:[^/]*/)*?")
        pieces[-1] += rf"(?>[^/]*?{re.escape(text)}{end})" if text else rf"[^/]*+{end}" if end else ""
    if stars and stars[-1] != "*" and not texts[-1]:
        pieces[-1] = ".*"
    return re.compile("".join(f"(?>{piece})" for piece in pieces).encode(), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Policy:
    """A tenant's rules; an empty ``allow`` allows all that ``deny`` does not name."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    observe: bool = False
    """Report what the rules would refuse, and let it pass."""
    harmless: frozenset[bytes] = field(init=False)
    """Methods that no rule decides on, as they are usually written; they need no ``check_policy``."""

    def __post_init__(self) -> None:
        named = {rule.method for rule in self.deny}
        free = self.allow or b"*" in named
        object.__setattr__(self, "harmless", frozenset() if free else METHODS - named)


def check_policy(policy: Policy, method: bytes, rest: bytes, *, answered_here: bool = False) -> None:
    """Passes what the tenant's policy lets pass, by every reading of the path.

    One reading that is denied is enough to refuse, and every reading must be allowed: which one the upstream
    uses can't be known.

    :param answered_here: nothing of it goes to the API, as where an SDK logs in; ``allow`` does not shut that
    :raises NotAllowed: saying by which rule
    """
    method = method.upper()
    found = [reading.lower() for reading in readings(rest.partition(b"?")[0])]
    for rule in policy.deny:
        if any(rule.matches(method, path) for path in found):
            raise NotAllowed(f'The tenant\'s policy denies this: deny = ["{rule.text}"]. {_reason(rule)}'.strip())
    if answered_here or not policy.allow:
        return
    if not all(any(rule.matches(method, path) for rule in policy.allow) for path in found):
        raise NotAllowed("The tenant's policy does not allow this: no rule of allow matches.")


def _reason(rule: Rule) -> str:
    if rule.text == "DELETE /api/v2/tokens/me":
        return "It would revoke the token for everybody who shares it."
    return ""

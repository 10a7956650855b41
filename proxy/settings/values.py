"""The types of single values: each checks what stands in the file, and says what was expected instead."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from proxy.core import access, fields, regions
from proxy.core.detour import ForwardProxy, parse_proxy
from proxy.core.secret import Secret
from proxy.core.urls import BaseUrl, bracketed, is_loopback, parse_base_url, parse_host, parse_origin
from proxy.settings.placeholders import USUAL_VARIABLE, filled, placeholder, whole
from proxy.settings.problems import kind, nearest, quoted

LONGEST_SECRET = 65_536
"""Bytes read of a secret's file; a longer one is some other file."""

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token, RFC 9110 5.6.2
_FIELD_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")  # RFC 9110 5.5, without obs-text
_SCOPE_TOKEN = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 3.3
_VSCHAR = re.compile(r"[ -~]+")  # RFC 6749 A
_REDIRECT_URI = re.compile(r"http://(?:localhost|127\.0\.0\.1|\[::1\]):(?P<port>[0-9]{1,5})/[A-Za-z0-9._~/-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_DECIDED_HERE = frozenset(name.decode() for name in fields.HOP_BY_HOP) | {
    "accept",
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "origin",
    "x-proxy-key",
}
_OWN_PARAMETERS = frozenset(
    {
        "assertion",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "grant_type",
        "refresh_token",
    }
)

LONGEST_SOCKET_PATH = 103
"""Bytes that fit in ``sun_path`` everywhere, with the zero at its end: macOS has 104, Linux 108."""

T = TypeVar("T")


Stamp = tuple[int, int, int] | None
"""What of a file changes when it does; None where there is none."""


def stamp(path: Path) -> Stamp:
    """A file as it is now; symbolic links are followed, as Kubernetes swaps them."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@dataclass(slots=True)
class Place:
    """Where a file's values are found: pydantic's validation context.

    :ivar folder: what relative paths in the file are relative to
    :ivar sources: every file read so far, in order, as it was before; validation adds to it
    :ivar secrets: those of them that hold nothing but a secret
    :ivar literal: a secret stands in the file itself
    """

    folder: Path = field(default_factory=Path)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    sources: dict[Path, Stamp] = field(default_factory=dict)
    secrets: dict[Path, None] = field(default_factory=dict)
    literal: bool = False

    def path(self, text: str) -> Path:
        return (self.folder / text).absolute()

    def begin(self, path: Path) -> None:
        """Notes that a file is about to be read: what is written to it from now on is a change."""
        self.sources.setdefault(path, stamp(path))


def place_of(info: ValidationInfo) -> Place:
    """Where the values of the file that is being validated are found."""
    return info.context if isinstance(info.context, Place) else Place()


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string (got {kind(value)})")
    return value


def _parsed(parse: Callable[[str], T], value: object) -> T:
    """Parses a string; a value that can't hold a password is shown."""
    text = _string(value)
    try:
        return parse(text)
    except ValueError as error:
        shown = "" if "@" in text else f" (got {quoted(text)})"
        raise ValueError(f"{error}{shown}") from None


# --- secrets ---


def secret(value: object, place: Place) -> Secret:
    """A literal, ``{ env = … }`` or ``{ file = … }``; no message shows what was read."""
    match value:
        case Secret():
            return value
        case str():
            place.literal = True
            if not value:
                raise ValueError("expected a secret (got an empty string)")
            if (name := placeholder(value)) is not None:
                expected = f'the secret itself or {{ env = "{name}" }}'
                raise ValueError(f"expected {expected}: nothing fills in ${{{name}}} here")
            return Secret(value)
        case {"env": str(name), **rest} if not rest:
            text, origin = _variable(name, place), f"environment variable {name}"
        case {"file": str(name), **rest} if not rest:
            text, origin = _content(name, place), f"file {quoted(name)}"
        case _:
            raise ValueError(f"""expected a string, {{ env = "NAME" }} or {{ file = "path" }} (got {_misfit(value)})""")
    if not text:
        raise ValueError(f"expected a secret (got {origin}, which is empty)")
    if (name := placeholder(text)) is not None:
        raise ValueError(f"expected a secret (got {origin}, which holds ${{{name}}}, filled in by nobody)")
    return Secret(text)


def _misfit(value: object) -> str:
    """What stands where a secret should; of keys, which may be one, those alone are shown that are like the two."""
    match value:
        case {"env": _, "file": _}:
            return "both env and file"
        case Mapping():
            unknown = [key for key in value if key not in ("env", "file")]
            near = [f"the key {key}" + advice for key in unknown if (advice := nearest(str(key), ("env", "file")))]
            if near:
                return near[0]
            return "a table with another key" if unknown or not value else "a table that gives no name"
    return kind(value)


def _variable(name: str, place: Place) -> str:
    if not _VARIABLE.fullmatch(name):
        # Not shown: it may be the secret itself.
        raise ValueError("expected the name of an environment variable after env")
    try:
        return place.environ[name]
    except KeyError:
        # Not shown unless it is spelled like a variable: it may be the secret itself.
        shown = f"environment variable {name}" if USUAL_VARIABLE.fullmatch(name) else "the variable that env names"
        raise ValueError(f'{shown} is not set; export it or use {{ file = "…" }}') from None


def _content(name: str, place: Place) -> str:
    path = place.path(name)
    place.begin(path)
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_SECRET + 1)
    except FileNotFoundError:
        advice = 'write the secret there or use { env = "…" }'
        raise ValueError(f"file {quoted(name)} does not exist; {advice}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"file {quoted(name)} can't be read ({reason(error)})") from None
    if len(content) > LONGEST_SECRET:
        raise ValueError(f"file {quoted(name)} is longer than {LONGEST_SECRET} bytes; expected one line")
    place.secrets[path] = None
    try:
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"file {quoted(name)} is not UTF-8 text") from None


def reason(error: OSError | ValueError) -> str:
    """Why a file can't be read; ValueError is for a path with a zero byte."""
    return (error.strerror if isinstance(error, OSError) else None) or "not a usable path"


def _client_secret(value: object, info: ValidationInfo) -> Secret:
    found = secret(value, place_of(info))
    if not _VSCHAR.fullmatch(found.reveal()):
        raise ValueError("expected one line of printable ASCII characters (RFC 6749 A.2)")
    return found


SECRET_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {"env": {"type": "string", "description": "Name of an environment variable."}},
            "required": ["env"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"file": {"type": "string", "description": "Path; relative: to this folder."}},
            "required": ["file"],
            "additionalProperties": False,
        },
    ]
}

ClientSecret = Annotated[Secret, PlainValidator(_client_secret), WithJsonSchema(SECRET_SCHEMA)]


def proxy_of(text: str) -> ForwardProxy | None:
    """A forward proxy's URL; empty for none. No message repeats it: it may hold a password."""
    if not text:
        return None
    try:
        return parse_proxy(text)
    except ValueError:
        raise ValueError("expected a URL such as http://proxy.corp:3128, without path") from None


def _proxy(value: object, info: ValidationInfo) -> ForwardProxy | None:
    if isinstance(value, ForwardProxy) or value is None:
        return value
    place = place_of(info)
    if isinstance(value, str):
        found = proxy_of(whole(value))
        place.literal = place.literal or (found is not None and found.credential is not None)
        return found
    return proxy_of(whole(secret(value, place).reveal()))


# Text or a secret as elsewhere; empty text for none.
ProxyValue = Annotated[
    ForwardProxy | None,
    PlainValidator(_proxy),
    WithJsonSchema({"anyOf": [{"type": "string"}, *SECRET_SCHEMA["anyOf"][1:]]}),
]


# --- hosts and URLs ---


def _url(value: object) -> BaseUrl:
    if isinstance(value, BaseUrl):
        return value
    if isinstance(value, str) and value.lower().startswith(("ws:", "wss:")):
        raise ValueError("expected a URL that begins with https://")
    return _parsed(parse_base_url, value)


def _secure_url(value: object) -> BaseUrl:
    url = _url(value)
    if not url.tls and not is_loopback(url.host):
        raise ValueError("expected https: over http the secret and the tokens would be sent in the clear")
    return url


def _socket_url(value: object) -> BaseUrl:
    return value if isinstance(value, BaseUrl) else _parsed(parse_base_url, value)


def _host(value: object) -> str:
    return _parsed(parse_host, value)


_URL_SCHEMA = WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?://"})
_TEXT = WithJsonSchema({"type": "string"})

Url = Annotated[BaseUrl, PlainValidator(_url), _URL_SCHEMA]
SecureUrl = Annotated[BaseUrl, PlainValidator(_secure_url), _URL_SCHEMA]
SocketUrl = Annotated[
    BaseUrl,
    PlainValidator(_socket_url),
    WithJsonSchema({"type": "string", "format": "uri", "pattern": "^(https?|wss?)://"}),
]
Region = Annotated[
    str,
    PlainValidator(lambda value: _parsed(regions.domain_of, value)),
    WithJsonSchema({"type": "string", "examples": list(regions.REGIONS)}),
]
Host = Annotated[str, PlainValidator(_host), _TEXT]
HostValue = Annotated[str, PlainValidator(lambda value: bracketed(_host(value))), _TEXT]
Origin = Annotated[str, PlainValidator(lambda value: _parsed(parse_origin, value)), _TEXT]


def _redirect_uri(value: object) -> str:
    text = _string(value)
    parts = _REDIRECT_URI.fullmatch(text)
    if parts is None or int(parts["port"]) > 65_535:
        raise ValueError(
            "expected an http URL on localhost, 127.0.0.1 or [::1] with port and path, such as "
            f"http://localhost:8085/oauth/callback (RFC 8252 7.3) (got {quoted(text)})"
        )
    return text


RedirectUri = Annotated[str, PlainValidator(_redirect_uri), WithJsonSchema({"type": "string", "format": "uri"})]


# --- token requests ---


def _printable(value: object) -> str:
    text = filled(_string(value))
    if not _VSCHAR.fullmatch(text):
        raise ValueError("expected one or more printable ASCII characters (RFC 6749 A)")
    return text


def _field_value(value: object) -> str:
    text = filled(_string(value))
    if not _FIELD_VALUE.fullmatch(text):
        raise ValueError("expected printable ASCII characters without space at either end (RFC 9110 5.5)")
    return text


def _scope_tokens(value: object) -> object:
    # RFC 6749 3.3 writes a scope as one string with spaces.
    if isinstance(value, str):
        return value.split(" ")
    return _listed(value, "a list of scopes, or one string with a space between them")


def _scope_token(value: object) -> str:
    text = _string(value)
    if "," in text:
        # RFC 6749 lets it be part of a name; it is none, but what lists are written with elsewhere.
        raise ValueError(f"expected scopes in a list or with a space between them, no comma (got {quoted(text)})")
    if not _SCOPE_TOKEN.fullmatch(text):
        raise ValueError(f'expected a scope without space, " and \\ (RFC 6749 3.3) (got {quoted(text)})')
    return text


def _parameter_values(value: object) -> object:
    return (value,) if isinstance(value, str) else _listed(value, "a string, or a list of strings")


def _listed(value: object, expected: str) -> object:
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"expected {expected} (got {kind(value)})")


def _parameter_name(value: object) -> str:
    name = _string(value)
    if not name or name in _OWN_PARAMETERS:
        raise ValueError("expected another parameter: this one is the proxy's to send")
    return name


def _field_name(value: object) -> str:
    name = _string(value)
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError(f"expected a field name (RFC 9110 5.1) (got {quoted(name)})")
    if name.lower().replace("_", "-") in _DECIDED_HERE:
        raise ValueError(f"expected another field than {name}, which is the proxy's to decide")
    return name


def _distinct(headers: dict[str, str]) -> dict[str, str]:
    # Some servers take "_" for "-".
    if len({name.lower().replace("_", "-") for name in headers}) < len(headers):
        raise ValueError("expected each field once, in upper or lower case, with - or _")
    return headers


def _rule(value: object) -> str:
    return _parsed(access.parse_rule, value).text


Printable = Annotated[str, PlainValidator(_printable), WithJsonSchema({"type": "string", "minLength": 1})]
FieldValue = Annotated[str, PlainValidator(_field_value), WithJsonSchema({"type": "string", "minLength": 1})]
FieldName = Annotated[str, PlainValidator(_field_name), _TEXT]
ScopeToken = Annotated[str, PlainValidator(_scope_token), _TEXT]
Scope = Annotated[
    tuple[ScopeToken, ...],
    BeforeValidator(_scope_tokens),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}),
]
ParameterName = Annotated[str, PlainValidator(_parameter_name), _TEXT]
ParameterValues = Annotated[
    tuple[Annotated[str, PlainValidator(lambda value: filled(_string(value))), _TEXT], ...],
    BeforeValidator(_parameter_values),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Headers = Annotated[dict[FieldName, FieldValue], AfterValidator(_distinct)]
Rule = Annotated[str, PlainValidator(_rule), WithJsonSchema({"type": "string", "pattern": r"^(\*|[A-Z]+) /[^\s?]*$"})]


# --- numbers, words and files ---


def _ca_file(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    import ssl  # OpenSSL takes its time to load, and most configurations name no file

    place, name = place_of(info), _string(value)
    path = place.path(name)
    place.begin(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except FileNotFoundError:
        raise ValueError(f"file {quoted(name)} does not exist; expected certificates in PEM") from None
    except ssl.SSLError:
        raise ValueError(f"file {quoted(name)} holds no certificates in PEM") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"file {quoted(name)} can't be read ({reason(error)})") from None
    return path


def _file(value: object, info: ValidationInfo) -> Path:
    """A file that is watched; what reads it says whether it is any good."""
    if isinstance(value, Path):
        return value
    place, name = place_of(info), _string(value)
    path = place.path(name)
    place.begin(path)
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ValueError(f"file {quoted(name)} does not exist; expected PEM") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"file {quoted(name)} can't be read ({reason(error)})") from None
    return path


def _key_file(value: object, info: ValidationInfo) -> Path:
    path = _file(value, info)
    place_of(info).secrets[path] = None
    return path


def _socket_path(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError("expected no Unix socket: this system has none")
    name = _string(value)
    path = place_of(info).path(name)
    if not name or "\0" in name or len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ValueError(f"expected a path of 1 to {LONGEST_SOCKET_PATH} bytes")
    return path


def _mode(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value  # TOML's own octal, 0o660
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    raise ValueError('expected a file\'s mode in octal digits, such as "0660"')


def _user(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value
    name = _string(value)
    try:
        import pwd  # none on Windows, which has no Unix users
    except ImportError:
        raise ValueError("expected no users: this system does not tell whose process connects") from None
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f"expected the name or the number of a user of this machine (got {quoted(name)})") from None


File = Annotated[Path, PlainValidator(_file), _TEXT]
KeyFile = Annotated[Path, PlainValidator(_key_file), _TEXT]
SocketPath = Annotated[Path, PlainValidator(_socket_path), _TEXT]
Mode = Annotated[int, PlainValidator(_mode), WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$"})]
User = Annotated[
    int,
    PlainValidator(_user),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]}),
]
CaFile = Annotated[Path, PlainValidator(_ca_file), _TEXT]
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Port = Annotated[int, Field(strict=True, ge=0, le=65_535)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
PoolSize = Annotated[int, Field(strict=True, ge=1, le=50)]
Wait = Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)]
BufferSize = Annotated[int, Field(strict=True, ge=0, le=1 << 30)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(strict=True, ge=1, le=1 << 40)]
FieldCount = Annotated[int, Field(strict=True, ge=16, le=1000)]
HeaderSize = Annotated[int, Field(strict=True, ge=1024, le=1 << 20)]

"""Reads a configuration: the file, what it includes, the secrets they name; finds all problems at once."""

from __future__ import annotations

import glob
import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from proxy.core.routing import TENANT_NAME
from proxy.core.secret import Secret
from proxy.errors import ConfigurationError
from proxy.settings.callers import NO_KEY
from proxy.settings.listening import misfits
from proxy.settings.model import (
    AccessSettings,
    ConfigurationFile,
    IncludedFile,
    RoutingSettings,
    Section,
    Settings,
    TenantSettings,
    TenantTable,
    UpstreamSettings,
)
from proxy.settings.problems import Location, expectation, line, nearest, quoted
from proxy.settings.stores import default_place
from proxy.settings.tenants import idle, lacking, merged, resolved, unlike_twins
from proxy.settings.values import Place, proxy_of, reason

M = TypeVar("M", bound=Section)

_POSITION = re.compile(r"(.*) \(at (.*)\)", re.DOTALL)

_SECTIONS: Mapping[str, type[Section]] = {
    name: field.annotation
    for name, field in ConfigurationFile.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file, with every secret read.

    :param environ: where ``{ env = … }`` is looked up
    :raises ConfigurationError: with every problem found; no message holds a secret
    """
    reader = _Reader(path, environ)
    settings = reader.settings()
    if settings is None:
        raise ConfigurationError(reader.problems, reader.place.sources)
    return settings


class _Reader:
    """One reading of a configuration.

    :ivar problems: one line each, in the order found
    :ivar refused: what was taken out of the files because it is no good; its absence is no second problem
    :ivar homes: the file of each tenant
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.place = Place(path.parent, environ)
        self.problems: list[str] = []
        self.refused: set[Location] = set()
        self.homes: dict[str, Path] = {}

    def settings(self) -> Settings | None:
        """The settings, or None once there are problems."""
        content = self.read(self.path)
        if content is None:
            return None
        main = self.check(ConfigurationFile, content, self.path, self.place)
        tables = self.claim(main.tenants, self.path)
        for path in self.included(main.include):
            tables |= self.tenants_of(path)
        own = {name: table.model_fields_set for name, table in tables.items()}
        tables = {name: merged(table, main.defaults) for name, table in tables.items()}
        self.check_access(main)
        self.check_callers(main.access, tables)
        self.check_default_tenant(main.routing.default_tenant, tables)
        self.check_tenants(tables, own)
        upstream = self.upstream(main.upstream)
        return None if self.problems else self.built(main, tables, upstream)

    def built(self, main: ConfigurationFile, tables: Mapping[str, TenantTable], upstream: UpstreamSettings) -> Settings:
        routing = main.routing
        if routing.default_tenant is None and len(tables) == 1:
            routing = RoutingSettings(default_tenant=next(iter(tables)), tenant_header=routing.tenant_header)
        tenants: dict[str, TenantSettings] = {name: resolved(name, table) for name, table in tables.items()}
        return Settings(
            listen=main.listen,
            admin=main.admin,
            access=main.access,
            store=main.store.url or default_place(self.place),
            encryption_keys=main.store.encryption_keys,
            limits=main.limits,
            upstream=upstream,
            routing=routing,
            log=main.log,
            tenants=MappingProxyType(tenants),
            sources=MappingProxyType(self.place.sources),
            file=self.path,
            secret_files=tuple(self.place.secrets),
            included=tuple(beside(self.path.absolute(), pattern) for pattern in main.include),
        )

    def upstream(self, given: UpstreamSettings) -> UpstreamSettings:
        """With what the environment says where the file says nothing, as other programs take it."""
        found: dict[str, object] = {}
        if "proxy" not in given.model_fields_set:
            name, text = self.variable("https_proxy")
            try:
                found["proxy"] = proxy_of(text)
            except ValueError as error:
                self.problems.append(f'environment variable {name}: {error}; or say upstream.proxy = ""')
        if given.no_proxy is None and (listed := self.variable("no_proxy")[1]):
            found["no_proxy"] = (listed,)
        return given.model_copy(update=found)

    def variable(self, name: str) -> tuple[str, str]:
        """The name and the value of a variable that is spelled in lower or upper case."""
        environ = self.place.environ
        spelled = name if environ.get(name) else name.upper()
        return spelled, environ.get(spelled, "").strip()

    def report(self, path: Path, location: Location, message: str) -> None:
        self.problems.append(line(str(path), location, message))

    # --- files ---

    def read(self, path: Path) -> dict[str, Any] | None:
        """What a file says, None where it says nothing usable."""
        self.place.begin(path.absolute())
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            self.report(path, (), 'no such file; create one with "genesys-auth-proxy init"')
            return None
        except (OSError, ValueError) as error:
            self.report(path, (), f"can't be read ({reason(error)})")
            return None
        try:
            return tomllib.loads(content.decode("utf-8-sig"))
        except tomllib.TOMLDecodeError as error:
            self.report(path, (), _syntax(error))
        except UnicodeDecodeError as error:
            self.report(path, (), f"expected UTF-8 text (byte {error.start + 1} is none)")
        except (ValueError, RecursionError):
            # Of tomllib: a number of more than 4,300 digits, and nesting deeper than Python's stack.
            self.report(path, (), "expected shorter numbers and less nesting")
        return None

    def included(self, patterns: Iterable[str]) -> list[Path]:
        """The files that the patterns find, each once, those of one pattern sorted."""
        found: dict[Path, None] = {}
        for position, pattern in enumerate(patterns):
            paths = matching(beside(self.path, pattern))
            if not paths and not glob.has_magic(pattern):
                self.report(self.path, ("include", position), f"no such file (got {quoted(pattern)})")
                self.refused.add(("tenants",))
            found |= dict.fromkeys(path for path in paths if path != self.path)
        return list(found)

    def tenants_of(self, path: Path) -> dict[str, TenantTable]:
        """The tenants of an included file."""
        content = self.read(path)
        if content is None:
            self.refused.add(("tenants",))
            return {}
        place = Place(path.parent, self.place.environ, self.place.sources, self.place.secrets)
        return self.claim(self.check(IncludedFile, content, path, place).tenants, path)

    def claim(self, tables: Mapping[str, TenantTable], path: Path) -> dict[str, TenantTable]:
        """The tenants of a file that have a usable name and that no other file has."""
        claimed = {}
        for name, table in tables.items():
            if name in self.homes:
                self.report(path, ("tenants", name), f"{self.homes[name]} has this tenant already")
            elif not TENANT_NAME.fullmatch(name.encode("utf-8")):
                expected = "1 to 63 lower-case letters, digits, - and _, the first and last a letter or digit"
                self.report(path, ("tenants", name), f"expected a name of {expected}")
                self.refused.add(("tenants", name))
            else:
                self.homes[name] = path
                claimed[name] = table
        return claimed

    # --- checks ---

    def check(self, model: type[M], content: dict[str, Any], path: Path, place: Place) -> M:
        """The model of a file; what is no good is reported and taken out, and the rest checked."""
        while True:
            try:
                checked = model.model_validate(content, context=place)
                if place.literal:
                    place.secrets[path.absolute()] = None
                return checked
            except ValidationError as error:
                details = error.errors(include_url=False)
            for detail in details:
                # pydantic's word for the key itself, where a table's keys are checked as well as its values
                location = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
                unknown = detail["type"] == "extra_forbidden"
                self.report(path, location, _unknown(model, location) if unknown else expectation(detail))
            for location in {_present(content, detail["loc"]) for detail in details}:
                wrong = {detail["loc"][2] for detail in details if detail["loc"][:2] == location and detail["loc"][2:]}
                if location == ("access", "caller_keys") and wrong:
                    # The others stay where they are, to be checked against the tenants.
                    keys = content["access"]["caller_keys"]
                    content["access"]["caller_keys"] = [NO_KEY if at in wrong else key for at, key in enumerate(keys)]
                else:
                    _take_out(content, location)
                self.refused.add(location)

    def check_access(self, main: ConfigurationFile) -> None:
        access, listen, admin = main.access, main.listen, main.admin
        if access.caller_keys and access.open:
            self.report(self.path, ("access", "open"), "expected false where caller_keys are given")
        unsure = {("access",), ("access", "caller_keys"), ("access", "open"), ("listen",)} & self.refused
        if not unsure and not any(location[:1] == ("listen",) for location in self.refused):
            for key, message in misfits(listen, access):
                self.report(self.path, ("listen", key), message)
        if listen.tcp and listen.port and (listen.host, listen.port) == (admin.host, admin.port):
            message = f"expected another port than listen.port (got {admin.port})"
            self.report(self.path, ("admin", "port"), message)

    def check_callers(self, access: AccessSettings, tables: Mapping[str, TenantTable]) -> None:
        seen: list[Secret] = []
        for position, caller in enumerate(access.caller_keys):
            where = ("access", "caller_keys", position)
            if caller is NO_KEY:
                continue
            if caller.key in seen:
                self.report(self.path, where, "expected each key once")
            seen.append(caller.key)
            for name in caller.tenants or ():
                if name not in tables and not {("tenants",), ("tenants", name)} & self.refused:
                    message = f"tenants: expected the name of a tenant (got {quoted(name)}){nearest(name, tables)}"
                    self.report(self.path, where, message)

    def check_default_tenant(self, default: str | None, tables: Mapping[str, TenantTable]) -> None:
        if default is None or default in tables or {("tenants",), ("tenants", default)} & self.refused:
            return
        message = f"expected the name of a tenant (got {quoted(default)}){nearest(default, tables)}"
        self.report(self.path, ("routing", "default_tenant"), message)

    def check_tenants(self, tables: Mapping[str, TenantTable], own: Mapping[str, Collection[str]]) -> None:
        """Checks merged tables.

        :param own: the keys of each that do not come from ``[defaults]``
        """
        refused: dict[Location, set[str]] = defaultdict(set)
        for location in self.refused:
            refused[location[:-1]].add(str(location[-1]))
        if not tables and "tenants" not in refused[()] and not refused[("tenants",)]:
            advice = "add a section [tenants.NAME] with region, client_id and client_secret"
            self.report(self.path, ("tenants",), f"no tenant is configured; {advice}")
        if "defaults" in refused[()]:
            return
        sound: dict[str, TenantTable] = {}
        for name, table in tables.items():
            broken = refused[("tenants", name)] | refused[("defaults",)]
            found = lacking(table, broken) + idle(table, own[name], broken)
            for key, message in found:
                self.report(self.homes[name], ("tenants", name, key), message)
            if not found and not broken:
                sound[name] = table
        for name, before, differing in unlike_twins(sound):
            message = (
                f"is that of tenants.{before} too, whose {' and '.join(differing)} is another, and a refresh token is "
                f"used once; make that the same, or take this out and run: genesys-auth-proxy login {name}"
            )
            self.report(self.homes[name], ("tenants", name, "refresh_token"), message)


def _syntax(error: tomllib.TOMLDecodeError) -> str:
    parts = _POSITION.fullmatch(str(error))
    return f"{parts[2]}: {parts[1]}" if parts else str(error)


def beside(path: Path, pattern: str) -> str:
    """A pattern of ``include`` that stands in the file ``path``, and begins at its folder."""
    return str(Path(glob.escape(str(path.parent)), pattern))


def idle_patterns(settings: Settings) -> list[str]:
    """A sentence for each pattern of ``include`` that finds no file."""
    return [
        f"include: no file matches {quoted(pattern, 4096)}" for pattern in settings.included if not matching(pattern)
    ]


def matching(pattern: str) -> list[Path]:
    """The files that a pattern finds, sorted."""
    try:
        return sorted(map(Path, glob.glob(pattern)))  # noqa: PTH207 (Path.glob refuses absolute patterns)
    except (OSError, ValueError):
        return []


def _present(content: Mapping[str, Any], location: Location) -> Location:
    """The keys of a location that stand in the file: no list positions, none of pydantic's own words."""
    inner: Any = content
    for depth, part in enumerate(location):
        if not isinstance(inner, Mapping) or part not in inner:
            return location[:depth]
        inner = inner[part]
    return location


def _take_out(content: dict[str, Any], location: Location) -> None:
    inner: Any = content
    for part in location[:-1]:
        inner = inner.get(part, {})
    inner.pop(location[-1], None)


def _unknown(model: type[Section], location: Location) -> str:
    *section, name = map(str, location)
    if not section and model is IncludedFile:
        return "an included file holds [tenants.NAME] sections only; move this to the file that includes it"
    if not section:
        known: Iterable[str] = ConfigurationFile.model_fields
    else:
        known = _SECTIONS["defaults" if section[0] == "tenants" else section[0]].model_fields
    homes = [other for other, keys in _SECTIONS.items() if name in keys.model_fields]
    if len(homes) == 1:
        return f"unknown key here; it belongs in [{homes[0].replace('defaults', 'tenants.NAME')}]"
    return f"unknown key{nearest(name, known)}"

"""What README quotes from the program; ``python -m tests.project.quoted`` puts today's into it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy.settings import schema, starter
from tests.bench import report

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

_PLACE = re.compile(r"(?<=<!-- quoted: )([a-z]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)

Node = dict[str, Any]
"""A part of a JSON Schema."""


def blocks() -> dict[str, str]:
    """Markdown by the name of its place in README."""
    return {
        "help": f"```console\n$ genesys-auth-proxy --help\n{output('--help')}```\n",
        "python": f"```python\n{snippet('python')}```\n",
        "javascript": f"```javascript\n{snippet('javascript')}```\n",
        "configuration": "\n".join(tables()),
        "bench": f"![CPU time for one request, as bars](tests/bench/last.svg)\n\n{report.table(report.load())}\n",
    }


def filled(readme: str) -> str:
    """README with today's blocks in their places.

    :raises KeyError: it has a place that is none of these
    """
    today = blocks()
    return _PLACE.sub(lambda place: f"{place[1]}{place[2]}{today[place[1]]}", readme)


def output(*arguments: str, folder: Path = ROOT) -> str:
    """What the program writes to a pipe."""
    dropped = {"GENESYS_AUTH_PROXY_CONFIG", "FORCE_COLOR", "LINES", "TERM"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {"COLUMNS": "80", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "ACME_CLIENT_SECRET": "secret"}
    command = [sys.executable, "-m", "proxy", *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=60, check=True)
    return ran.stdout.decode()


def snippet(sdk: str) -> str:
    """An SDK's settings for the configuration that ``init`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "genesys-auth-proxy.toml").write_text(starter(), "utf-8")
        return output("snippet", "acme", "--sdk", sdk, folder=Path(folder))


# --- the configuration's keys ---


def tables() -> Iterator[str]:
    """A Markdown table for each section of the configuration, with what comes before it."""
    whole = schema()
    properties: dict[str, Node] = whole["properties"]
    top = {name: node for name, node in properties.items() if "$ref" not in node and name != "tenants"}
    yield _table("At the top of the file, before any section:", top)
    for name, node in properties.items():
        if "$ref" in node and name != "defaults":
            section = _resolved(node, whole)
            yield _table(f"`[{name}]` – {_text(section['description'])}", section["properties"])
    tenant = _resolved(properties["tenants"]["additionalProperties"], whole)
    yield _table(
        f"`[tenants.NAME]` – {_text(tenant['description'])} `[defaults]` takes the same keys, for tenants that do not "
        "have them themselves.",
        tenant["properties"],
    )


def _resolved(node: Node, whole: Node) -> Node:
    found: Node = whole["$defs"][node["$ref"].rpartition("/")[2]]
    return {**found, **{key: value for key, value in node.items() if key != "$ref"}}


def _table(title: str, keys: dict[str, Node]) -> str:
    rows = "".join(
        f"| `{name}` | {_type(node)} | {_default(node)} | {_text(node['description'])} |\n"
        for name, node in keys.items()
    )
    return f"{title}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _type(node: Node) -> str:
    """The type in a few words."""
    match node:
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": values}:
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"anyOf": [_, {"properties": {"env": _}}, *_]}:
            return "secret"
        case {"anyOf": choices}:
            return " or ".join(map(_type, choices))
        case {"type": "array", "items": items}:
            return f"list of {_types(items)}"
        case {"type": "object", "additionalProperties": values}:
            return f"table of {_types(values)}"
        case {"type": "string", "format": "uri"}:
            return "URL"
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "integer", "minimum": lowest, "maximum": highest}:
            return f"integer, {lowest} to {highest}"
        case {"type": "number", "exclusiveMinimum": lowest, "maximum": highest}:
            return f"number over {lowest}, to {highest}"
    found: str = node["type"]
    return found


def _types(node: Node) -> str:
    """The same for several of them."""
    if "anyOf" in node and _type(node) != "secret":
        return " or ".join(map(_types, node["anyOf"]))
    return _type(node).replace("list", "lists") if node.get("type") == "array" else f"{_type(node)}s"


def _default(node: Node) -> str:
    if "default" not in node:
        return ""
    value = node["default"]
    return f"`{json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)}`"


def _text(description: str) -> str:
    """A description as Markdown: what has <placeholders> as code, the rest as plain text."""
    escaped = re.sub(r"([|*])", r"\\\1", description)
    return re.sub(r"\S*<\S*(?=[.,;](?:\s|$))", lambda found: f"`{found[0]}`", escaped)


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8")), "utf-8")

"""The sandbox's orgs as the tenants of a configuration."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.sandbox import Org


def tenants_toml(base_url: str, orgs: Iterable[Org]) -> str:
    """``[defaults]`` and a section for each org, to paste into a configuration."""
    sections = [f'[defaults]\napi_url = "{base_url}"\nlogin_url = "{base_url}"\n']
    for org in orgs:
        client = next(client for client in org.clients if client.secret is not None)
        sections.append(f'[tenants.{org.name}]\nclient_id = "{client.id}"\nclient_secret = "{client.secret}"\n')
    return "\n".join(sections)

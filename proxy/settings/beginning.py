"""What of a configuration counts from the start to the end of the program: no reload changes it."""

from __future__ import annotations

from dataclasses import replace

from proxy.errors import ConfigurationError
from proxy.settings.listening import unguarded
from proxy.settings.model import Settings


def as_begun(settings: Settings, begun: Settings) -> Settings:
    """Settings that were read anew, except for what takes effect at a start only.

    :param begun: those in force
    :raises ConfigurationError: they would let anybody in where the program listens until then
    """
    problems = unguarded(begun.listen, settings.access)
    if problems:
        until = "until a restart it is as it was:"
        raise ConfigurationError([f"{settings.file}: listen.{key}: {until} {message}" for key, message in problems])
    return replace(
        settings,
        listen=begun.listen,
        admin=begun.admin,
        store=begun.store,
        encryption_keys=begun.encryption_keys,
    )


def needs_restart(settings: Settings, begun: Settings) -> tuple[str, ...]:
    """The sections of the file that say something else than what counts, in its order."""
    changed = {
        "listen": settings.listen != begun.listen,
        "admin": settings.admin != begun.admin,
        "store": (settings.store, settings.encryption_keys) != (begun.store, begun.encryption_keys),
    }
    return tuple(section for section, differs in changed.items() if differs)

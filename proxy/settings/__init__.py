"""The configuration: ``load`` reads and checks a file, all of it at once, and gives frozen ``Settings``."""

from proxy.settings.callers import CallerKeySettings
from proxy.settings.listening import exposed
from proxy.settings.load import idle_patterns, load, matching
from proxy.settings.model import (
    AccessSettings,
    AdminSettings,
    LimitsSettings,
    ListenSettings,
    LogSettings,
    RoutingSettings,
    Settings,
    TenantSettings,
    UpstreamSettings,
)
from proxy.settings.permissions import too_open
from proxy.settings.schema import schema, starter

__all__ = [
    "AccessSettings",
    "AdminSettings",
    "CallerKeySettings",
    "LimitsSettings",
    "ListenSettings",
    "LogSettings",
    "RoutingSettings",
    "Settings",
    "TenantSettings",
    "UpstreamSettings",
    "exposed",
    "idle_patterns",
    "load",
    "matching",
    "schema",
    "starter",
    "too_open",
]

"""The program: the only place that knows every part; builds them from the settings, joins, starts and drains them."""

from proxy.app.lines import Answer, Lines, Supervision, Wish
from proxy.app.parts import client_of, log_in, open_store, token_endpoint, token_source, told
from proxy.app.proxy import Prepared, Proxy
from proxy.oauth.clock import system_clock
from proxy.oauth.source import TokenSource

__all__ = [
    "Answer",
    "Lines",
    "Prepared",
    "Proxy",
    "Supervision",
    "TokenSource",
    "Wish",
    "client_of",
    "log_in",
    "open_store",
    "system_clock",
    "token_endpoint",
    "token_source",
    "told",
]

"""Which requests the admin port answers: those that name it, and no change that a foreign page asks for."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.core.access import Callers, check_host, host_of
from proxy.errors import BadRequest, NotAllowed


def check_name(rules: Callers, hosts: Sequence[str], local_address: str | None) -> str:
    """The one Host value of a request, if it names us.

    The address that the connection came to passes as well: probes and scrapers inside a cluster ask for
    it, and a page that re-binds its name to our address (DNS rebinding) still sends its name.

    :param hosts: the values of all Host fields
    :param local_address: our end of the connection
    :raises BadRequest: there is not exactly one Host (RFC 9112 3.2), or it is no name
    :raises NotAllowed: it is somebody else's name
    """
    if len(hosts) != 1:
        raise BadRequest("A request has exactly one Host field (RFC 9112 3.2).")
    authority = hosts[0].encode("utf-8", "surrogateescape")
    if local_address is None or host_of(authority) != _as_host(local_address):
        check_host(rules, authority)
    return hosts[0]


def check_page(scheme: str, host: str, origins: Sequence[str], sites: Sequence[str]) -> None:
    """Passes a request that changes something, unless a page of another origin makes the browser send it.

    A form POST needs no preflight, so nobody but us stops it (CWE-352).

    :param origins: the values of all Origin fields
    :param sites: the values of all Sec-Fetch-Site fields; ``same-site`` may be another port of this host
    :raises NotAllowed: a foreign page
    """
    own = f"{scheme}://{host}".lower()
    if any(origin.lower() != own for origin in origins):
        raise NotAllowed("Only the pages of the admin port itself may change anything here.")
    if any(site not in ("same-origin", "none") for site in sites):
        raise NotAllowed("Only the pages of the admin port itself may change anything here.")


def _as_host(address: str) -> bytes:
    return (f"[{address}]" if ":" in address else address).lower().encode("utf-8", "surrogateescape")

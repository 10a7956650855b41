"""A Genesys Cloud look-alike for the demo, for trying things out, and for tests.

One port plays login, API, web messaging and CDN for every org, so a tenant's four URLs are all the sandbox's
base URL; the org is known by the client id or the token. It is strict about tokens: they expire by its clock,
can be revoked, and are limited to 300 calls a minute each. Two orgs exist, ``acme`` and ``globex``
(``proxy.sandbox.orgs``), unless ``SandboxOptions.orgs`` names others. Nothing here is a real secret, and
nothing is kept when it stops.

In a program::

    async with Sandbox(SandboxOptions(token_lifetime=2)) as sandbox:
        sandbox.base_url                              # http://127.0.0.1:PORT
        sandbox.faults.set("token_status", 503, count=3, org="acme")
        sandbox.revoke("acme")                        # all its access tokens
        sandbox.ledger.refused()                      # {"expired": 2, "revoked": 1}

Over HTTP, on the same port, in JSON:

=======================================  ==============================================================
``GET /sandbox``                         base URL, clock, orgs with their client ids, the faults there are
``GET /sandbox/ledger?latest=20``        all counts (``Ledger``), and the latest requests in full
``DELETE /sandbox/ledger``               begin counting anew
``GET /sandbox/faults``                  the faults in force
``PUT /sandbox/faults``                  put a list of faults in force, in place of all others
``POST /sandbox/faults``                 add one: ``{"name": …, "value": …, "count": …, "org": …}``
``DELETE /sandbox/faults[/NAME]``        end all, or those of one name
``POST /sandbox/revoke``                 ``{"org": "acme", "refreshTokens": false}`` → ``{"revoked": 1}``
=======================================  ==============================================================

A fault has a ``name`` (``proxy.sandbox.faults.KINDS``) and may have a ``value``, a ``count`` after which it
ends, an ``org`` and, if it concerns tokens, a ``grant``; with none of them it is met by every request.

Login: ``POST /oauth/token`` (all grants; client authentication by Basic, body, or an assertion whose
signature is not checked), ``GET /oauth/authorize`` (consents at once), ``GET /logout``.

API, with an org's token: ``GET|DELETE /api/v2/tokens/me``, ``GET /api/v2/organizations/me``,
``GET /api/v2/users/me``, ``GET|POST /api/v2/messaging/contacts``, ``GET /api/v2/messaging/contacts/{id}``,
``GET /api/v2/flows/datatables/{table}/rows/{row}`` (a slash in ``row`` may be ``/`` or ``%2F``; tells the raw
target), ``GET /api/v2/downloads/{id}`` (redirects elsewhere), and, unlike Genesys Cloud, any method on
``/api/v2/echo…``, which tells what arrived. All else under ``/api/`` is 404.

Guests: ``POST /api/v2/webdeployments/token/oauthcodegrantjwtexchange``, ``POST …/token/refresh``,
``DELETE …/token/revoke``, ``GET /api/v2/webmessaging/messages``, the guests' cobrowse, push device, knowledge
and journey calls, the socket ``/v1?deploymentId=…`` (``configureSession``, ``configureAuthenticatedSession``,
``onMessage``, ``echo``, ``getJwt``, ``closeSession``), and
``/webdeployments/v1/deployments/{id}/config.json``. An org's token is refused on guest calls.

``Sandbox`` joins ``login``, ``api``, ``messaging`` and ``control``, which share one ``Cloud``. Beneath them
``grants``, ``clients``, ``tokens``, ``guests``, ``frames``, ``limits``, ``faults`` and ``ledger`` decide
without sockets or clocks. It shares no code with the proxy that it is there to test.
"""

from proxy.sandbox.faults import KINDS, Fault, Faults
from proxy.sandbox.ledger import Ledger, Outcome, SeenCall, SeenTokenRequest
from proxy.sandbox.options import SandboxOptions
from proxy.sandbox.orgs import ACME, DEFAULT_ORGS, GLOBEX, Client, Org
from proxy.sandbox.server import Sandbox
from proxy.sandbox.tokens import IssuedToken

__all__ = [
    "ACME",
    "DEFAULT_ORGS",
    "GLOBEX",
    "KINDS",
    "Client",
    "Fault",
    "Faults",
    "IssuedToken",
    "Ledger",
    "Org",
    "Outcome",
    "Sandbox",
    "SandboxOptions",
    "SeenCall",
    "SeenTokenRequest",
]

"""A local reverse proxy that keeps Genesys Cloud OAuth tokens fresh.

The architecture
----------------
An SDK points its base URL at this proxy. Each request belongs to one *tenant* (a Genesys Cloud org with
an OAuth client of its own) and leaves for that org's API with the org's access token.

Decisions are pure and stand in ``core``: no await, clock, randomness, file, socket or log; the time is an
argument. Three planes act on them, and none imports another:

``oauth``    the token plane: asks the token endpoint, keeps one token per tenant, in memory and in a store that
             processes share, and refreshes it ahead of expiry; keeps guests' JWTs fresh; takes people's logins
``forward``  the data plane: one coroutine per connection, one straight line per request (``forward.handler``),
             and a short way for requests that wait for nothing but their answer (``forward.shortcut``)
``admin``    the control plane: health, status and metrics on a port of their own

``wire`` is HTTP/1.1 on the event loop, beneath ``forward``, and knows nothing of tokens. ``sandbox`` is a
Genesys look-alike for the demo and the tests. ``traces`` makes OpenTelemetry's spans, where they are asked for.
``settings`` reads the configuration; ``process`` keeps the memory private and takes the files it may open; ``app``
is the only place that knows every part: it builds, joins, starts and drains them; ``cli`` is the command line.

One request, straight through::

    client ─▶ wire.server ─▶ forward.handler
                ├ wire.server    room for one more connection? the idle longest make some
                ├ forward.plan   decided from the head and the rules alone, and remembered for heads that are the same
                │   ├ core.access    may this caller, Host, Origin, method and path pass?
                │   ├ core.routing   target, fields → tenant, what it is for
                │   └ core.fields    end_to_end_request(): hop-by-hop fields go first
                ├ exchange.begin()   room for one more request of this tenant, and of this caller?
         ┌─────▶├ tokens         FRESH: use · STALE: use, refresh behind · EXPIRED: await the one refresh
         │      ├ core.fields    authorize(): the credential comes last
         │      ├ forward.ask    send head and body on a wire.upstream connection; the first bytes of the body are kept
         │      ├ core.replay    401, first attempt, body kept?
         └─ yes ┤ tokens.reject(that token)
                └ no: forward.relay streams the answer, or becomes a wire.tunnel
    any exception ─▶ forward.rescue ─▶ one response, marked as ours (RFC 9209)

Invariants, each with one owner
-------------------------------
* Strip before inject; exactly one Authorization field leaves us: ``core.fields``.
* No token, no request; an expired token is never served: ``oauth.source``.
* A 401 takes *that* token out of use, and no newer one: ``oauth.source``.
* A refresh belongs to its source; callers only wait for it: ``oauth.source``.
* Among processes one asks, by a lease in the store; what the endpoint answers is stored before anybody uses it, and a
  refresh token that was under way when a process died is tried once more and no oftener: ``oauth.line``, ``core.turn``.
* A refresh token has one line, whatever the tenants are called that it is configured for: ``oauth.home``.
* Told to end, it sends nothing more, and waits for what was sent and may be good for one use: ``oauth.line``.
* With several processes, the one that serves nobody uses the refresh tokens, while somebody waits: ``app.lines``.
* A store writes only over what its caller has seen, and never over what can't be read: ``oauth.store``.
* With ``org_id``, no token is used before the API has said whose it is: ``oauth.line``.
* A guest's JWT is kept fresh for whoever shows it, in memory alone: ``oauth.guests``.
* The target leaves as it came, byte for byte: ``core.routing``.
* A failure of our own is never 401: ``forward.rescue``.
* A request gives up its place among those under way however it ends, once: ``forward.exchange``.
* A connection carries nothing from one request to the next, so tenants share them: ``forward.plan``.
* What failed after the head was sent is aborted, not tidied up: ``forward.handler`` and ``forward.relay``.
"""

__version__ = "0.1.0"

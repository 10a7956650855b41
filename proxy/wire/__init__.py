"""HTTP/1.1 on the event loop: message syntax and framing, the listening side, and connections to upstreams.

Knows nothing of tokens, tenants or policies. Every message is parsed whole, refused where RFC 9112 leaves more
than one way to read it, and framed anew for the other side; nothing is copied through unread.

Heads are read by the grammar in ``wire.syntax`` rather than by llhttp through httptools, for what each lets
through. That one refuses methods that it does not know, which a proxy must pass (RFC 9110 9.1), and accepts
``HTTP/2.0``, ``Transfer-Encoding: xchunked, chunked`` and Transfer-Encoding in HTTP/1.0; it parses pipelined
requests before anybody wants them, and can't be told that an answer to HEAD has no body. The cost is 0.4 µs
for a head seen before and 5 µs for a new one, to its 2 µs: ``make bench`` measures both.
"""

"""Random clients and random upstreams on both sides of the data plane, in memory, cut at any byte.

What reaches an upstream is read by h11 and by llhttp, what reaches a client by h11, and what was sent by
``tests.conformance.grammar``: no request and no answer may be there that nobody sent, none may look whole that is
not, nothing may be left when all deadlines have passed, and no exception may escape.

``make fuzz`` goes on for as long as it is told to; the tests beside this play the same few each time.
"""

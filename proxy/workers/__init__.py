"""Several processes on one port: a supervisor, and workers that are replaced when they end.

The supervisor serves no client. It opens the listening sockets, one for each worker on the same port
(SO_REUSEPORT, so that the system spreads connections evenly), starts the workers with them, and keeps them open
for as long as the program runs: a connection that waits in a socket whose worker ended is not reset but accepted
by the successor, and until that is there by the other workers, who have every socket.

A worker is a whole ``app.Proxy`` without an admin port. Supervisor and worker talk over a socket pair that
nobody else has (``channel``): settings and wishes go down, reports come up (``codec``). The settings are read
once, by the supervisor, so that a worker that is started later has the same as those that run; a reload is taken
up by all of them or none. Tokens that cost nothing to ask for again are shared by way of the store; those of refresh
tokens the supervisor asks for (``app.lines``), so that no worker can take one along. A worker that loses its
supervisor ends in order with the tokens it has.

Guests whom one worker has learnt of are told to the others, and to those that start later (``guests``).

``supervisor``  the sockets, the admin port, reload, the end
``slot``        one worker's place: started, watched, replaced
``process``     a worker as its supervisor sees it: asked and told over the channel
``worker``      the other end: a proxy that answers its supervisor
"""

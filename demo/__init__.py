"""A demonstration on real processes: ``python -m demo [folder] [--workers 3]``.

One gateway and a few workers, each a process with one `roletalk.Peer`, over loopback with a
preshared key.  Read in this order:

* `worker`: what a worker offers to others, as roles with handlers;
* `pipeline`, `patterns`, `failover`: what the gateway does with them;
* `__main__`: how it is put together.
"""

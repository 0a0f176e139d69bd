"""The server process of one contender: ``python -m bench.server PEER [tls]``.

PEER is a module of `bench.peers`.  All servers know the commands ``cpu`` and ``settle``, those that can
also ``fan_out``: send messages to `units` listeners for `seconds`; say how many, and when it began.
"""

import sys
from importlib import import_module

import uvloop

if __name__ == "__main__":
    peer = import_module(f"bench.peers.{sys.argv[1]}")
    uvloop.run(peer.serve(tls=True) if sys.argv[2:] == ["tls"] else peer.serve())

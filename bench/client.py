"""The client process of one contender: ``python -m bench.client PEER ADDRESS``.

PEER is a module of `bench.peers`, ADDRESS the JSON that its server printed.  Each answers to those of
these commands that it can do:

- ``requests``: keep `in_flight` of them going for `seconds`; with `timed`, note how long each took
- ``open``: have `count` connections besides its own, with `listening` each with the role "listener"
- ``each``: keep one request going on each of them
- ``messages``: send one-way for `seconds`, then wait until the server has said how many came
- ``arrived``: wait until `count` messages have come to the listeners; say when that was
- ``stream``: chunks of so many bytes for `seconds`, to the server ("up") or from it ("down")
- ``beside``: such a stream, and beside it on the same connection one timed request after the other
"""

import json
import sys
from importlib import import_module

import uvloop

if __name__ == "__main__":
    uvloop.run(import_module(f"bench.peers.{sys.argv[1]}").drive(json.loads(sys.argv[2])))

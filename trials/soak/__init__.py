"""A mesh of peers at work for long, disturbed all the time: nothing may grow, get lost or go wrong.

`__main__` runs it.  `mesh` says who dials whom and holds the processes, of which each is a `node` with
`service` (what its peers serve) and `traffic` (what they ask of the others).  `golang` is the Go peer.
`disturbances` breaks connections and kills processes; `ledger` is where each connection lost has to find
what explains it.  `flatness` tells growth from noise.
"""

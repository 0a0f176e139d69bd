"""The Autobahn test suite against the frame layer, as a server and as a client.

An echo application stands on the `Connection` and the `Gate` that peers stand on.  Cases 12 and 13 are
left out: they test compression, which is never negotiated.
"""

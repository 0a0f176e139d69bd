"""What is measured: a module a contender, each with ``serve()`` and ``drive(address)``.

Both run until standard input ends: `serve` in the server's process, which says at which `address` it
is, `drive` in the client's, which knows the commands of `bench.client`.
"""

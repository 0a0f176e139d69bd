"""The server process of one contender: ``python -m bench.server roletalk|cyecho|uvloop``."""

import sys

import picows
import uvloop

import roletalk

from .bulk import serve_bulk
from .commands import serve_commands
from .measured import KEY
from .reference import load_cyecho
from .streams import serve_streams


async def serve_roletalk() -> None:
    received = 0

    async with roletalk.Peer(name="server") as peer:
        peer.add_key(*KEY)
        role = peer.role("bench")

        @role.on_request("echo")
        def echo(ctx: roletalk.RequestContext) -> object:
            return ctx.data

        @role.on_request("echo_async")
        async def echo_async(ctx: roletalk.RequestContext) -> object:
            return ctx.data

        @role.on_message("count")
        def count(_: roletalk.Context) -> None:
            nonlocal received
            received += 1

        @role.on_request("counted")
        def counted(_: roletalk.RequestContext) -> int:
            nonlocal received
            number, received = received, 0
            return number

        serve_streams(role)
        listener = await peer.listen("127.0.0.1", 0)

        async def port() -> int:
            return int(listener.port)

        await serve_commands({"port": port})


async def serve_cyecho() -> None:
    cyecho = load_cyecho()

    def listener(request: picows.WSUpgradeRequest) -> picows.WSListener:
        kind = cyecho.Counter if request.path == b"/count" else cyecho.Echo
        return kind()  # type: ignore[no-any-return]

    server = await picows.ws_create_server(listener, "127.0.0.1", 0)

    async def port() -> int:
        return int(server.sockets[0].getsockname()[1])

    await serve_commands({"port": port})
    server.close()


async def serve_uvloop() -> None:
    server = await serve_bulk()

    async def port() -> int:
        return int(server.sockets[0].getsockname()[1])

    await serve_commands({"port": port})
    server.close()


if __name__ == "__main__":
    servers = {"roletalk": serve_roletalk, "cyecho": serve_cyecho, "uvloop": serve_uvloop}
    uvloop.run(servers[sys.argv[1]]())

"""websockets, with requests by hand."""

from importlib import import_module
from typing import Any

from bench.commands import serve_commands

from .rpc import Requests, drive_requests


async def serve() -> None:
    server: Any = import_module("websockets.asyncio.server")

    async def echo(socket: Any) -> None:
        async for message in socket:
            await socket.send(message)

    async with server.serve(echo, "127.0.0.1", 0, compression=None) as serving:
        await serve_commands({}, serving.sockets[0].getsockname()[1])


async def drive(port: int) -> None:
    client: Any = import_module("websockets.asyncio.client")

    async def receive(requests: Requests) -> None:
        async for message in socket:
            requests.replied(message)

    async with client.connect(f"ws://127.0.0.1:{port}/", compression=None) as socket:
        await drive_requests(socket.send, receive)

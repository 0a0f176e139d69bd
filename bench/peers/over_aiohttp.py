"""aiohttp's WebSocket, with requests by hand."""

from importlib import import_module
from typing import Any

from bench.commands import serve_commands

from .rpc import Requests, drive_requests

aiohttp: Any = import_module("aiohttp")


async def serve() -> None:
    web: Any = import_module("aiohttp.web")

    async def echo(request: Any) -> Any:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await serve_commands({}, runner.addresses[0][1])
    await runner.cleanup()


async def drive(port: int) -> None:
    async def receive(requests: Requests) -> None:
        async for message in socket:
            requests.replied(message.data)

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{port}/") as socket,
    ):
        await drive_requests(socket.send_bytes, receive)

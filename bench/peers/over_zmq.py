"""ZeroMQ by pyzmq's asyncio sockets, DEALER to ROUTER, with requests by hand."""

import asyncio
from importlib import import_module
from typing import Any

from bench.commands import serve_commands

from .rpc import Requests, drive_requests

zmq: Any = import_module("zmq")
zmq_asyncio: Any = import_module("zmq.asyncio")


async def serve() -> None:
    socket = zmq_asyncio.Context.instance().socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")

    async def echo() -> None:
        while True:
            await socket.send_multipart(await socket.recv_multipart())

    echoing = asyncio.ensure_future(echo())
    await serve_commands({}, port)
    echoing.cancel()
    socket.close(0)


async def drive(port: int) -> None:
    socket = zmq_asyncio.Context.instance().socket(zmq.DEALER)
    socket.connect(f"tcp://127.0.0.1:{port}")

    async def receive(requests: Requests) -> None:
        while True:
            requests.replied(await socket.recv())

    await drive_requests(socket.send, receive)
    socket.close(0)

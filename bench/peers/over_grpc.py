"""grpc.aio, unary calls of bytes: generic handlers, nothing to serialise."""

from importlib import import_module
from typing import Any

from bench.commands import serve_commands

from .rpc import request_command

grpc: Any = import_module("grpc")
aio: Any = import_module("grpc.aio")


async def serve() -> None:
    async def echo(request: bytes, _: Any) -> bytes:
        return request

    server = aio.server()
    handlers = {"echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await serve_commands({}, port)
    await server.stop(None)


async def drive(port: int) -> None:
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await serve_commands(request_command(channel.unary_unary("/bench/echo")))

"""Zenoh, peer to peer: a queryable, and queries whose replies are handed to the event loop."""

import asyncio
import json
import socket
from importlib import import_module
from typing import Any

from bench.commands import serve_commands

from .rpc import request_command

zenoh: Any = import_module("zenoh")

KEY_EXPRESSION = "bench/echo"


def _configured(**endpoints: list[str]) -> Any:
    config = zenoh.Config()
    config.insert_json5("mode", json.dumps("peer"))
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("listen/endpoints", json.dumps(endpoints.get("listen", [])))
    config.insert_json5("connect/endpoints", json.dumps(endpoints.get("connect", [])))
    return config


async def serve() -> None:
    # Nothing tells which port zenoh took, so it is told one that is free.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        locator = f"tcp/127.0.0.1:{probe.getsockname()[1]}"
    with zenoh.open(_configured(listen=[locator])) as session:

        def echo(query: Any) -> None:
            query.reply(KEY_EXPRESSION, query.payload)

        session.declare_queryable(KEY_EXPRESSION, echo)
        await serve_commands({}, locator)


async def drive(locator: str) -> None:
    loop = asyncio.get_running_loop()
    with zenoh.open(_configured(connect=[locator])) as session:
        querier = session.declare_querier(KEY_EXPRESSION)

        async def call(payload: bytes) -> bytes:
            replied: asyncio.Future[Any] = loop.create_future()

            def reply(reply: Any) -> None:
                loop.call_soon_threadsafe(replied.set_result, reply)

            querier.get(reply, payload=payload)
            return bytes((await replied).ok.payload)

        await serve_commands(request_command(call))

"""Requests by hand, over whatever carries messages: eight bytes that tell which, then the payload."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

from bench.callers import check_echo, keep_calling
from bench.commands import Command, serve_commands
from bench.measured import Result, payload_of


class Requests:
    """Who waits for which reply."""

    def __init__(self, send: Callable[[bytes], Awaitable[object]]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}

    async def request(self, payload: bytes) -> bytes:
        number = next(self._numbers).to_bytes(8, "big")
        waiting: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = waiting
        await self._send(number + payload)
        return await waiting

    def replied(self, message: bytes) -> None:
        self._waiting.pop(message[:8]).set_result(message[8:])


def request_command(call: Callable[[bytes], Awaitable[bytes]]) -> dict[str, Command]:
    """The command ``requests``, for one whose requests can be awaited."""

    async def requests(
        event: str, size: int, in_flight: int, seconds: float, timed: bool
    ) -> Result:
        del event  # there is only one handler, that replies at once
        payload = payload_of(size)
        await check_echo(call, payload)
        return await keep_calling([call] * in_flight, payload, seconds, timed=timed)

    return {"requests": requests}


async def drive_requests(
    send: Callable[[bytes], Awaitable[object]], receive: Callable[[Requests], Awaitable[None]]
) -> None:
    """Serve the commands of a client that sends with `send`, and reads replies in `receive`."""
    requests = Requests(send)
    reading = asyncio.ensure_future(receive(requests))
    await serve_commands(request_command(requests.request))
    reading.cancel()

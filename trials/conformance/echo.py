"""What the suite talks to: a connection that sends back whatever it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiofastnet

from roletalk._frame import Connection, ConnectionState
from roletalk._inbound import FrameLimits
from roletalk.gate import Gate

HOST: Final = "127.0.0.1"
INVALID_PAYLOAD: Final = 1007  # RFC 6455, section 7.4.1
UNLIMITED: Final = -1


def _limits() -> FrameLimits:
    limits = FrameLimits(max_message_size=16 << 20)
    # Cases 9.3 and 9.4 cut messages into frames of 64 bytes.
    limits.max_fragments = limits.max_message_size // 64
    return limits


LIMITS: Final = _limits()


class TextConnection(Connection):
    """A connection that takes text as well, and says when it is gone."""

    def __init__(self, limits: FrameLimits = LIMITS, *, is_client: bool) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop, limits, is_client=is_client, takes_text=True)
        self.gone: asyncio.Future[None] = loop.create_future()

    def on_closed(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class Echo(TextConnection):
    """Sends each message back as what it came: text or binary."""

    def on_message(self, message: bytes) -> None:
        if self.is_text:
            try:
                message.decode()
            except UnicodeDecodeError:
                self.close(INVALID_PAYLOAD, "text that is not UTF-8")
                return
        self.send_message(message, self.is_text)


class Listening(TextConnection):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(is_client=True)
        self.told: list[bytes] = []

    def on_message(self, message: bytes) -> None:
        self.told.append(message)


@asynccontextmanager
async def echo_server(limits: FrameLimits = LIMITS) -> AsyncIterator[int]:
    """Serve `Echo` connections; the port."""

    def protocol() -> Gate:
        return Gate(Echo(limits, is_client=False), budget=UNLIMITED)

    server = await aiofastnet.create_server(asyncio.get_running_loop(), protocol, HOST, 0)
    try:
        port: int = server.sockets[0].getsockname()[1]
        yield port
    finally:
        server.close()


async def converse(connection: TextConnection, port: int, target: str) -> None:
    """Connect to `target` and wait until the connection is gone.

    Raises OSError, or what picows makes of a response that upgrades nothing.
    """
    gate = Gate(connection, host=f"{HOST}:{port}", target=target, budget=UNLIMITED)
    await aiofastnet.create_connection(asyncio.get_running_loop(), lambda: gate, HOST, port)
    await gate.wait_upgraded()
    if connection.state == ConnectionState.CONNECTING:
        raise ConnectionError("closed before the upgrade")
    await connection.gone


async def ask(port: int, target: str) -> bytes:
    """What the other side says at `target`, in one message; empty if it says nothing."""
    connection = Listening()
    await converse(connection, port, target)
    return b"".join(connection.told)

"""What a connection had not sent when it ended is counted, and nothing else is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import roletalk
from tests.helpers import eventually, pair, ready, run

LOST = "connections lost with bytes unsent"
MESSAGE = bytes(1 << 20)
ROOM = 64 << 20  # bytes: more than two sockets hold


def link_of(peer: roletalk.Peer) -> Any:
    (link,) = peer.units[0].connections
    return link


@asynccontextmanager
async def stalled(**options: Any) -> AsyncIterator[tuple[roletalk.Peer, roletalk.Peer]]:
    """A server that reads no more, and a client that has written more to it than the system takes."""
    async with pair(high_water=ROOM, **options) as (server, client):
        server.role("r").on_message("e")(lambda ctx: None)
        destination = await ready(client)
        link_of(server).transport.pause_reading()
        for _ in range(32):
            destination.send_nowait("e", MESSAGE)
        await eventually(lambda: client.stats()["unsent_bytes"] > 0)
        yield server, client


def fill(destination: roletalk.Destination) -> None:
    """Write until there is no more room."""
    with suppress(roletalk.WouldBlock):
        while True:
            destination.send_nowait("e", MESSAGE)


def test_a_reset(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with stalled() as (server, client):
            link = link_of(client)
            before = link.unsent_bytes
            link_of(server).abort()  # what it has not read makes a reset of it
            await eventually(lambda: client.stats()["drops"])
            assert client.stats()["drops"] == {LOST: 1}
            assert 0 < link.bytes_lost <= before

    with caplog.at_level(logging.WARNING, "roletalk"):
        run(main())
    assert sum(LOST in message for message in caplog.messages) == 1


def test_a_remote_that_is_given_up() -> None:
    async def main() -> None:
        async with stalled(heartbeat_interval=0.1, heartbeat_timeout=0.1) as (server, client):
            link = link_of(client)
            await eventually(lambda: client.stats()["drops"])
            assert client.stats()["drops"] == {LOST: 1}
            assert link.bytes_lost > 0
            assert LOST not in server.stats()["drops"]

    run(main())


def test_a_close_that_the_remote_does_not_read() -> None:
    async def main() -> None:
        async with stalled() as (_, client):
            link = link_of(client)
            link.limits.close_timeout = 0.05
            before = link.unsent_bytes
            link.close()
            await eventually(lambda: client.stats()["drops"])
            assert client.stats()["drops"] == {LOST: 1}
            assert 0 < link.bytes_lost <= before

    run(main())


@pytest.mark.parametrize("how", ["reset", "closed", "closed here", "unit closed"])
def test_what_was_sent_is_not_counted(how: str) -> None:
    async def main() -> None:
        async with pair(high_water=ROOM) as (server, client):
            got = 0

            @server.role("r").on_message("e")
            def count(ctx: roletalk.MessageContext) -> None:
                nonlocal got
                got += 1

            destination = await ready(client)
            for _ in range(32):
                destination.send_nowait("e", MESSAGE)
            await eventually(lambda: got == 32)
            near, far = link_of(client), link_of(server)
            if how == "reset":
                # More to read, and then none who reads: the system answers with a reset.
                far.transport.pause_reading()
                await destination.send("e", b"")
                far.abort()
            elif how == "closed":
                far.close()
            elif how == "closed here":
                near.close()
            else:
                await client.units[0].close()
            await eventually(lambda: not client.units and not server.units)
            assert near.bytes_lost == far.bytes_lost == 0
            assert client.stats()["drops"] == server.stats()["drops"] == {}

    run(main())


@pytest.mark.parametrize("call", ["send", "request", "readable"])
def test_what_waited_for_room_says_what_it_was(call: str) -> None:
    """The unit is gone before there is room."""

    async def main() -> None:
        async with stalled() as (_, client):
            destination = client.destination("r")
            fill(destination)
            waiting = asyncio.ensure_future(getattr(destination, call)("waited"))
            await asyncio.sleep(0)
            assert not waiting.done()
            link_of(client).abort()
            with pytest.raises((roletalk.NoUnitsError, roletalk.UnitClosedError)) as caught:
                await waiting
            assert (caught.value.role, caught.value.event) == ("r", "waited")

    run(main())

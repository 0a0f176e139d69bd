"""The window of a stream follows what the way to its writer holds."""

from __future__ import annotations

import roletalk
from roletalk.testing import Mesh
from tests.helpers import eventually, ready, run_virtually

DELAY = 0.02  # s, each way
MIB = 1 << 20


def spare(peer: roletalk.Peer) -> int:
    """Bytes of `stream_buffer` that windows of the one unit have not taken."""
    return peer.units[0].streams.spare


def uploads(stream_window: int) -> list[int]:
    """What is spare on the reading side: before, while and after 12 MiB came from far away."""
    seen: list[int] = []

    async def main() -> None:
        async with Mesh() as mesh:
            server, client = (mesh.peer(name, stream_window=stream_window) for name in ("s", "c"))
            mesh.delay(server, client, DELAY)

            @server.role("r").on_readable("up")
            async def up(ctx: roletalk.ReadableContext) -> None:
                async with ctx.accept() as stream:
                    while await stream.read(MIB):
                        seen.append(spare(server))

            await mesh.connect(client, server)
            destination = await ready(client)
            seen.append(spare(server))
            async with destination.writable("up") as stream:
                await stream.write(bytes(12 * MIB))
            await eventually(lambda: server.stats()["streams"] == 0)
            seen.append(spare(server))

    run_virtually(main())
    return seen


def test_a_window_grows_while_credit_is_what_holds_the_writer_up() -> None:
    before, first, *_, last, after = uploads(4 * MIB)
    assert before - first < 256 * 1024
    assert before - last >= 2 * (before - first)
    assert after == before


def test_a_window_does_not_grow_beyond_stream_window() -> None:
    before, *taken, after = uploads(300 * 1024)
    assert max(before - each for each in taken) == (300 - 16) * 1024
    assert after == before

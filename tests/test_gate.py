"""What a peer remembers and bounds before a connection is a unit's."""

from __future__ import annotations

import asyncio

import pytest

import roletalk
from roletalk.address import Address
from roletalk.gate import MAX_RT2_MEMORY, STRANGER_BYTES, _Rt2Memory
from tests import rawclient as raw
from tests.helpers import eventually, peers, run

KEY = "preshared-secret"


def answer_as_legacy(listener: raw.RawListener, unit_id: str) -> None:
    """One connection, taken by a legacy peer that holds the right key."""
    with listener.accept_upgraded() as connection:
        try:
            raw.authenticate(connection, KEY, "k", data=raw.peer_data(unit_id))
            connection.wait_closed()
        except (raw.PeerGone, raw.HandshakeRefused):
            pass


@pytest.mark.parametrize("what", ["address", "unit id"])
def test_whoever_spoke_rt2_is_not_accepted_with_a_legacy_proof(what: str) -> None:
    async def main() -> None:
        async with peers("server", "client", keys={"k": KEY}) as (server, client):
            listener = await server.listen()
            async with client.connect(listener.url):
                pass
            port = listener.port if what == "address" else 0
            unit_id = server.id if what == "unit id" else "f" * 32
            await listener.close()
            with raw.RawListener(port) as legacy:
                answering = asyncio.create_task(
                    asyncio.to_thread(answer_as_legacy, legacy, unit_id)
                )
                with pytest.raises(roletalk.AuthError, match="rt2"):
                    await client.connect(legacy.url)
                await answering
            assert client.units == ()

    run(main())


def test_a_legacy_peer_at_a_new_address_is_accepted() -> None:
    async def main() -> None:
        async with peers("client", keys={"k": KEY}) as (client,):
            with raw.RawListener() as legacy:
                answering = asyncio.create_task(
                    asyncio.to_thread(answer_as_legacy, legacy, "f" * 32)
                )
                async with client.connect(legacy.url) as unit:
                    assert unit.id == "f" * 32
                await answering

    run(main())


def test_the_memory_of_rt2_forgets_the_oldest() -> None:
    memory = _Rt2Memory()
    for number in range(MAX_RT2_MEMORY + 2):
        memory.add(("unit", str(number)))
    assert ("unit", "0") not in memory
    assert ("unit", "1") not in memory
    assert ("unit", "2") in memory
    memory.add(("unit", "2"))
    assert ("unit", "3") in memory


def test_a_stranger_is_cut_off_however_it_frames_what_it_sends() -> None:
    async def main() -> None:
        async with peers("server", keys={"k": KEY}) as (server,):
            listener = await server.listen()

            def flood() -> int | None:
                with raw.dial(listener.port) as connection:
                    try:
                        # The header of one frame as large as the peer would take from a unit.
                        connection.send_raw(raw.frame_header(raw.BINARY, 16 << 20))
                        for _ in range(64):
                            connection.send_raw(bytes(STRANGER_BYTES // 16))
                        return connection.wait_closed()
                    except raw.PeerGone as gone:
                        return gone.code

            assert await asyncio.to_thread(flood) in (1009, None)
            await eventually(lambda: server.stats()["handshakes"] == 0)
            assert server.stats()["handshake_failures"] == 1

    run(main())


@pytest.mark.parametrize("what", ["url", "place"])
def test_a_unit_named_like_an_address_says_nothing_of_that_address(what: str) -> None:
    # Or whoever has the key could lock any legacy peer out, just by its choice of an id.
    async def main() -> None:
        async with peers("server", "liar", keys={"k": KEY}) as (server, liar):
            with raw.RawListener() as legacy:
                url = f"ws://127.0.0.1:{legacy.port}"
                name = url if what == "url" else Address.parse(url).place
                liar.id = name  # type: ignore[misc]  # Final to all but this one
                await liar.connect((await server.listen()).url)
                await eventually(lambda: server.unit(name))
                answering = asyncio.create_task(
                    asyncio.to_thread(answer_as_legacy, legacy, "f" * 32)
                )
                async with server.connect(url, reconnect=False) as unit:
                    assert unit.id == "f" * 32
                await answering

    run(main())

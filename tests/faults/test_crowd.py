"""Many peers whose server dies and comes back."""

from __future__ import annotations

import asyncio

import roletalk
from tests.helpers import eventually, run
from tools.ports import quiet_port

CROWD = 40


def test_all_come_back_past_the_limit_of_strangers() -> None:
    # A server that lets in only four at a time: who is turned away comes again.
    async def main() -> None:
        crowd = [roletalk.Peer(name=f"crowd {number}") for number in range(CROWD)]
        try:
            async with roletalk.Peer(name="first") as first:
                listener = await first.listen(port=quiet_port())
                port = listener.port
                for peer in crowd:
                    await peer.connect(listener.url)
            async with roletalk.Peer(name="second") as second:
                let_in, inside = second._lobby.let_in, second._lobby
                turned_away = 0

                def few(admission: object, host: str) -> bool:
                    nonlocal turned_away
                    if len(inside) > 4:
                        turned_away += 1
                        return False
                    return let_in(admission, host)  # type: ignore[arg-type]

                second._lobby.let_in = few  # type: ignore[method-assign]
                await second.listen("127.0.0.1", port)
                await eventually(lambda: len(second.units) == CROWD)
        finally:
            await asyncio.gather(*(peer.close() for peer in crowd))

    run(main(), debug=False)

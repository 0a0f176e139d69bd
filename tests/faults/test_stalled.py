"""A process that was stopped takes nothing more, and costs what the limits say."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

import pytest

import roletalk
from tests.helpers import eventually, peers, ready, run
from tools.ports import quiet_port
from trials.faults.processes import Process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP"),
]

MESSAGE = bytes(16 * 1024)
HIGH_WATER = 64 * 1024


def test_sends_wait_and_others_are_answered() -> None:
    port = quiet_port()

    async def main() -> None:
        options = {"high_water": HIGH_WATER, "low_water": HIGH_WATER // 4}
        async with (
            peers("server", heartbeat_interval=None, **options) as (server,),
            peers("other") as (other,),
        ):
            server.role("r").on_request("e")(lambda ctx: ctx.data)
            await other.connect((await server.listen()).url)
            await server.connect(f"ws://127.0.0.1:{port}")
            stopped, asking = await ready(server, "work"), await ready(other)
            remote.signal(signal.SIGSTOP)

            async def send_on() -> None:
                while True:
                    await stopped.send("e", MESSAGE)

            sending = [asyncio.create_task(send_on()) for _ in range(10)]
            await eventually(lambda: server.stats()["unsent_bytes"] > HIGH_WATER // 2)
            for _ in range(500):
                stopped.broadcast("e", MESSAGE)
                with suppress(roletalk.WouldBlock):
                    stopped.send_nowait("e", MESSAGE)
                assert server.stats()["unsent_bytes"] <= HIGH_WATER + 2 * len(MESSAGE)
                assert (await asking.request("e", 1)).data == 1
            assert not any(task.done() for task in sending)
            for task in sending:
                task.cancel()
            await asyncio.wait(sending)
            remote.kill()
            await eventually(lambda: stopped.units == ())

    with Process({"listen": [["127.0.0.1", port]]}) as remote:
        remote.wait_for(lambda event: "listening" in event)
        run(main(), debug=False)

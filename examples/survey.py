"""A survey: ask everybody who serves a role, and take the answers as they come.

`survey` yields one thing for each unit: its reply, or the error that it ended with, whose `unit`
says whose it is. So one that is slow or broken costs its own answer and nobody else's, and after
`timeout` seconds all have been heard of.

Look at the order of the lines: it is that of the answers.

Run it with ``python survey.py``.
"""

import asyncio

import roletalk

TEMPERATURES = {"cellar": 12.5, "roof": 31.0, "server room": 24.0}


def serve(peer: roletalk.Peer) -> None:
    sensor = peer.role("sensor")

    @sensor.on_request("temperature")
    async def temperature(ctx: roletalk.RequestContext) -> float:
        if peer.name == "garage":
            raise roletalk.Reject("the probe is unplugged")
        if peer.name == "attic":
            await asyncio.sleep(30.0)  # longer than the survey waits
        await asyncio.sleep(TEMPERATURES.get(peer.name, 0) / 500)
        return TEMPERATURES.get(peer.name, 0.0)


async def main() -> None:
    async with roletalk.Peer(name="monitor") as monitor:
        peers = [roletalk.Peer(name=name) for name in (*TEMPERATURES, "garage", "attic")]
        for peer in peers:
            serve(peer)
            listener = await peer.listen("127.0.0.1", 0)
            await monitor.connect(listener.url)
        sensors = monitor.destination("sensor")

        readings = []
        async for answer in sensors.survey("temperature", timeout=3.0):
            if isinstance(answer, roletalk.RoletalkError):
                assert answer.unit is not None
                why = answer.text if isinstance(answer, roletalk.RemoteError) else answer
                print(f"  {answer.unit.name:<12} {type(answer).__name__}: {why}")
            else:
                readings.append(answer.decode(float))
                print(f"  {answer.unit.name:<12} {readings[-1]} °C")
        print(f"{len(readings)} of {len(peers)} answered, the warmest with {max(readings)} °C")

        for peer in peers:
            await peer.close(timeout=0.1)


if __name__ == "__main__":
    asyncio.run(main())

"""Peers, their connections, units and listeners, figures and errors."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

from typing_extensions import assert_type

import roletalk


def allowed(unit: roletalk.Unit, url: str) -> bool:
    return unit.tags.get("zone") == "a" and url.startswith("wss:")


async def made() -> None:
    async with roletalk.Peer(
        name="worker", tags={"zone": "a"}, request_timeout=None, acquaint_filter=allowed
    ) as peer:
        assert_type(peer, roletalk.Peer)
        assert_type(peer.id, str)
        assert_type(peer.name, str)
        assert_type(peer.tags, Mapping[str, str])
        assert_type(peer.roles, tuple[roletalk.Role, ...])
        assert_type(peer.destinations, tuple[roletalk.Destination, ...])
        assert_type(peer.units, tuple[roletalk.Unit, ...])
        assert_type(peer.listeners, tuple[roletalk.Listener, ...])
        assert_type(peer.unit("id"), roletalk.Unit | None)
        assert_type(peer.role("greeter").active, bool)
        assert_type(peer.destination("greeter").name, str)
        peer.add_key("cluster", roletalk.generate_key(), legacy=False)
        peer.set_tag("zone", None)
        await peer.drain(timeout=None)
        await peer.serve_forever()
    await peer.wait_closed()


async def connected(peer: roletalk.Peer, tls: ssl.SSLContext) -> None:
    unit = await peer.connect("wss://host:1", ssl=tls, retry=True, timeout=5)
    assert_type(unit, roletalk.Unit)
    async with peer.connect("ws://host:1", reconnect=False) as entered:
        assert_type(entered, roletalk.Unit)
    async with unit as again:
        assert_type(again, roletalk.Unit)
    assert_type(
        await asyncio.gather(peer.connect("ws://a:1"), peer.listen()),
        tuple[roletalk.Unit, roletalk.Listener],
    )
    assert_type(unit.meta, Mapping[str, str | int | float | bool])
    assert_type(unit.tags, Mapping[str, str])
    assert_type(unit.roles, frozenset[str])
    assert_type(unit.connected, bool)
    assert_type(unit.connections, tuple[roletalk.Connection, ...])
    assert_type(unit.connections[0].close_code, int)


async def listening(peer: roletalk.Peer, tls: ssl.SSLContext) -> None:
    listener = await peer.listen("0.0.0.0", 9000, ssl=tls)
    assert_type(listener, roletalk.Listener)
    async with peer.listen(path="/run/a.sock") as entered:
        assert_type(entered, roletalk.Listener)
    assert_type(listener.port, int)
    assert_type(listener.url, str)
    assert_type(listener.addresses, tuple[tuple[str, int], ...])
    assert_type(await asyncio.create_task(peer.listen()), roletalk.Listener)


class App:
    """Public names serve as annotations."""

    listener: roletalk.Listener | None = None
    context: roletalk.RequestContext | None = None

    def __init__(self) -> None:
        self.peer: roletalk.Peer = roletalk.singleton(name="app", request_timeout=2)
        self.stats: roletalk.Stats = self.peer.stats()


def figures(peer: roletalk.Peer) -> None:
    stats = peer.stats()
    assert_type(stats, roletalk.Stats)
    assert_type(stats["requests_sent"], int)
    assert_type(stats["loop_lag"], float)
    assert_type(stats["drops"], dict[str, int])


async def errors(to: roletalk.Destination) -> None:
    try:
        await to.request("hello")
    except roletalk.RemoteError as error:
        assert_type(error.text, str)
        assert_type(error.unit, roletalk.Unit | None)
        assert_type(error.role, str | None)
        assert_type(error.event, str | None)
    except roletalk.BadPayload as error:
        assert_type(error.text, str)
        assert_type(error.close_code, int)
    except roletalk.ProtocolError as error:
        assert_type(error.close_code, int)
    except (roletalk.NoUnitsError, roletalk.UnitClosedError, roletalk.WouldBlock) as error:
        assert_type(error.role, str | None)
    timed_out: TimeoutError = roletalk.RequestTimeout()
    lost: ConnectionError = roletalk.UnitClosedError()
    unreachable: OSError = roletalk.ConnectError()
    print(timed_out, lost, unreachable)


async def wrong(peer: roletalk.Peer) -> None:
    roletalk.Peer("worker")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    roletalk.Peer(nome="worker")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    roletalk.Peer(tags={"zone": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    roletalk.singleton(request_timeout="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    peer.name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    peer.units = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    peer.tags["zone"] = "a"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    print(peer.connect("ws://host:1").name)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
    with peer.connect("ws://host:1"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    peer.stats()["no such figure"]  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]
    raise roletalk.RemoteError  # type: ignore[call-arg]  # pyright: ignore[reportGeneralTypeIssues]

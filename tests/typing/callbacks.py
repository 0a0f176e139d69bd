"""Callbacks, sync and async."""

from __future__ import annotations

from typing_extensions import assert_type

import roletalk


def functions(peer: roletalk.Peer, unit: roletalk.Unit) -> None:
    role = peer.role("greeter")
    destination = peer.destination("greeter")

    @peer.on_unit
    def came(unit: roletalk.Unit) -> None: ...

    @peer.on_unit
    async def came_too(unit: roletalk.Unit) -> None: ...

    @peer.on_role
    def made(role: roletalk.Role) -> None: ...

    @role.on_status_change
    async def changed(role: roletalk.Role) -> None: ...

    @destination.on_open
    def opened(destination: roletalk.Destination) -> None: ...

    @destination.on_close
    async def closed(destination: roletalk.Destination) -> None: ...

    @destination.on_unit
    def served(unit: roletalk.Unit) -> None: ...

    @unit.on_close
    async def gone(unit: roletalk.Unit) -> None: ...

    units: list[roletalk.Unit] = []
    peer.on_unit(units.append)
    assert_type(came(unit), None)


def wrong(peer: roletalk.Peer, destination: roletalk.Destination, unit: roletalk.Unit) -> None:
    @peer.on_unit  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def of_a_role(role: roletalk.Role) -> None: ...

    @destination.on_open  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def of_a_unit(unit: roletalk.Unit) -> None: ...

    @unit.on_close  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def of_nothing() -> None: ...

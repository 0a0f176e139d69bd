"""How the tests of this directory connect a peer of ours with a Go one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from roletalk import Peer, Unit
from tests.helpers import run

from .gopeer import GoPeer, eventually

P = ParamSpec("P")

# Of one test; the slowest waits ten seconds for Go's heartbeat.
TEST_TIMEOUT_S = 120.0


def looped(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A plain test function of an async one."""

    @functools.wraps(test)
    def plain(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs), timeout=TEST_TIMEOUT_S)

    return plain


async def accepted(go: GoPeer, unit_id: str) -> None:
    """Wait until Go has taken a connection of that unit, so that it can write to it."""
    await go.event("accepted", unit=unit_id)


async def link(peer: Peer, go: GoPeer, dialler: str, *, reconnect: bool = False) -> Unit:
    """Connect the two, dialled by ``"python"`` or ``"go"``; both know of it when this returns."""
    if dialler == "python":
        unit = await peer.connect(go.url, reconnect=reconnect)
        await accepted(go, peer.id)
        return unit
    listener = await peer.listen("127.0.0.1", 0)
    await go.connect(listener.url, reconnect=reconnect)
    await eventually(lambda: peer.unit(go.id) is not None, "the unit that dialled")
    dialled = peer.unit(go.id)
    assert dialled is not None
    return dialled

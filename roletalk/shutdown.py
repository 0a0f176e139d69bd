"""Draining and closing a peer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ._peer import clock
from ._wire import CloseCode
from .errors import AuthError, UnitClosedError

if TYPE_CHECKING:
    from ._session import Link
    from .peer import Peer

_log = logging.getLogger("roletalk")

CANCEL_GRACE: Final = 1.0  # s
STREAM_GRACE: Final = 0.5  # s for handlers that serve streams, when the peer is closed
HEARD: Final = 0.5  # s, at most, for the units to hear that the roles are withdrawn
CLOSE_GRACE: Final = 0.1  # s for the closing handshakes, however late it is
SENT_POLL: Final = 0.005  # s


class Shutdown:
    """The end of a peer: once begun it is never undone."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._task: asyncio.Task[None] | None = None
        # A handler or callback may be the one that closes the peer: it is not waited for.
        self._callers: set[asyncio.Task[Any]] = set()
        self.begun: bool = False
        self.done: asyncio.Event = asyncio.Event()

    async def drain(self, timeout: float | None) -> None:
        with self._called():
            await self._drain(_deadline(timeout), cut_streams=False)

    async def close(self, timeout: float | None) -> None:
        deadline = _deadline(timeout)
        with self._called():
            # One that was cancelled, as programs do with all tasks at their end, is begun again.
            if self._task is None or (self._task.done() and not self.done.is_set()):
                self._task = self._peer.loop.create_task(
                    self._close(deadline), name="roletalk close"
                )
            await asyncio.shield(self._task)

    def nothing_to_close(self) -> None:
        """The peer was never used in a loop."""
        self.begun = True
        self.done.set()

    @contextmanager
    def _called(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None or task in self._callers:
            yield
            return
        self._callers.add(task)
        try:
            yield
        finally:
            self._callers.discard(task)

    async def _drain(self, deadline: float | None, *, cut_streams: bool) -> None:
        peer = self._peer
        if not self.begun:
            self.begun = True
            peer._announcer.changed()
            peer._acquaintances.close()
        for listener in peer.listeners:
            await listener.close()
        for dialer in tuple(peer._dialers):
            dialer.stop()
            await dialer.wait_stopped(_left(deadline))
        await self._withdrawn(deadline)
        if cut_streams:
            await self._streams_done(deadline)
        await self._handlers_done(deadline)
        await self._all_sent(deadline)

    async def _withdrawn(self, deadline: float | None) -> None:
        """What the units sent before they heard that there are no roles any more is served yet."""
        roles = [role for role in self._peer.roles if role.is_active]
        if not roles:
            return
        until = clock() + HEARD
        if deadline is not None:
            until = min(until, deadline)
        try:
            # The announcement leaves before the probes.
            await asyncio.sleep(0)
            units = self._peer.units
            await _heard([link for unit in units for link in unit.connections], until)
            # A unit heard it by one of its connections: on the others it may have sent until then.
            several = [unit.connections for unit in units if len(unit.connections) > 1]
            await _heard([link for links in several for link in links], until)
        finally:
            for role in roles:
                role.is_active = False

    async def _handlers_done(self, deadline: float | None) -> None:
        await self._done(self._peer._units.running_handlers(), deadline)

    async def _streams_done(self, deadline: float | None) -> None:
        """Some streams never end by themselves: they do not hold up the closing of their peer."""
        grace = clock() + STREAM_GRACE
        tasks: set[asyncio.Task[Any]] = set()
        for unit in self._peer.units:
            tasks.update(*(link.stream_tasks for link in unit.connections))
        await self._done(tasks, grace if deadline is None else min(grace, deadline))

    async def _done(self, tasks: set[asyncio.Task[Any]], deadline: float | None) -> None:
        tasks = tasks - self._callers
        if tasks:
            await asyncio.wait(tasks, timeout=_left(deadline))
        late = {task for task in tasks if not task.done()}
        if late:
            _log.warning(
                "%d handlers of peer %r still ran when the time to close it was over, and are cancelled:"
                " drain(timeout=...) or close(timeout=...) allow more",
                len(late),
                self._peer.name,
            )
            await _cancel(late)

    async def _all_sent(self, deadline: float | None) -> None:
        while any(link.unsent_bytes for unit in self._peer.units for link in unit.connections):
            if deadline is not None and clock() >= deadline:
                return
            await asyncio.sleep(SENT_POLL)

    async def _close(self, deadline: float | None) -> None:
        peer = self._peer
        await self._drain(deadline, cut_streams=True)

        def error(role: str, event: str) -> UnitClosedError:
            closed = UnitClosedError(
                f"this peer was closed before {event!r} of role {role!r} was answered;"
                " it may have been executed"
            )
            closed.role, closed.event = role, event
            return closed

        units = peer.units
        peer.fail_pending((unit.calls for unit in units), error)
        peer._lobby.clear(AuthError("this peer was closed"))
        for unit in units:
            for link in unit.connections:
                link.close(CloseCode.MANUAL, "closed on purpose")
        gone = [asyncio.ensure_future(unit._lost.wait()) for unit in units]
        if gone:
            left = _left(deadline)
            await asyncio.wait(gone, timeout=None if left is None else max(left, CLOSE_GRACE))
            for unit in units:
                for link in unit.connections:
                    link.abort()
            await asyncio.gather(*gone)
        peer._heartbeat.stop()
        peer.stop_sweeping()
        await _cancel(peer._callback_tasks - self._callers)
        self.done.set()
        for destination in peer.destinations:
            destination._peer_closed()


async def _heard(links: list[Link], until: float) -> None:
    if links:
        await asyncio.wait([link.probe() for link in links], timeout=_left(until))


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel, and wait a little for those that take their time over it."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_GRACE)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else clock() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - clock(), 0.0)

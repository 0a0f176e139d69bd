"""Peers that are connected without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

from roletalk import Peer, Unit
from roletalk.network import NETWORK

from ._faults import Faults, Node, Nodes, Place
from ._network import LOCALHOST, LOCALHOST_ELSEWHERE, Hub, Link, MemoryNetwork, shown

POLL: Final = 0.001  # s
TURNS: Final = 20  # of the loop, until what was closed has to be gone


class Mesh:
    """An in-memory network of peers, for tests. An async context manager: leaving it closes its peers.

    Peers get onto it by `peer`, or by being made inside of `installed`, and are used as ever:
    everything above the socket is what runs in production.  Nothing is encrypted: ``wss://`` and
    `ssl` have to fit each other, and no certificate is looked at.

    capacity: bytes that a connection takes each way before its sender has to wait, in place of a
    system's socket buffers.  seed: of the jitter of `delay`.

    A mesh belongs to the event loop in which it is first used.  In an ``async with`` it raises
    `AssertionError` at the end when something of its peers is left: handlers that do not let
    themselves be cancelled, connections, names that are listened on.
    """

    def __init__(self, *, capacity: int = 256 * 1024, seed: int = 0) -> None:
        if capacity < 1:
            raise ValueError("capacity is at least 1 byte")
        self._faults = Faults(seed)
        self._hub = Hub(capacity, self._faults)
        self._networks: list[MemoryNetwork] = []

    # -- peers

    @property
    def peers(self) -> tuple[Peer, ...]:
        """All peers that were made on it, in that order, closed ones too."""
        return tuple(network.place.peer for network in self._networks)

    def peer(self, name: str = "", *, host: str = LOCALHOST, **options: Any) -> Peer:
        """A new peer on `host` of this mesh, made with `options` as by `roletalk.Peer`.

        Loopback and wildcard addresses mean the peer's own host, to listen on and to dial.  Peers on
        other hosts find ``localhost`` as ``localhost.test``.
        """
        with self.installed(host):
            return Peer(name=name, **options)

    @contextmanager
    def installed(self, host: str = LOCALHOST) -> Iterator[Mesh]:
        """Have every `roletalk.Peer` that is made inside come onto `host` of this mesh.

        It holds for the code inside and for the tasks that are started there, however long they run
        (it is a context variable); not for other threads.
        """

        def network(peer: Peer) -> MemoryNetwork:
            made = MemoryNetwork(self._hub, peer, host.lower())
            self._networks.append(made)
            return made

        token = NETWORK.set(network)
        try:
            yield self
        finally:
            NETWORK.reset(token)

    async def connect(self, a: Peer, b: Peer, **options: Any) -> Unit:
        """Have `a` dial `b`, with `options` as of `Peer.connect`; gives the unit that `a` has of it.

        `b` listens from then on, if it does not yet.  When this returns both have a unit of the
        other.  Raises what `Peer.connect` raises.
        """
        place, there = self._place(a), self._place(b)
        if not any(each.place is there for each in self._hub.listening.values()):
            await b.listen(there.host, 0)
        found = next(each for each in self._hub.listening.values() if each.place is there)
        if isinstance(found.name, str):
            url = f"ws+unix://{found.name}"
        else:
            host, port = found.addresses[0]
            if there.host == LOCALHOST != place.host:
                host = LOCALHOST_ELSEWHERE
            url = f"{'wss' if found.secure else 'ws'}://{host}:{port}"
        unit: Unit = await a.connect(url, **options)
        while b.unit(a.id) is None and unit.connected:  # noqa: ASYNC110  # no callback is left on b
            await asyncio.sleep(POLL)
        return unit

    def _place(self, peer: Peer) -> Place:
        for network in self._networks:
            if network.place.peer is peer:
                return network.place
        raise ValueError(f"{peer!r} is not on this mesh")

    # -- faults

    def delay(
        self, a: Node, b: Node, seconds: float, *, jitter: float = 0.0, one_way: bool = False
    ) -> None:
        """Let what `a` and `b` send each other take `seconds` longer, and up to `jitter` more.

        Each way, so that a round trip takes twice that; with `one_way` only from `a` to `b`.  It
        counts for what is written from now on, and for connections that are made; 0 ends it.  Bytes
        stay in order.  `a` and `b` are peers, or names of hosts.  Raises `ValueError` below 0.
        """
        if not (0 <= seconds < float("inf") and 0 <= jitter < float("inf")):
            raise ValueError("seconds and jitter are finite and not negative")
        for source, target in _directions(a, b, one_way):
            self._faults.add_delay(source, target, seconds, jitter)

    def cut(self, a: Node, b: Node) -> int:
        """Break all connections between `a` and `b`; both ends are told, and may dial again.

        What was on its way is lost.  Gives the number of connections.
        """
        links = self._between(a, b)
        for link in links:
            for end in link.ends:
                end.cut()
        return len(links)

    def drop(self, a: Node, b: Node, *, one_way: bool = False) -> int:
        """Let the connections there are between `a` and `b` swallow everything, for ever.

        Neither end is told, as when a cable is pulled or a firewall forgets: only a heartbeat or a
        timeout finds out.  New connections are not concerned.  With `one_way` only what `a` sends to
        `b` is swallowed.  Gives the number of connections.
        """
        links = self._between(a, b)
        for link in links:
            for wire, source in zip(link.wires, (link.source, link.target), strict=True):
                wire.is_dead = wire.is_dead or not one_way or source in Nodes(a)
        return len(links)

    def partition(
        self, a: Node | Iterable[Node], b: Node | Iterable[Node], *, one_way: bool = False
    ) -> None:
        """Let nothing pass between the peers or hosts `a` and those of `b`, until `heal`.

        Connections stay and what is written waits, as TCP would send it again; new ones are neither
        made nor refused.  With `one_way` only what `a` sends to `b` is held, but no new connection
        is made either.
        """
        for source, target in _directions(a, b, one_way):
            self._faults.add_partition(source, target)

    def heal(self) -> None:
        """End all partitions: what was held arrives, where both ends still have the connection."""
        self._faults.heal()
        self._hub.wake()

    def _between(self, a: Node, b: Node) -> list[Link]:
        ours, theirs = Nodes(a), Nodes(b)
        return [
            link
            for link in self._hub.links
            if (link.source in ours and link.target in theirs)
            or (link.source in theirs and link.target in ours)
        ]

    # -- the end

    async def close(self) -> None:
        """End all faults and close all peers.  Connections that `drop` took are cut first.

        Raises `AssertionError` when something of the peers is left afterwards.
        """
        self._faults.clear()
        for link in tuple(self._hub.links):
            if any(wire.is_dead for wire in link.wires):
                for end in link.ends:
                    end.cut()
            for wire in link.wires:
                wire.hurry()
        self._hub.wake()
        await asyncio.gather(*(peer.close() for peer in self.peers))
        for _ in range(TURNS):
            if not self._left():
                return
            await asyncio.sleep(0)
        raise AssertionError(f"left behind on the mesh: {'; '.join(self._left())}")

    def _left(self) -> list[str]:
        left = [f"{end!r}" for link in self._hub.links for end in link.ends if not end.is_lost]
        left += [f"a listener on {shown(name)}" for name in self._hub.listening]
        for peer in self.peers:
            tasks = peer._units.running_handlers() | peer._callback_tasks
            left += [f"{task!r} of peer {peer.name!r}" for task in tasks]
        return left

    async def __aenter__(self) -> Mesh:
        self._hub.bind()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except AssertionError:
            # What is left is of no interest beside what went wrong.
            if exc is None:
                raise

    def __repr__(self) -> str:
        return f"<Mesh peers={len(self._networks)} connections={len(self._hub.links)}>"


def _directions(
    a: Node | Iterable[Node], b: Node | Iterable[Node], one_way: bool
) -> tuple[tuple[Nodes, Nodes], ...]:
    there = (Nodes(a), Nodes(b))
    return (there,) if one_way else (there, there[::-1])

"""What is wrong with the links of a mesh."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from roletalk import Peer

Node = Peer | str
"""A peer, or whatever peers are on a host of that name."""


@dataclass(frozen=True)
class Place:
    """Where one end of a connection is."""

    peer: Peer
    host: str


class Nodes:
    """Some peers and hosts."""

    def __init__(self, nodes: Node | Iterable[Node]) -> None:
        named: tuple[object, ...]
        try:
            named = (nodes,) if isinstance(nodes, (Peer, str)) else tuple(nodes)
        except TypeError:
            named = (nodes,)
        for node in named:
            if not isinstance(node, (Peer, str)):
                raise TypeError(f"a peer or the name of a host, not {type(node).__name__}")
        self._peers = {id(node) for node in named if isinstance(node, Peer)}
        self._hosts = {node.lower() for node in named if isinstance(node, str)}
        # An id stands for a peer only as long as that lives.
        self._named = named

    def __contains__(self, place: object) -> bool:
        return isinstance(place, Place) and (
            id(place.peer) in self._peers or place.host in self._hosts
        )


@dataclass(frozen=True)
class _Delay:
    source: Nodes
    target: Nodes
    seconds: float
    jitter: float


class Faults:
    """The delays and partitions there are now; each for one direction.

    Of several delays for one direction the latest counts.
    """

    def __init__(self, seed: int) -> None:
        self._random: Final = Random(seed)
        self._delays: list[_Delay] = []
        self._cuts: list[tuple[Nodes, Nodes]] = []

    def add_delay(self, source: Nodes, target: Nodes, seconds: float, jitter: float) -> None:
        self._delays.append(_Delay(source, target, seconds, jitter))

    def add_partition(self, source: Nodes, target: Nodes) -> None:
        self._cuts.append((source, target))

    def heal(self) -> None:
        self._cuts.clear()

    def clear(self) -> None:
        self._cuts.clear()
        self._delays.clear()

    def delay(self, source: Place, target: Place) -> float:
        """Seconds that what is written now takes on its way."""
        for each in reversed(self._delays):
            if source in each.source and target in each.target:
                return each.seconds + self._random.random() * each.jitter
        return 0.0

    def is_blocked(self, source: Place, target: Place) -> bool:
        return any(source in sources and target in targets for sources, targets in self._cuts)

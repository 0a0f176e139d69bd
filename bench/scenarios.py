"""What is measured: for each scenario, who does what in a round, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .results import Heading

RPC_PEERS = ("aiohttp", "websockets", "pyzmq", "grpc", "zenoh")


@dataclass(frozen=True)
class Turn:
    """What one contender is asked in a round."""

    label: str
    contender: str
    command: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Scenario:
    """The first turn is the one that the others are compared with."""

    about: str
    turns: tuple[Turn, ...]
    unit: str = "requests"
    ratios: tuple[str, ...] = ("rate", "CPU")
    curve: bool = False
    one_core: bool = False
    connections: Mapping[str, Any] = field(default_factory=lambda: {"count": 0})  # of ``open``
    most_rounds: int | None = None
    warm_up: bool = True
    quick: bool = False  # whether it belongs to the quick run, with QUICK_CONTENDERS alone

    @property
    def heading(self) -> Heading:
        labels = tuple(turn.label for turn in self.turns)
        return Heading(self.about, labels, self.unit, self.ratios, self.curve)

    def rounds_of(self, rounds: int) -> int:
        return rounds if self.most_rounds is None else min(rounds, self.most_rounds)


QUICK_CONTENDERS = ("roletalk", "cyecho", "uvloop", "go", "go, all cores")


def taking_turns(
    others: tuple[str, ...], command: str, arguments: Mapping[str, Any]
) -> tuple[Turn, ...]:
    """Ours and `others`, asked for the same."""
    ours = Turn("ours", "roletalk", command, arguments)
    return (ours, *(Turn(other, other, command, arguments) for other in others))


def requests(event: str, in_flight: int, *, size: int = 32, timed: bool = False) -> dict[str, Any]:
    return {"event": event, "size": size, "in_flight": in_flight, "timed": timed}


def sequential(
    about: str, *others: str, event: str = "echo", one_core: bool = False, quick: bool = False
) -> Scenario:
    return Scenario(
        f"one request of 32 B after the other, {about}",
        taking_turns(others, "requests", requests(event, 1, timed=True)),
        ratios=("p50", "p99", "CPU"),
        curve=True,
        one_core=one_core,
        quick=quick,
    )


def in_flight(
    number: int, *others: str, event: str = "echo", size: int = 32, quick: bool = False
) -> Scenario:
    handler = "async" if event == "echo_async" else "sync"
    bytes_ = f"{size} B" if size < 1024 else f"{size // 1024} KiB"
    turns = taking_turns(others, "requests", requests(event, number, size=size))
    about = f"{number} requests of {bytes_} in flight on one connection, {handler} handler"
    return Scenario(about, turns, quick=quick)


def batched(scenario: Scenario) -> Scenario:
    """With one more turn, after that of uvloop: as many messages in a write as there are."""
    turns = list(scenario.turns)
    plain = next(turn for turn in turns if turn.label == "uvloop")
    more = replace(plain, label="uvloop batched", arguments={**plain.arguments, "batched": True})
    turns.insert(turns.index(plain) + 1, more)
    return replace(scenario, turns=tuple(turns))


def one_way(size: int, *others: str, quick: bool = False) -> Scenario:
    bytes_ = f"{size} B" if size < 1024 else f"{size // 1024} KiB"
    return Scenario(
        f"one-way messages of {bytes_}, counted where they arrive",
        taking_turns(others, "messages", {"size": size}),
        unit="messages",
        quick=quick,
    )


def stream(direction: str, kib: int, *, quick: bool = False) -> Scenario:
    way = "client to server" if direction == "up" else "server to client"
    return Scenario(
        f"a stream of {kib} KiB chunks, {way}, counted where it is read",
        taking_turns(
            ("uvloop", "go", "go, all cores") if kib == 64 else ("uvloop", "go"),
            "stream",
            {"direction": direction, "chunk": kib * 1024},
        ),
        unit="MB",
        quick=quick,
    )


def under_bulk(direction: str) -> Scenario:
    way = "client to server" if direction == "up" else "server to client"
    bulk = {"event": "echo", "size": 32, "direction": direction, "chunk": 64 * 1024}
    turns = (
        Turn("with", "roletalk", "beside", bulk),
        Turn("without", "roletalk", "requests", requests("echo", 1, timed=True)),
    )
    about = f"one request after the other, with and without a stream, {way}, on its connection"
    return Scenario(about, turns, ratios=("p50", "p99"), curve=True, quick=True)


def fan_out(units: int) -> Scenario:
    return Scenario(
        f"messages of 32 B from the server to {units:,} units, counted where they arrive",
        taking_turns(("cyecho",), "fan_out", {"units": units, "size": 32}),
        unit="messages",
        connections={"count": units, "listening": True},
    )


def over_tls(scenario: Scenario) -> Scenario:
    turns = tuple(replace(turn, contender=f"{turn.contender} tls") for turn in scenario.turns)
    return replace(scenario, about=f"{scenario.about}, over TLS", turns=turns)


CONNECTIONS_64 = Scenario(
    "64 connections with one request of 32 B in flight on each",
    taking_turns(("cyecho", "go"), "each", {"event": "echo", "size": 32}),
    connections={"count": 64},
    quick=True,
)

MEMORY = Scenario(
    "resident memory on the server for each idle, authenticated connection (cyecho's has no peers)",
    taking_turns(("cyecho", "go"), "memory", {"count": 400}),
    unit="",
    ratios=("memory",),
    most_rounds=2,
    warm_up=False,
    quick=True,
)

SCENARIOS: dict[str, Scenario] = {
    "sequential": sequential(
        "both sides on one core",
        *("cyecho", "uvloop", "go", "ours to go", "ours to node", *RPC_PEERS),
        one_core=True,
        quick=True,
    ),
    "sequential async": sequential(
        "both sides on one core, async handler", "cyecho", event="echo_async", one_core=True
    ),
    "sequential 2 cores": sequential("a core each", "cyecho", "uvloop", "go", "go, all cores"),
    "p64": batched(
        in_flight(
            64,
            *("cyecho", "uvloop", "go", "go, all cores", "ours to go", "ours to node", *RPC_PEERS),
            quick=True,
        )
    ),
    "p64 async": in_flight(64, "cyecho", event="echo_async", quick=True),
    "p256": batched(in_flight(256, "cyecho", "uvloop", "go", "ours to go", *RPC_PEERS)),
    "p256 async": in_flight(256, "cyecho", event="echo_async", quick=True),
    "p64 1 KiB": in_flight(64, "cyecho", "uvloop", "go", size=1024),
    "p64 16 KiB": in_flight(64, "cyecho", "uvloop", "go", size=16 * 1024),
    "one-way": one_way(
        32, "cyecho", "uvloop", "go", "go, all cores", "ours to go", "ours to node", quick=True
    ),
    "one-way 1 KiB": one_way(1024, "cyecho", "uvloop", "go", "ours to go"),
    "stream up": stream("up", 64, quick=True),
    "stream down": stream("down", 64, quick=True),
    "stream up 16": stream("up", 16),
    "stream down 16": stream("down", 16),
    "stream up 256": stream("up", 256),
    "stream down 256": stream("down", 256),
    "under bulk up": under_bulk("up"),
    "under bulk down": under_bulk("down"),
    "64 connections": CONNECTIONS_64,
    "fan-out 100": fan_out(100),
    "fan-out 1000": fan_out(1000),
    "sequential tls": over_tls(sequential("both sides on one core", "cyecho", "go", one_core=True)),
    "p64 tls": over_tls(in_flight(64, "cyecho", "go")),
    "memory": MEMORY,
}


def chosen(quick: bool) -> dict[str, Scenario]:
    """All of them; or those of the quick run, with only what everybody has installed."""
    if not quick:
        return SCENARIOS
    return {
        name: replace(
            scenario,
            turns=tuple(turn for turn in scenario.turns if turn.contender in QUICK_CONTENDERS),
        )
        for name, scenario in SCENARIOS.items()
        if scenario.quick
    }

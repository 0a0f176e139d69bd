"""What is measured: for each scenario, who does what in a round, one after the other."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """What one contender is asked in a round."""

    label: str
    contender: str
    command: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """The first turn is the one that the others are compared with."""

    about: str
    turns: tuple[Turn, ...]
    unit: str = ""  # of what is counted: requests or messages
    ratios: tuple[str, ...] = ("rate", "p50", "CPU")  # of those that `report` knows
    one_core: bool = False


def beside_cyecho(
    about: str, command: str, arguments: dict[str, Any], *, one_core: bool = False
) -> Scenario:
    turns = (
        Turn("ours", "roletalk", command, arguments),
        Turn("cyecho", "cyecho", command, arguments),
    )
    return Scenario(about, turns, one_core=one_core)


def requests(event: str, in_flight: int, *, timed: bool = False) -> dict[str, Any]:
    return {"event": event, "in_flight": in_flight, "timed": timed}


def stream(direction: str, kib: int) -> Scenario:
    arguments = {"direction": direction, "chunk": kib * 1024}
    way = "client to server" if direction == "up" else "server to client"
    turns = (
        Turn("ours", "roletalk", "stream", arguments),
        Turn("uvloop", "uvloop", "stream", arguments),
        Turn("go", "go", "stream", arguments),
    )
    about = f"a stream of {kib} KiB chunks, {way}, counted where it is read (go: on all cores)"
    return Scenario(about, turns, unit="MB", ratios=("rate", "CPU"))


def under_bulk(direction: str) -> Scenario:
    way = "client to server" if direction == "up" else "server to client"
    bulk = {"event": "echo", "direction": direction, "chunk": 64 * 1024}
    turns = (
        Turn("with", "roletalk", "beside", bulk),
        Turn("without", "roletalk", "requests", requests("echo", 1, timed=True)),
    )
    about = f"one request after the other, with and without a stream, {way}, on its connection"
    return Scenario(about, turns, ratios=("p50", "p99"))


# More of them go here: the Go peer's requests, many connections, memory.
SCENARIOS = {
    "p64": beside_cyecho("64 requests in flight, sync handler", "requests", requests("echo", 64)),
    "p64 async": beside_cyecho(
        "64 requests in flight, async handler", "requests", requests("echo_async", 64)
    ),
    "p256": beside_cyecho(
        "256 requests in flight, sync handler", "requests", requests("echo", 256)
    ),
    "p256 async": beside_cyecho(
        "256 requests in flight, async handler", "requests", requests("echo_async", 256)
    ),
    "sequential": beside_cyecho(
        "one request after the other, both sides on one core",
        "requests",
        requests("echo", 1, timed=True),
        one_core=True,
    ),
    "one-way": beside_cyecho("messages of 32 B, counted where they arrive", "messages", {}),
    "stream up": stream("up", 64),
    "stream down": stream("down", 64),
    "stream up 16": stream("up", 16),
    "stream down 16": stream("down", 16),
    "stream up 256": stream("up", 256),
    "stream down 256": stream("down", 256),
    "under bulk up": under_bulk("up"),
    "under bulk down": under_bulk("down"),
}

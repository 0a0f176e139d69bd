"""The pairs of processes that are measured, each started when it is first needed.

``ROLETALK_BENCH_NODE`` in the environment names a peer of another implementation, a command or a .js
file for ``node``, to measure our client with.  It is started with no arguments, listens on 127.0.0.1
with the key of `measured`, prints its port on a line of its own and ends with its standard input.  Its
role "bench" answers the request "echo" with what came, and "counted" with the number of messages
"count" that have come so far.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType, TracebackType
from typing import Any

from .commands import Answer, Broken, Child, Unknown
from .gopeer import NoGoPeer, build_go_peer
from .reference import build_cyecho

NODE_VARIABLE = "ROLETALK_BENCH_NODE"

START_SECONDS = 20.0
PATIENCE_SECONDS = 20.0  # beyond the time that a command was given
OPEN_SECONDS = 120.0


NO_CONNECTIONS: Mapping[str, Any] = MappingProxyType({"count": 0})


class Unavailable(Exception):
    """A contender cannot run here, or not do what it is asked; the text says why."""


@dataclass(frozen=True)
class Contender:
    """What the two sides are: modules of `bench.peers`, or "go" or "node"."""

    server: str
    client: str
    needs: tuple[str, ...] = ()  # modules that are not always installed
    tls: bool = False
    pinned: bool = True  # one core a side, or one for both; otherwise both are free to use all

    def commands(self) -> tuple[list[str], list[str]]:
        """How server and client are started, the client but for the address; `Unavailable`."""
        for module in self.needs:
            if find_spec(module) is None:
                raise Unavailable(f"{module} is not installed")
        if "cyecho" in (self.server, self.client):
            try:
                build_cyecho()
            except Exception as error:  # whatever it is, the others can be measured
                raise Unavailable(f"cyecho does not build: {error}") from error
        return self._command(self.server, "server"), self._command(self.client, "client")

    def _command(self, side: str, part: str) -> list[str]:
        tls = ["tls"] if self.tls and part == "server" else []
        if side == "go":
            try:
                return [build_go_peer(), part, *tls]
            except (NoGoPeer, RuntimeError) as error:
                raise Unavailable(str(error)) from error
        if side == "node":
            if not (words := shlex.split(os.environ.get(NODE_VARIABLE, ""))):
                raise Unavailable(f"{NODE_VARIABLE} names no peer")
            return words if not words[0].endswith(".js") else ["node", *words]
        return [sys.executable, "-m", f"bench.{part}", side, *tls]


CONTENDERS = {
    "roletalk": Contender("ours", "ours"),
    "roletalk tls": Contender("ours", "ours", needs=("trustme",), tls=True),
    "cyecho": Contender("cyecho", "cyecho"),
    "cyecho tls": Contender("cyecho", "cyecho", needs=("trustme",), tls=True),
    "uvloop": Contender("raw", "raw"),
    "go": Contender("go", "go"),
    "go, all cores": Contender("go", "go", pinned=False),
    "go tls": Contender("go", "go", tls=True),
    "ours to go": Contender("go", "ours"),
    "ours to node": Contender("node", "ours"),
    "aiohttp": Contender("over_aiohttp", "over_aiohttp", needs=("aiohttp",)),
    "websockets": Contender("over_websockets", "over_websockets", needs=("websockets",)),
    "pyzmq": Contender("over_zmq", "over_zmq", needs=("zmq",)),
    "grpc": Contender("over_grpc", "over_grpc", needs=("grpc",)),
    "zenoh": Contender("over_zenoh", "over_zenoh", needs=("zenoh",)),
}


class Pair:
    """The two processes of a contender, running.  Raises `Unavailable`, `Broken`."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._opened = NO_CONNECTIONS
        self._one_core: bool | None = None
        server, client = contender.commands()
        # A Go process is kept on one core from outside; one thread at a time is what suits that best.
        environment = {"GOMAXPROCS": "1"} if contender.pinned else {}
        self.server = Child("its server", server, environment, start_seconds=START_SECONDS)
        try:
            client.append(json.dumps(self.server.greeting))
            self.client = Child("its client", client, environment, start_seconds=START_SECONDS)
        except Broken:
            self.server.end()
            raise

    def prepare(self, *, one_core: bool, connections: Mapping[str, Any]) -> None:
        """Have the processes where they belong, and so many connections open.

        Raises `Broken`, `Unknown`.
        """
        if self._one_core is not one_core:
            self.server.pin(0 if self.contender.pinned else None)
            self.client.pin((0 if one_core else 1) if self.contender.pinned else None)
            self._one_core = one_core
        if connections != self._opened:
            self.client.ask("open", within=OPEN_SECONDS, **connections)
            self._opened = connections

    def ask(self, command: str, seconds: float, arguments: Mapping[str, Any]) -> Answer:
        """Of the client, for so many seconds.  Raises `Broken`, `Unknown`."""
        within = seconds + PATIENCE_SECONDS
        return self.client.ask(command, within=within, seconds=seconds, **arguments)

    def server_cpu(self) -> float | None:
        """Seconds of CPU that it has used, None if it does not say.  Raises `Broken`."""
        if self.contender.server == "node":
            return None
        return float(self.server.ask("cpu", within=PATIENCE_SECONDS).value)

    def client_cpu(self) -> float:
        return float(self.client.ask("cpu", within=PATIENCE_SECONDS).value)

    def end(self) -> None:
        self.client.end()
        self.server.end()

    def kill(self) -> None:
        """End them without the goodbyes of hundreds of connections."""
        self.client.kill()
        self.server.kill()


class Contenders:
    """All of them, by name.  Leaving the block ends their processes."""

    def __init__(self) -> None:
        self._running: dict[str, Pair] = {}
        self._unavailable: dict[str, str] = {}
        self._failed_to_start: set[str] = set()

    def start(self, name: str) -> Pair:
        """A pair that the caller ends or kills.  Raises `Unavailable`, `Broken`.

        What did not start twice is not tried again: waiting for it takes its time.
        """
        if name in self._unavailable:
            raise Unavailable(self._unavailable[name])
        try:
            return Pair(CONTENDERS[name])
        except Unavailable as error:
            self._unavailable[name] = str(error)
            raise
        except Broken as error:
            if name in self._failed_to_start:
                self._unavailable[name] = str(error)
            self._failed_to_start.add(name)
            raise

    def get(self, name: str) -> Pair:
        """The pair that is running, or a new one.  Raises `Unavailable`, `Broken`."""
        if name not in self._running:
            self._running[name] = self.start(name)
        return self._running[name]

    def discard(self, name: str) -> None:
        """Have the next one start anew."""
        if name in self._running:
            self._running.pop(name).end()

    def close_connections(self) -> None:
        """Have none of them keep more than its own."""
        for name, pair in list(self._running.items()):
            try:
                pair.prepare(one_core=False, connections=NO_CONNECTIONS)
            except (Broken, Unknown):
                self.discard(name)

    def __enter__(self) -> "Contenders":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self._running):
            self.discard(name)

"""Who listens where and dials whom, and the processes in which they are."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trustme

from roletalk import generate_key
from tools.ports import quiet_port

START: Final = 60.0  # s
ANSWER: Final = 120.0  # s
END: Final = 20.0  # s in which a process closes its peers and ends
LIMIT: Final = 1 << 24  # bytes of a line
REPOSITORY: Final = Path(__file__).resolve().parents[2]

# The peers of each process.  One that is killed now and then is a victim.
PROCESSES: Final = {"hub": ("hub",), "tls": ("tls",), "unix": ("unix",), "pair": ("left", "right")}
VICTIMS: Final = ("pair",)
# Who dials whom.  Of the hub everybody else hears of "left", whom it dialled, and dials that one.
DIALS: Final = (
    ("tls", "hub"),
    ("tls", "hub"),
    ("unix", "tls"),
    ("unix", "hub"),
    ("hub", "unix"),
    ("hub", "left"),
    ("right", "hub"),
    ("right", "tls"),
    ("left", "unix"),
)
# The Go peer dials the first of these, and is dialled by the second.
GO_DIALS: Final = "hub"
DIALS_GO: Final = "left"


@dataclass
class Samples:
    """What one run of one process told of itself, over time."""

    process: str
    number: int  # of the run: a process that is killed begins the next one
    lines: list[dict[str, Any]] = field(default_factory=list)

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """The times, and `name` at them; ``"beyond"`` are descriptors that are no connection's."""
        times = [line["at"] for line in self.lines]
        if name == "beyond":
            return times, [line["descriptors"] - line["connections"] for line in self.lines]
        return times, [line[name] for line in self.lines]

    @property
    def last(self) -> dict[str, Any] | None:
        return self.lines[-1] if self.lines else None


class NodeDied(Exception):
    """A process ended that was not to; the text is what it wrote last."""


class NodeProcess:
    """A process of the mesh, which can be killed and started again on the same ports."""

    def __init__(
        self, name: str, peers: list[dict[str, Any]], told: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.name = name
        self.urls: dict[str, str] = {}
        self.samples: list[Samples] = []
        self.interval = 5.0
        self.rate = 1.0
        self._peers = peers
        self._told = told
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[dict[str, str]] | None = None
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._killed = False
        self._stderr: deque[str] = deque(maxlen=40)

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and wait until its peers listen.  Raises `NodeDied`."""
        self._killed = False
        self.samples.append(Samples(self.name, len(self.samples)))
        self._ready = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trials.soak.node"),
            cwd=REPOSITORY,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=LIMIT,
            start_new_session=True,  # a Ctrl-C in the terminal is the parent's, who ends them
        )
        self._reader = asyncio.create_task(self._read(self._process))
        config = {"peers": self._peers, "interval": self.interval, "rate": self.rate}
        self._write(config)
        self.urls = await asyncio.wait_for(self._ready, START)

    async def call(self, do: str, **fields: Any) -> Any:
        """Run a command.  Raises `NodeDied`, and `RuntimeError` with what went wrong there."""
        if not self.running:
            raise NodeDied(f"{self.name} is not running")
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            self._write({"id": number, "do": do} | fields)
            return await asyncio.wait_for(future, ANSWER)
        except asyncio.TimeoutError:
            raise RuntimeError(f"{self.name} does not answer to {do!r}") from None
        finally:
            self._pending.pop(number, None)

    async def kill(self) -> None:
        """SIGKILL, which it cannot know of."""
        self._killed = True
        if self._process is not None and self.running:
            self._process.kill()
        await self._gone()

    async def close(self) -> int:
        """Let it close its peers and end; its status, or that of having been killed past `END`."""
        if self._process is None:
            return 0
        if self.running:
            self._killed = True
            self._write({"id": 0, "do": "close"})
            try:
                await asyncio.wait_for(self._process.wait(), END)
            except asyncio.TimeoutError:
                self._process.kill()
        await self._gone()
        return self._process.returncode or 0

    async def _gone(self) -> None:
        if self._process is not None and self._reader is not None:
            await self._process.wait()
            await self._reader

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.create_task(self._read_errors(process.stderr))
        async for text in process.stdout:
            if not text.endswith(b"\n"):
                break  # killed while it wrote
            self._take(json.loads(text))
        await errors
        died = NodeDied(f"{self.name} ended: {''.join(self._stderr)[-2000:]}")
        for future in (*self._pending.values(), self._ready):
            if future is not None and not future.done():
                future.set_exception(died)
                future.exception()
        if not self._killed:
            self._told(self.name, {"event": "died", "text": str(died)})

    def _take(self, line: dict[str, Any]) -> None:
        if "event" not in line:
            future = self._pending.get(line["id"])
            if future is not None and not future.done():
                if "error" in line:
                    future.set_exception(RuntimeError(f"{self.name}: {line['error']}"))
                else:
                    future.set_result(line["result"])
        elif line["event"] == "ready":
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(line["urls"])
        elif line["event"] == "sample":
            lines = self.samples[-1].lines
            if lines:
                # What is counted from the start is needed of the last one alone.
                lines[-1].update(stats=[], tally={})
            lines.append(line)
        else:
            self._told(self.name, line)

    async def _read_errors(self, stderr: asyncio.StreamReader) -> None:
        async for line in stderr:
            self._stderr.append(line.decode(errors="replace"))


class Mesh:
    """All processes of ours, and where each peer listens."""

    def __init__(self, scratch: Path, told: Callable[[str, dict[str, Any]], None]) -> None:
        self.keys = {"main": generate_key()}
        authority = trustme.CA()
        self.authority = scratch / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        certificate = scratch / "certificate.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        special = {
            "tls": {"certificate": str(certificate)},
            "unix": {"path": str(scratch / "unix.sock")},
        }
        self.nodes = {
            name: NodeProcess(
                name,
                [
                    {"name": peer, "keys": self.keys, "port": quiet_port()} | special.get(peer, {})
                    for peer in peers
                ],
                told,
            )
            for name, peers in PROCESSES.items()
        }
        self._process_of = {peer: name for name, peers in PROCESSES.items() for peer in peers}
        self.go_url = ""  # where the Go peer listens, if there is one

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(self._process_of)

    def node_of(self, peer: str) -> NodeProcess:
        return self.nodes[self._process_of[peer]]

    def url(self, peer: str) -> str:
        return self.node_of(peer).urls[peer]

    async def start(self, interval: float, rate: float) -> None:
        for node in self.nodes.values():
            node.interval, node.rate = interval, rate
        await asyncio.gather(*(node.start() for node in self.nodes.values()))
        for node in self.nodes.values():
            await self.dial_from(node)

    async def dial_from(self, node: NodeProcess) -> None:
        """Let its peers dial whom they are to dial."""
        for peer, unit in DIALS:
            if self.node_of(peer) is node:
                await node.call("dial", peer=peer, url=self.url(unit), unit=unit)
        if self.go_url and self.node_of(DIALS_GO) is node:
            await node.call("dial", peer=DIALS_GO, url=self.go_url, unit="go")

    async def all(self, do: str, **fields: Any) -> list[Any]:
        return await asyncio.gather(*(node.call(do, **fields) for node in self.nodes.values()))

    async def close(self) -> list[int]:
        return await asyncio.gather(*(node.close() for node in self.nodes.values()))

"""One process of the mesh: ``python -m trials.soak.node``, told what to do by its standard input.

The first line says which peers it has; then come commands, answered in any order.  What it writes is JSON
too, one object a line: answers under ``id``, all else under ``event``.  It ends with its input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import uvloop

from roletalk import AuthError, ConnectError, Connection, Peer
from roletalk._debug import is_debug_build, live_objects
from trials import vitals

from .service import CLOSING, ForGo, Intended, Service, Tally
from .traffic import Pace, Traffic
from .watched import WatchedPeer

QUIET: Final = 20.0  # s in which all that is under way is done, once nothing more is begun
LAG_STEP: Final = 0.1  # s
# A loop that stood still is told of by the lag; a busy machine makes it do so.
HARMLESS: Final = (
    "dropped for the first time",
    "the event loop was blocked",
    "the event loop has been blocked",
    "held the event loop",
)


class Host:
    """One peer of the process, with what it serves and asks."""

    def __init__(self, node: Node, config: dict[str, Any]) -> None:
        self._node = node
        self._config = config
        self.peer = WatchedPeer(node.tell, name=config["name"])
        for key_id, key in config["keys"].items():
            self.peer.add_key(key_id, key)
        self.service = Service(self.peer, node.tally, node.report)
        self.for_go = ForGo(self.peer, node.tell)
        self.traffic = Traffic(self.peer, node.tally, node.report, node.pace)
        self._dials: list[tuple[str, str, asyncio.Task[None]]] = []

    async def listen(self) -> str:
        config = self._config
        if config.get("path"):
            return (await self.peer.listen(path=config["path"])).url
        context = None
        if config.get("certificate"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(config["certificate"])
        return (await self.peer.listen("127.0.0.1", config["port"], ssl=context)).url

    def dial(self, url: str, unit: str) -> None:
        """Keep connected to `url`, where the unit of that name listens."""
        self._dials.append((url, unit, asyncio.create_task(self._keep(url))))

    async def _keep(self, url: str) -> None:
        while True:
            try:
                await self.peer.connect(url, retry=True)
                return
            except (ConnectError, AuthError) as error:
                self._node.report("unexpected", f"{self.peer.name}, dialling {url}: {error}")
                await asyncio.sleep(1)

    async def close_unit(self, name: str) -> dict[str, Any]:
        """Close a unit on purpose, and dial it anew where it was dialled."""
        units = [unit for unit in self.peer.units if unit.name == name]
        links = sum(len(unit.connections) for unit in units)
        at = time.monotonic()
        await asyncio.gather(*(unit.close() for unit in units))
        for dialled in [each for each in self._dials if each[1] == name]:
            self._dials.remove(dialled)
            dialled[2].cancel()
            self.dial(dialled[0], name)
        return {"links": links, "at": at}

    def break_link(self, name: str, how: str) -> dict[str, Any]:
        """Break one connection to a unit, as a network does: it is ``"reset"`` or ``"shut"``."""
        links: list[Connection] = [
            link
            for unit in self.peer.units
            if unit.name == name
            for link in unit.connections
            if link.is_open
        ]
        if not links:
            return {"links": 0, "at": time.monotonic()}
        link = links[int(time.monotonic() * 1000) % len(links)]
        sock: socket.socket = link.transport.get_extra_info("socket")
        at = time.monotonic()
        if how == "reset":
            # Closing discards what is unsent and resets the connection (a Unix socket: ends it).
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            link.abort()
        else:
            with socket.socket(fileno=os.dup(sock.fileno())) as same, suppress(OSError):
                same.shutdown(socket.SHUT_RDWR)
        return {"links": 1, "at": at}


class Node:
    """The process: its peers, its tally, and what it tells its parent."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.pace = Pace(1.0)
        self.hosts: dict[str, Host] = {}
        self._lag = 0.0  # s, the most since the last sample
        self._tasks: set[asyncio.Task[None]] = set()
        self._interval = 5.0

    def tell(self, line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def report(self, kind: str, text: str) -> None:
        """What should not be: ``"wrong"`` or ``"unexpected"``."""
        self.tally[kind] += 1
        self.tell({"event": "fault", "kind": kind, "text": text})

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_failed)
        logging.getLogger().addHandler(_Told(self))
        reader = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        config = json.loads(await reader.readline())
        self._interval = config["interval"]
        self.pace.rate = config["rate"]
        self.hosts = {each["name"]: Host(self, each) for each in config["peers"]}
        urls = {name: await host.listen() for name, host in self.hosts.items()}
        self.tell({"event": "ready", "urls": urls})
        background = [asyncio.create_task(self._sample()), asyncio.create_task(self._measure_lag())]
        while line := await reader.readline():
            command = json.loads(line)
            if command["do"] == "close":
                break
            task = asyncio.create_task(self._obey(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for task in background:
            task.cancel()
        await asyncio.gather(*(host.peer.close() for host in self.hosts.values()))

    async def _obey(self, command: dict[str, Any]) -> None:
        do: Callable[..., Awaitable[Any]] = getattr(self, f"do_{command.pop('do')}")
        number = command.pop("id")
        try:
            self.tell({"id": number, "result": await do(**command)})
        except Exception as error:
            self.tell({"id": number, "error": f"{type(error).__name__}: {error}"})

    # -- commands

    async def do_dial(self, peer: str, url: str, unit: str) -> None:
        self.hosts[peer].dial(url, unit)

    async def do_begin(self) -> None:
        await asyncio.gather(*(host.traffic.start() for host in self.hosts.values()))

    async def do_pace(self, rate: float) -> None:
        self.pace.rate = rate

    async def do_close_unit(self, peer: str, unit: str) -> dict[str, Any]:
        return await self.hosts[peer].close_unit(unit)

    async def do_break_link(self, peer: str, unit: str, how: str) -> dict[str, Any]:
        return self.hosts[peer].break_link(unit, how)

    async def do_toggle(self, peer: str) -> None:
        role = self.hosts[peer].peer.role("seasonal")
        if role.active:
            role.disable()
        else:
            role.enable()

    async def do_add_key(self, peer: str, key_id: str, key: str) -> None:
        self.hosts[peer].peer.add_key(key_id, key)

    async def do_remove_key(self, peer: str, key_id: str) -> None:
        self.hosts[peer].peer.remove_key(key_id)

    async def do_visit(self, url: str, key_id: str, key: str) -> bool:
        """Connect as a guest with that key alone, ask, and leave; False when turned away."""
        async with Peer(name="guest", friendly=False) as guest:
            guest.add_key(key_id, key)
            try:
                await guest.connect(url, reconnect=False)
            except AuthError:
                return False
            answer = await guest.destination("work").request("echo", key_id, timeout=20)
            if answer.data != key_id:
                self.report("wrong", f"a guest got {answer.data!r:.100}")
        return True

    async def do_stream_with_go(self, peer: str, gos: str, name: str) -> None:
        """Open a stream of which Go has the ``"reader"`` or the ``"writer"``."""
        host = self.hosts[peer]
        go = host.peer.destination("go")
        if gos == "reader":
            async with go.writable("accept", name, timeout=20) as written:
                await host.for_go.digest_written(written, name)
        else:
            async with go.readable("accept", name, timeout=20) as read:
                await host.for_go.digest_read(read, name)

    async def do_quiet(self) -> None:
        """Begin nothing more, and wait until what was begun is done."""
        await asyncio.gather(*(host.traffic.stop() for host in self.hosts.values()))

    async def do_left(self) -> dict[str, int]:
        """What is left when all peers are quiet: nothing, soon."""
        deadline = time.monotonic() + QUIET
        await asyncio.sleep(CLOSING)  # until the last failures are judged
        while True:
            stats = [host.peer.stats() for host in self.hosts.values()]
            left = {
                name: sum(each[name] for each in stats)
                for name in ("pending_requests", "running_handlers", "streams", "unsent_bytes")
            }
            if not any(left.values()) or time.monotonic() > deadline:
                self._tell_sample()
                return left
            await asyncio.sleep(0.1)

    # -- samples

    async def _sample(self) -> None:
        while True:
            self._tell_sample()
            await asyncio.sleep(self._interval)

    def _tell_sample(self) -> None:
        stats = [host.peer.stats() for host in self.hosts.values()]
        connections = sum(each["connections"] + each["handshakes"] for each in stats)
        busy = sum(host.traffic.under_way for host in self.hosts.values())
        busy += sum(each["running_handlers"] for each in stats)
        self.tell(
            {
                "event": "sample",
                "at": time.monotonic(),
                "rss": vitals.rss(),
                "allocated": vitals.allocated() or 0,
                "blocks": sys.getallocatedblocks(),
                "descriptors": vitals.descriptors(),
                "connections": connections,
                "tasks": len(asyncio.all_tasks()) - busy,
                "objects": live_objects() if is_debug_build() else {},
                "lag": self._lag,
                "cpu": vitals.cpu_seconds(),
                "stats": stats,
                "tally": dict(self.tally),
            }
        )
        self._lag = 0.0

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + LAG_STEP
            await asyncio.sleep(LAG_STEP)
            self._lag = max(self._lag, time.monotonic() - due)

    # -- what must not be

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.report("unexpected", f"in the loop: {context.get('message')}: {error!r}")


class _Told(logging.Handler):
    """Whatever is logged as a warning or worse, but for what the soak does itself."""

    def __init__(self, node: Node) -> None:
        super().__init__(logging.WARNING)
        self._node = node

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Intended):
            return
        text = record.getMessage()
        if record.levelno == logging.WARNING and any(each in text for each in HARMLESS):
            self._node.tell({"event": "warning", "text": text})
            return
        self._node.report("unexpected", f"logged: {text}{f': {error!r}' if error else ''}")


def main() -> None:
    uvloop.install()
    # A garbage collector that has seen the imports looks at what is new only.
    gc.collect()
    gc.freeze()
    asyncio.run(Node().run())


if __name__ == "__main__":
    main()

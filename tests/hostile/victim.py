"""The process under attack: two listening peers, and a control line on stdin and stdout.

``python -m tests.hostile.victim [options]`` prints one JSON line, ``{"keyed": port, "keyless": port,
"pid": pid, ...}``, and then answers each JSON line that it reads with one of the same ``"n"``:

* ``{"n": 1, "do": "state"}``: what both peers have seen so far, see `Victim.state`;
* ``{"n": 2, "do": "dial", "peer": "keyed", "url": "ws://..."}``: connect; answers when that succeeded
  or failed, with the name of the exception;
* ``{"n": 3, "do": "leave", "peer": "keyed", "id": "..."}``: close a unit;
* ``{"n": 4, "do": "ask", "peer": "keyed", "id": "...", "how": "request"}``: ask a unit that serves
  "loot" for something ("readable", "writable": open a stream); answers with what came of it.

It ends when its stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import sys
import threading
from collections import Counter
from typing import Any

import roletalk

KEY_ID = "k1"
OTHER_KEY_ID = "k2"
KEYS = {KEY_ID: "preshared-secret-one", OTHER_KEY_ID: "preshared-secret-two"}
STREAM_CHUNK = b"d" * 65536
STREAM_CHUNKS = 4096  # 256 MiB: far more than a writer without a reader may hold


def place(address: Any) -> str:
    """An address of a socket as text; that of IPv6 has more to it than host and port."""
    return "{}:{}".format(*address[:2]) if isinstance(address, tuple) else str(address)


class Victim:
    """Both peers and what became of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.dials: set[str] = set()
        self.lookups: set[str] = set()
        sys.addaudithook(self.audit)
        self.seen: list[dict[str, str]] = []
        self.gone: list[dict[str, str]] = []
        self.calls: Counter[str] = Counter()
        limits = {
            "handshake_timeout": options.handshake_timeout,
            "heartbeat_interval": options.heartbeat_interval,
            "heartbeat_timeout": options.heartbeat_timeout,
            "max_message_size": options.max_message_size,
        }
        self.peers = {
            name: roletalk.Peer(name="victim", friendly=True, **limits)
            for name in ("keyed", "keyless")
        }
        for key_id, key in KEYS.items():
            self.peers["keyed"].add_key(key_id, key)
        for name, peer in self.peers.items():
            self.watch(name, peer)
            self.serve(peer)
            peer.destination("loot")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Whom this process dials and looks up, whatever code of it does so."""
        if event == "socket.connect":
            self.dials.add(place(arguments[1]))
        elif event == "socket.getaddrinfo":
            self.lookups.add(place(arguments[:2]))

    def watch(self, name: str, peer: roletalk.Peer) -> None:
        @peer.on_unit
        def came(unit: roletalk.Unit) -> None:
            self.seen.append({"peer": name, "id": unit.id})

            @unit.on_close
            def went(unit: roletalk.Unit) -> None:
                self.gone.append({"peer": name, "id": unit.id})

    def serve(self, peer: roletalk.Peer) -> None:
        service = peer.role("svc")

        @service.on_request("ping")
        def ping(ctx: Any) -> Any:
            self.calls[ctx.unit.id] += 1
            return ctx.data

        @service.on_request("echo")
        async def echo(ctx: Any) -> Any:
            self.calls[ctx.unit.id] += 1
            return ctx.data

        @service.on_message("note")
        def note(ctx: Any) -> None:
            self.calls[ctx.unit.id] += 1
            _ = ctx.data
            self.calls["note"] += 1

        @service.on_readable("up")
        async def up(ctx: Any) -> None:
            """A reader that never reads."""
            async with ctx.accept():
                await asyncio.Event().wait()

        @service.on_writable("down")
        async def down(ctx: Any) -> None:
            """A writer that has more to say than anybody should be made to hold."""
            async with ctx.accept() as stream:
                for _ in range(STREAM_CHUNKS):
                    await stream.write(STREAM_CHUNK)

    def state(self) -> dict[str, Any]:
        """`seen` and `gone`: every unit that ever came or went; `calls`: handler calls by unit id;
        `units`: those connected now; `stats`: what each peer counts; `dials` and `lookups`: every
        address that was ever dialled or looked up."""
        return {
            "dials": sorted(self.dials),
            "lookups": sorted(self.lookups),
            "seen": self.seen,
            "gone": self.gone,
            "calls": self.calls,
            "units": [
                {
                    "peer": name,
                    "id": unit.id,
                    "name": unit.name,
                    "tags": dict(unit.tags),
                    "roles": sorted(unit.roles)[:100],
                    "role_count": len(unit.roles),
                    "connections": len(unit.connections),
                }
                for name, peer in self.peers.items()
                for unit in peer.units
            ],
            "stats": {name: peer.stats() for name, peer in self.peers.items()},
        }

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one control line."""
        if order["do"] == "state":
            return self.state()
        peer = self.peers[order["peer"]]
        if order["do"] == "dial":
            try:
                unit = await peer.connect(order["url"], reconnect=order.get("reconnect", False))
            except Exception as error:
                return {"error": type(error).__name__, "text": str(error)[:500]}
            return {"error": None, "id": unit.id}
        if order["do"] == "leave":
            leaving = peer.unit(order["id"])
            assert leaving is not None
            await leaving.close()
            return {}
        if order["do"] == "ask":
            return await self.ask(peer, order["id"], order["how"])
        raise ValueError(order["do"])

    async def ask(self, peer: roletalk.Peer, unit_id: str, how: str) -> dict[str, Any]:
        asked = getattr(peer.destination("loot"), how)
        try:
            answer = await asked("steal", unit=peer.unit(unit_id), timeout=60)
            if how == "request":
                return {"error": None, "data": answer.data}
            if how == "readable":
                return {"error": None, "size": len(await answer.read())}
            for _ in range(STREAM_CHUNKS):
                await answer.write(STREAM_CHUNK)
        except Exception as error:
            return {"error": type(error).__name__, "text": str(error)}
        return {"error": None}

    async def run(self) -> None:
        """Listen, say where, and obey until stdin ends."""
        loop = asyncio.get_running_loop()
        orders: asyncio.Queue[str] = asyncio.Queue()

        def read_orders() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(orders.put_nowait, line)
            loop.call_soon_threadsafe(orders.put_nowait, "")

        def say(answer: dict[str, Any]) -> None:
            print(json.dumps(answer, default=str), flush=True)

        async def obey(order: dict[str, Any]) -> None:
            say({"n": order["n"], **await self.obey(order)})

        ports = {}
        for name, peer in self.peers.items():
            ports[name] = (await peer.listen("127.0.0.1", 0)).port
        ids = {name + "_id": peer.id for name, peer in self.peers.items()}
        say({"port": ports["keyed"], "pid": os.getpid(), **ports, **ids})
        threading.Thread(target=read_orders, daemon=True).start()
        running = set()
        while line := await orders.get():
            task = asyncio.create_task(obey(json.loads(line)))
            running.add(task)
            task.add_done_callback(running.discard)
        for peer in self.peers.values():
            await peer.close(timeout=1.0)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--handshake-timeout", type=float, default=5.0)
    parser.add_argument("--heartbeat-interval", type=float, default=10.0)
    parser.add_argument("--heartbeat-timeout", type=float, default=5.0)
    parser.add_argument("--max-message-size", type=int, default=16 << 20)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop")
    options = parser.parse_args()

    async def run() -> None:
        await Victim(options).run()

    if options.loop == "uvloop" and importlib.util.find_spec("uvloop"):
        importlib.import_module("uvloop").run(run())
    else:
        asyncio.run(run())


if __name__ == "__main__":
    main()

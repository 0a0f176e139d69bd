"""How the benchmark drives its processes: a line of JSON in, a line of JSON out.

In goes ``[name, {argument: value}]``.  Out comes ``{"answer": ..., "cpu": seconds}``, what the process
spent on the command, or ``{"error": text}``.  The very first line out says that the process is ready:
a server's is its address, a client's ``null``.
"""

import asyncio
import gc
import json
import os
import queue
import resource
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]

UNKNOWN = "no such command"

Command = Callable[..., Awaitable[Any]]


async def _cpu() -> float:
    """Seconds of CPU, user and system, that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _settle() -> None:
    """Give back what is garbage, before memory is measured."""
    gc.collect()


async def serve_commands(commands: Mapping[str, Command], address: Any = None) -> None:
    """In a child: do what the lines on standard input say, until it ends."""
    known: dict[str, Command] = {"cpu": _cpu, "settle": _settle, **commands}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(json.dumps(address), flush=True)
    while line := await reader.readline():
        name, arguments = json.loads(line)
        print(json.dumps(await _obey(known, name, arguments)), flush=True)


async def _obey(known: Mapping[str, Command], name: str, arguments: dict[str, Any]) -> Any:
    if name not in known:
        return {"error": f"{UNKNOWN}: {name}"}
    began = await _cpu()
    try:
        answer = await known[name](**arguments)
    except Exception as error:  # whatever it is, the driver decides what comes of it
        return {"error": f"{name}: {type(error).__name__}: {error}"}
    return {"answer": answer, "cpu": await _cpu() - began}


class Broken(Exception):
    """A child has ended, says nothing or says that it failed; the text says which."""


class Unknown(Exception):
    """A child has no such command: what it cannot do is not measured."""


class Answer(NamedTuple):
    """What a child answered."""

    value: Any
    cpu_seconds: float


class Child:
    """A process of the benchmark, as its driver sees it.  Leaving the block ends it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        start_seconds: float,
    ) -> None:
        self._name = name
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise Broken(f"{self._name} cannot be started: {error}") from error
        self._complaint = ""
        threading.Thread(target=self._listen, daemon=True).start()
        self._complaints = threading.Thread(target=self._listen_to_complaints, daemon=True)
        self._complaints.start()
        try:
            self.greeting: Any = self._read(start_seconds)
        except Broken:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str, *, within: float, **arguments: Any) -> Answer:
        """What the child answers to a command.  Raises `Broken`, `Unknown`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([command, arguments]) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Broken(self._obituary()) from None
        said = self._read(within)
        error = said.get("error")
        if error is None:
            return Answer(said["answer"], said["cpu"])
        raise (Unknown if error.startswith(UNKNOWN) else Broken)(error)

    def pin(self, core: int | None) -> None:
        """Keep all its threads on one core, where the platform can; None: on all that we may use."""
        cores = ALLOWED if core is None else [ALLOWED[core % len(ALLOWED)]]
        if not hasattr(os, "sched_setaffinity"):
            return
        with suppress(OSError):  # it has ended, or there is no /proc
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with suppress(ProcessLookupError):  # a thread has ended
                    os.sched_setaffinity(int(thread), cores)

    def resident_bytes(self) -> int:
        """What it has in memory.  Raises `OSError` where there is no /proc to say so."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def end(self) -> None:
        """Close its standard input and wait; kill it if it does not go."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _read(self, seconds: float) -> Any:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise Broken(f"{self._name} said nothing for {seconds:g} s") from None
        if not line:
            raise Broken(self._obituary())
        try:
            return json.loads(line)
        except ValueError:
            raise Broken(f"{self._name} said {line[:80]!r}") from None

    def _obituary(self) -> str:
        try:
            status = f"ended with status {self._process.wait(3)}"
            self._complaints.join(1)
        except subprocess.TimeoutExpired:
            status = "has closed its standard output"
        return f"{self._name} {status}" + (f": {self._complaint}" if self._complaint else "")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _listen_to_complaints(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                # The last line says what it died of.
                self._complaint = line.strip() or self._complaint

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

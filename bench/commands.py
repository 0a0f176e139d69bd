"""How the benchmark drives its processes: a line of JSON in, a line of JSON out."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

REPOSITORY = Path(__file__).resolve().parent.parent

Command = Callable[..., Awaitable[Any]]


def pin(core: int) -> None:
    """Keep this process on one core, where the platform can.  `core` counts those we may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {ALLOWED[core % len(ALLOWED)]})


ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


async def _pin(core: int) -> None:
    pin(core)


async def _cpu() -> float:
    """Seconds of CPU, user and system, that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def serve_commands(commands: Mapping[str, Command]) -> None:
    """In a child: do what the lines on standard input say, until it ends."""
    known: dict[str, Command] = {"pin": _pin, "cpu": _cpu, **commands}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print(json.dumps(os.getpid()), flush=True)
    while line := await reader.readline():
        name, arguments = json.loads(line)
        print(json.dumps(await known[name](**arguments)), flush=True)


class Child:
    """A process of the benchmark, as its driver sees it.  Leaving the block ends it."""

    def __init__(self, *command: str) -> None:
        self._name = " ".join(command)
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = cast("int", self._read())

    def ask(self, command: str, **arguments: Any) -> Any:
        """What the child answers to a command.  Raises `RuntimeError` if it ends instead."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps([command, arguments]) + "\n")
        stdin.flush()
        return self._read()

    def _read(self) -> Any:
        stdout = self._process.stdout
        assert stdout is not None
        if line := stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"{self._name} ended with status {self._process.wait()}")

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

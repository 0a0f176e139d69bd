"""Starting and stopping the workers: plain `asyncio` subprocesses, nothing of roletalk."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import cast

from tools.ports import quiet_port

from .worker import KEY_VARIABLE

START_SECONDS = 60.0
REPOSITORY = Path(__file__).resolve().parent.parent


class Worker:
    """A worker process that can be killed, and started again on the same port."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.port = quiet_port()  # nobody else is given it while the worker is down
        self.pid = 0
        self._key = key
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it listens.  Raises `RuntimeError` if it ends before it does."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "demo.worker", "--name", self.name, "--port", str(self.port)),
            cwd=REPOSITORY,
            env={**os.environ, KEY_VARIABLE: self._key},
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is the gateway's, who ends them
        )
        self._process, self.pid = process, process.pid
        stdout = cast("asyncio.StreamReader", process.stdout)  # there is one: it is a pipe
        line = await asyncio.wait_for(stdout.readline(), START_SECONDS)
        if not line:
            raise RuntimeError(f"{self.name} ended with status {await process.wait()}")

    async def kill(self) -> None:
        """SIGKILL: it has no time to say goodbye.  Harmless for one that is not running."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Workers:
    """All of them, started on entering and killed on leaving, whatever happened in between."""

    def __init__(self, number: int, key: str) -> None:
        self.all = [Worker(f"worker-{n}", key) for n in range(1, number + 1)]

    async def __aenter__(self) -> list[Worker]:
        try:
            await asyncio.gather(*(worker.start() for worker in self.all))
        except BaseException:
            await self._kill_all()
            raise
        return self.all

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._kill_all()

    async def _kill_all(self) -> None:
        await asyncio.gather(*(worker.kill() for worker in self.all))

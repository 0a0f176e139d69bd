"""Peers in processes of their own, which a scenario starts, watches, kills and stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
WAIT: Final = 60.0  # s

Event = dict[str, Any]


class Process:
    """One run of trials/faults/node.py, and the lines that it said so far.

    within: what the command begins with, to run it in a network namespace for one.
    """

    def __init__(self, told: dict[str, Any], *, within: Sequence[str] = ()) -> None:
        command = [*within, sys.executable, "-m", "trials.faults.node", json.dumps(told)]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        self._child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.events: list[Event] = []
        self._changed = threading.Condition()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_for(
        self, what: Callable[[Event], Any], *, after: float = 0.0, timeout: float = WAIT
    ) -> Event:
        """The first event said at `after` or later that `what` is true of; `TimeoutError` without."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for event in self.events:
                    if event["at"] >= after and what(event):
                        return event
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"it did not happen in {timeout} s: {self.events[-20:]}")

    def said(self, what: Callable[[Event], Any], *, after: float = 0.0) -> list[Event]:
        with self._changed:
            return [event for event in self.events if event["at"] >= after and what(event)]

    def kill(self) -> float:
        """SIGKILL; when that was."""
        at = time.monotonic()
        self._child.kill()
        self._child.wait(WAIT)
        return at

    def signal(self, number: signal.Signals) -> float:
        at = time.monotonic()
        self._child.send_signal(number)
        return at

    def wait(self, timeout: float = WAIT) -> int:
        """Its exit status, when all that it said is read."""
        status = self._child.wait(timeout)
        self._reading.join(timeout)
        return status

    def end(self) -> Event:
        """Have it end in peace; its last words."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self.wait()
        return self.events[-1]

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(WAIT)
        self._reading.join(WAIT)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


def rss(pid: int | None = None) -> int:
    """Bytes of memory that a process (this one) has in use."""
    fields = Path(f"/proc/{pid or 'self'}/statm").read_text("ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

"""What the tests of hostile input stand on: the victim's process, a bystander, and traps for dials.

Whatever a test does to the victim, it does inside `VictimProcess.watched`, which then asserts what
must hold after *any* input: the process lives, an honest connection beside the hostile one was
answered all the while, a new one is answered too, nobody became a unit without a proof, nobody was
dialled or looked up whom the test did not name in `may_be_dialled`, and memory has not grown by more
than `MAX_GROWTH`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import rawclient as raw
from tools.sanitized import is_sanitized

from .victim import KEY_ID, KEYS

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Observation:
    """What one case cost others: the bystander's slowest answer in seconds, the victim's growth in
    bytes."""

    case: str
    slowest: float
    grown: int


MAX_GROWTH = 64 << 20  # bytes that one case may add to the victim's peak memory
# Seconds that a bystander may wait.  `make hostile` holds it to 0.25; here a machine that stands still
# must not decide.
MAX_SILENCE = 10.0
MAX_DIALS_AT_ONCE = 16  # "never more than a few at a time": docs/protocol.md, section 8
PROBE_EVERY = 0.01  # seconds between two questions of the bystander

# What `VictimProcess.watched` saw, in the order in which it ended, for reports to show.
OBSERVED: list[Observation] = []

_fresh = itertools.count(1)


def fresh_id() -> str:
    """A peer id that no test has used before."""
    return f"raw-{time.time_ns():x}-{next(_fresh)}"


class Bystander:
    """An honest connection that asks, and times the slowest answer while a `with` block runs."""

    def __init__(self, connection: raw.Connection) -> None:
        self.connection = connection
        self.slowest = 0.0
        self.answers = 0
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """One question, its answer checked and timed."""
        started = time.monotonic()
        token = f"token-{self.answers}"
        answer = self.connection.ask("svc", "ping", token, timeout=raw.WAIT)
        assert answer.kind == raw.RESOLVE
        assert answer.data == token
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.answers += 1

    def _ask_on(self) -> None:
        try:
            while not self._stop.wait(PROBE_EVERY):
                self.ask()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Bystander:
        self.slowest = 0.0
        self._error = None
        self._stop.clear()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        if self._error is not None and error is None:
            raise AssertionError("the bystander was not answered") from self._error


class VictimProcess:
    """The victim, its control line, and the honest units that this test process has made.

    The handshake's and the heartbeat's times are long by default, so that a connection that is closed
    was closed for what it sent.
    """

    def __init__(self, *, module: str = "tests.hostile.victim", **options: object) -> None:
        settings: dict[str, object] = {
            "handshake_timeout": 60.0,
            "heartbeat_interval": 600.0,
            **options,
        }
        self.handshake_timeout = float(str(settings["handshake_timeout"]))
        arguments = [f"--{name.replace('_', '-')}={given}" for name, given in settings.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.honest: set[str] = set()
        # Host and port of those that the test itself has the victim dial.
        self.may_be_dialled: set[str] = set()
        self._orders = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = threading.Condition()
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if not first:
            self._end()
            raise AssertionError("the victim did not start")
        self.hello: dict[str, Any] = json.loads(first)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.bystander = Bystander(self.connect())
        except BaseException:
            self._end()
            raise

    # -- the control line

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            with self._changed:
                self._answers[answer["n"]] = answer
                self._changed.notify_all()

    def start(self, do: str, **order: object) -> int:
        """Give an order; `result` has its answer."""
        if do == "dial":
            self.may_be_dialled.add(place_of(order["url"]))
        n = next(self._orders)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"n": n, "do": do, **order}) + "\n")
        self.process.stdin.flush()
        return n

    def result(self, n: int, *, timeout: float = raw.WAIT) -> dict[str, Any]:
        """What the order came to."""
        with self._changed:
            assert self._changed.wait_for(lambda: n in self._answers, timeout), "no answer in time"
            return self._answers.pop(n)

    def state(self) -> dict[str, Any]:
        """See `victim.Victim.state`."""
        return self.result(self.start("state"))

    def units(self, peer_id: str) -> list[dict[str, Any]]:
        """The victim's connected units with this id."""
        return [unit for unit in self.state()["units"] if unit["id"] == peer_id]

    # -- connections

    def dial(self, peer: str = "keyed") -> raw.Connection:
        """A connection that is upgraded and no more."""
        return raw.dial(self.hello[peer])

    def connect(self, peer: str = "keyed", **changed: Any) -> raw.Connection:
        """An authenticated connection; `changed` replaces keys of its peer data.

        It is tried again for as long as the victim's `handshake_timeout` may have been what ended it.
        """
        data = raw.peer_data(changed.pop("id", None) or fresh_id(), **changed)
        self.honest.add(data["id"])
        deadline = time.monotonic() + raw.WAIT
        while True:
            began = time.monotonic()
            try:
                return self._authenticated(peer, data)
            except raw.PeerGone:
                now = time.monotonic()
                if now - began < self.handshake_timeout or now > deadline:
                    raise

    def _authenticated(self, peer: str, data: dict[str, Any]) -> raw.Connection:
        key_id = KEY_ID if peer == "keyed" else ""
        connection = self.dial(peer)
        try:
            raw.authenticate(connection, KEYS.get(key_id), key_id, data=data)
        except BaseException:
            connection.drop()
            raise
        return connection

    def fresh_listener(self) -> raw.RawListener:
        """A listener where the victim may dial, and has not yet.

        The system gives out the same port twice in a few hundred times, and the victim remembers for
        a minute where it dialled in vain.
        """
        while True:
            listener = raw.RawListener()
            place = place_of(listener.url)
            if place not in self.may_be_dialled:
                self.may_be_dialled.add(place)
                return listener
            listener.sock.close()

    # -- what must always hold

    @contextlib.contextmanager
    def watched(self, *, silence: float = MAX_SILENCE) -> Iterator[Bystander]:
        """Do the worst in here."""
        before = self._memory(reset=True)
        with self.bystander:
            yield self.bystander
        self.bystander.ask()
        assert self.process.poll() is None, f"the victim died: {self.process.returncode}"
        with self.connect() as late:
            assert late.ask("svc", "ping", "late").data == "late"
        assert self.bystander.slowest < silence
        grown = self._memory() - before
        OBSERVED.append(Observation(current_case(), self.bystander.slowest, grown))
        assert grown < MAX_GROWTH, f"memory grew by {grown >> 20} MiB"
        state = self.state()
        strangers = {unit["id"] for unit in state["seen"]} - self.honest
        assert not strangers, f"units without a proof: {strangers}"
        callers = set(state["calls"]) - self.honest - {"note"}
        assert not callers, f"handlers were called for {callers}"
        dialled = {*state["dials"], *state["lookups"]} - self.may_be_dialled
        assert not dialled, f"dialled or looked up: {dialled}"

    def _memory(self, *, reset: bool = False) -> int:
        """The peak of its resident memory in bytes since the last reset; 0 where nobody says.

        Nobody does under a sanitizer: what was freed stays for a while, to be found if it is used.
        """
        if is_sanitized():
            return 0
        try:
            if reset:
                Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) << 10 if found else 0

    def close(self) -> None:
        """Let it end by itself; it must be able to."""
        self.bystander.connection.drop()
        assert self._end() == 0

    def _end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(raw.WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if reader := getattr(self, "_reader", None):
                reader.join()
            self.process.stdout.close()


def current_case() -> str:
    """The name of the test that runs."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].rpartition(" ")[0]


def place_of(url: object) -> str:
    """Host and port of a URL, as the victim's audit has them."""
    parts = urlsplit(str(url))
    return f"{parts.hostname}:{parts.port}"


def ids(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Test parameters; the first member of each names it."""
    return [pytest.param(*case[1:], id=case[0]) for case in cases]


def until(true: Callable[[], object], *, timeout: float = raw.WAIT) -> None:
    """Wait for what other processes are about to bring about."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def assert_usable(connection: raw.Connection) -> None:
    """The connection still carries requests."""
    token = fresh_id()
    answer = connection.ask("svc", "ping", token)
    assert answer.kind == raw.RESOLVE
    assert answer.data == token


def count_dials(connection: raw.Connection, traps: Sequence[raw.RawListener]) -> int:
    """How often the victim dialled any of the traps, given the time that fifty questions take."""
    for _ in range(50):
        assert_usable(connection)
    return sum(trap.pending() for trap in traps)


def assert_rejected(answer: raw.Message) -> str:
    """A reject with a text of a modest size (null would be a success to a JS peer); the text."""
    assert answer.kind in (raw.REJECT, raw.STREAM_REJECT)
    text = answer.data
    assert isinstance(text, str)
    assert text
    assert len(text) < 4096
    return text


def assert_closed(
    connection: raw.Connection, codes: tuple[int | None, ...] = (), *, timeout: float = raw.WAIT
) -> None:
    """The victim ends the connection, socket and all, with one of `codes` where any are named; None
    among them allows for no close frame."""
    code = connection.wait_closed(timeout=timeout)
    if codes:
        assert code in codes

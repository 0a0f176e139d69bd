"""What the hot path needs of a peer: its loop, its counters, its deadlines."""

import asyncio
import logging
import os
import sys
import threading
import warnings

from cpython.pythread cimport PyThread_get_thread_ident
from libc.string cimport memset

from ._buffer cimport Account, ReadSpace
from ._calls cimport CallTable, Home
from ._debug cimport now
from ._frame cimport Connection

_log = logging.getLogger("roletalk")

cdef double INFINITE = float("inf")
cdef double SWEEP_GRAIN = 0.005        # s that a timeout may be late, so that sweeps gather

cdef object _get_running_loop = asyncio._get_running_loop

# 3.12 made Task(eager_start=True), and wrote current_task and _get_running_loop anew.  Before that the
# C tasks keep the current one in this dict.
cdef bint _IS_312 = sys.version_info >= (3, 12)
cdef object _current_task = asyncio.current_task
cdef dict _current_tasks = None if _IS_312 else asyncio.tasks._current_tasks

cdef int _forks = 0


def _forked():
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


cdef str _UNSEEN = "errors of calls that were never awaited"


def _thread_name(ident):
    """How a log names the thread: its name, or its number where Python did not make it."""
    for thread in threading.enumerate():
        if thread.ident == ident:
            return repr(thread.name)
    return str(ident)


def clock():
    """Seconds on the monotonic clock that deadlines are on."""
    return now()


cdef class PeerCore:
    def __init__(self, FrameLimits limits, *, request_timeout, bint expose_errors, Py_ssize_t max_handlers,
                 Py_ssize_t max_handler_bytes, Py_ssize_t max_pending, double slow_handler,
                 Py_ssize_t max_streams, Py_ssize_t stream_window, Py_ssize_t stream_buffer,
                 Py_ssize_t max_received_bytes, remote_log):
        self.limits = limits
        self.table = HandlerTable()
        self.read_space = ReadSpace()
        self.account = Account(max_received_bytes)
        self.remote_log = remote_log
        self.drops = {}
        self.request_timeout = request_timeout
        self.expose_errors = expose_errors
        self.max_handlers = max_handlers
        self.max_handler_bytes = max_handler_bytes
        self.max_pending = max_pending
        self.slow_handler = slow_handler
        self.max_streams = max_streams
        self.stream_window = stream_window
        self.stream_buffer = stream_buffer
        self._tables = set()
        self._sweep_at = INFINITE
        self._fork_epoch = _forks
        self._pid = os.getpid()
        memset(&self.counters, 0, sizeof(Counters))

    cdef int check_here(self) except -1:
        if _IS_312:
            if self.loop is not None and _get_running_loop() is self.loop and self._fork_epoch == _forks:
                return 0
        # Before 3.12 asking for the running loop asks the kernel for the process each time.  Of the
        # loops of one thread only one runs, so asking ours is as good.
        elif (self._thread == PyThread_get_thread_ident() and self._fork_epoch == _forks
                and self.loop is not None and self._is_running()):
            return 0
        self.bind()
        return 0

    cdef bint no_task_is_current(self) except -1:
        if _IS_312:
            return _current_task() is None
        return _current_tasks.get(self.loop) is None

    def bind(self):
        """Bind the peer to the running loop, or raise `RuntimeError` when it is bound elsewhere."""
        loop = _get_running_loop()
        if loop is None or self._fork_epoch != _forks or self.loop is not None and loop is not self.loop:
            raise RuntimeError(f"{self!r} cannot be used here: {self._why_not_here(loop)}")
        if self.loop is None:
            self.loop = loop
            self._is_running = loop.is_running
            self.home = Home(loop, self._unseen)
            self._thread = PyThread_get_thread_ident()
            # A task factory of the user's own makes all tasks, those of handlers too.
            self.makes_tasks = loop.get_task_factory() is None

    def _why_not_here(self, loop):
        if self._fork_epoch != _forks:
            return (f"it was made in process {self._pid}, and this is process {os.getpid()}, forked from it; "
                    "make a Peer in the child, after the fork")
        if self.loop is not None and self.loop.is_closed():
            return ("the event loop that it ran on is closed; each asyncio.run() makes a new loop, and needs "
                    "a Peer made for it")
        if self.loop is not None and self._thread != PyThread_get_thread_ident():
            return (f"it runs in thread {_thread_name(self._thread)}, and this is thread "
                    f"{_thread_name(PyThread_get_thread_ident())}; for a coroutine use "
                    "asyncio.run_coroutine_threadsafe(coroutine, peer.loop), for a plain call "
                    "peer.loop.call_soon_threadsafe(function)")
        if loop is None:
            return ("no event loop is running in this thread; call it from a coroutine, within "
                    "asyncio.run(main())")
        return "it runs on another event loop of this thread; make a Peer for each loop"

    def check_thread(self):
        """For plain calls that may come before the loop runs: raise only in a wrong thread or process."""
        loop = _get_running_loop()
        if loop is not None and loop is self.loop and self._fork_epoch == _forks:
            return
        if self.loop is not None and (loop is not None or self._thread != PyThread_get_thread_ident()):
            self.bind()
        elif self._fork_epoch != _forks:
            self.bind()

    # ---- counters ------------------------------------------------------------------------------------

    cdef int drop(self, str reason) except -1:
        count = self.drops.get(reason, 0) + 1
        self.drops[reason] = count
        if count == 1:
            _log.warning(
                "peer %r dropped for the first time: %s (further ones are only counted, in "
                "peer.stats()['drops'])", getattr(self, "name", ""), reason)
        return 0

    def count_drop(self, str reason):
        self.drop(reason)

    def _unseen(self, error):
        """An error was dropped together with the call that had it, which nobody awaited."""
        role = getattr(error, "role", None)
        what = "a call" if role is None else f"a request or message to role {role!r}"
        self.drops[_UNSEEN] = self.drops.get(_UNSEEN, 0) + 1
        self.remote_log.log(logging.WARNING, _UNSEEN, "%s failed, and nobody awaited it: %s: %s", what,
                            type(error).__name__, error)
        # Python shows one of a text and line once, so that no text of a remote peer may stand in it.
        warnings.warn(
            f"{what} failed with {type(error).__name__}, which nobody saw: await it, or use send_nowait()",
            RuntimeWarning)

    def count_link(self, Connection link):
        """Take over the byte counts of a connection that is gone."""
        self.counters.bytes_sent += link.bytes_sent
        self.counters.bytes_received += link.bytes_received

    def counted(self):
        """The counters of messages, requests and bytes, as a new dict."""
        return self.counters

    # ---- deadlines: one timer for all, never one a request --------------------------------------------

    cdef int note_deadline(self, double deadline, CallTable table) except -1:
        if not table.swept:
            table.swept = True
            self._tables.add(table)
        if deadline + SWEEP_GRAIN >= self._sweep_at:
            return 0
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        self._sweep_at = deadline + SWEEP_GRAIN
        delay = self._sweep_at - now()
        self._sweep_handle = self.loop.call_later(delay if delay > 0 else 0, self._sweep)
        return 0

    def _sweep(self):
        cdef:
            double at = now()
            double earliest = INFINITE
            CallTable table
        self._sweep_handle = None
        self._sweep_at = INFINITE
        for entry in list(self._tables):
            table = <CallTable>entry
            if table.earliest <= at:
                self.counters.timeouts += table.expire(at)
            if table.used == 0:
                self._tables.discard(table)
                table.swept = False
            elif table.earliest < earliest:
                earliest = table.earliest
        if earliest < INFINITE:
            self._sweep_at = earliest + SWEEP_GRAIN
            self._sweep_handle = self.loop.call_later(max(self._sweep_at - at, SWEEP_GRAIN), self._sweep)

    def keep_pending(self, CallTable table):
        """A unit is gone, but requests that ignore it may wait on in its table."""
        table.swept = table.used > 0
        if table.swept:
            self._tables.add(table)
        else:
            self._tables.discard(table)

    def fail_pending(self, tables, make_error):
        """Fail all that is pending, in `tables` and in those of units that are gone."""
        for table in (*tables, *self._tables):
            (<CallTable>table).fail_all(make_error, and_ignoring=True)

    def stop_sweeping(self):
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
            self._sweep_handle = None
        self._sweep_at = INFINITE
        self._tables.clear()

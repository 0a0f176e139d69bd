"""Streams against a simple model: whatever is done on several at once, in whatever order.

Each stream has a script of its writer and one of its reader.  What must hold for any of them:

* what the reader gets is a start of what was written, piece by piece, with nothing in between;
* it sees the end only of a stream that its writer finished, and has all of it then;
* a failure reaches the other end as a failure;
* everything comes to its end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import roletalk
from tests.helpers import eventually, pair, ready, run
from tests.streams import KIB, MIB, OPENERS, WINDOW, Opener, open_streams, pattern

SIZES = (0, 1, 2, 1000, WINDOW - 1, WINDOW, WINDOW + 1, 65_535, 65_536, 65_537, 200_000)
TURNS = st.integers(0, 6)  # of the loop, before an operation is made or cancelled


class Write(NamedTuple):
    size: int
    pause: int
    cancelled_after: int | None


class Read(NamedTuple):
    kind: str
    size: int
    pause: int
    cancelled_after: int | None


class Plan(NamedTuple):
    opener: Opener
    writes: list[Write]
    reads: list[Read]
    ending: str
    at: int  # how many operations its doer has made before it


def rarely(strategy: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), st.none(), st.none(), strategy)


WRITES = st.builds(Write, st.sampled_from(SIZES), TURNS, rarely(TURNS))
READS = st.builds(
    Read,
    st.sampled_from(["read", "readexactly", "readinto", "next"]),
    st.sampled_from(SIZES[1:]),
    TURNS,
    rarely(TURNS),
)
ENDINGS = ("finish", "finish", "writer aborts", "writer fails", "reader aborts", "reader fails")
PLANS = st.builds(
    Plan,
    st.sampled_from(OPENERS),
    st.lists(WRITES, max_size=8),
    st.lists(READS, max_size=12),
    st.sampled_from(ENDINGS),
    st.integers(0, 8),
)


@dataclass
class Outcome:
    """What one stream has come to."""

    pieces: list[tuple[bytes, bool]] = field(default_factory=list)  # and whether it went in whole
    finished: bool = False  # whether the writer has said so, or tried to
    writer: BaseException | str = "?"
    reader: BaseException | str = "?"
    got: bytearray = field(default_factory=bytearray)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def attempt(operation: Any, cancelled_after: int | None) -> tuple[Any, bool]:
    """The result of `operation`, and True if it was cancelled before it had one."""
    if cancelled_after is None:
        return await operation, False
    task = asyncio.ensure_future(operation)
    try:
        await turns(cancelled_after)
    finally:
        task.cancel()
    await asyncio.wait([task])
    return (None, True) if task.cancelled() else (task.result(), False)


async def write(stream: Any, plan: Plan, seed: int, outcome: Outcome) -> None:
    async with stream:
        for index, each in enumerate([*plan.writes, None]):
            if plan.ending.startswith("writer") and index >= min(plan.at, len(plan.writes)):
                if plan.ending == "writer fails":
                    raise roletalk.Reject("by the writer")
                await stream.abort("by the writer")
                return
            if each is None:
                break
            await turns(each.pause)
            piece = pattern(each.size, seed * 1000 + index)
            outcome.pieces.append((piece, False))
            _, cancelled = await attempt(stream.write(piece), each.cancelled_after)
            if not cancelled:
                outcome.pieces[-1] = (piece, True)
        outcome.finished = True
        await stream.close()


async def read(stream: Any, plan: Plan, outcome: Outcome) -> None:
    async with stream:
        for index, each in enumerate([*plan.reads, None]):
            if plan.ending.startswith("reader") and index >= min(plan.at, len(plan.reads)):
                if plan.ending == "reader fails":
                    raise roletalk.Reject("by the reader")
                await stream.abort("by the reader")
                return
            if each is None:
                break
            await turns(each.pause)
            if await read_once(stream, each, outcome.got):
                outcome.reader = "end"
                return
        while chunk := await stream.read(64 * KIB):
            outcome.got += chunk
        outcome.reader = "end"


async def read_once(stream: Any, how: Read, got: bytearray) -> bool:
    """One operation; whether it saw the end."""
    try:
        if how.kind == "readinto":
            buffer = bytearray(how.size)
            count, cancelled = await attempt(stream.readinto(buffer), how.cancelled_after)
            got += buffer[: count or 0]
            return count == 0 and not cancelled
        if how.kind == "readexactly":
            chunk, _ = await attempt(stream.readexactly(how.size), how.cancelled_after)
            got += chunk or b""
            return False
        operation = stream.__anext__() if how.kind == "next" else stream.read(how.size)
        chunk, cancelled = await attempt(operation, how.cancelled_after)
    except asyncio.IncompleteReadError as error:
        got += error.partial
        return True
    except StopAsyncIteration:
        return True
    got += chunk or b""
    return chunk == b"" and not cancelled


async def play(plan: Plan, seed: int, outcome: Outcome, stream: Any, writes: bool) -> None:
    """One end of one stream; its outcome is kept, only a cancelled task's goes further."""
    try:
        if writes:
            await write(stream, plan, seed, outcome)
            outcome.writer = "finished" if outcome.finished else "aborted"
        else:
            await read(stream, plan, outcome)
            if outcome.reader == "?":
                outcome.reader = "aborted"
    except BaseException as error:
        if writes:
            outcome.writer = error
        else:
            outcome.reader = error
        if isinstance(error, asyncio.CancelledError):
            raise


async def session(
    plans: list[Plan], cut: int | None, window: int, buffer: int
) -> tuple[list[Outcome], list[Any]]:
    outcomes = [Outcome() for _ in plans]
    async with pair(stream_window=window, stream_buffer=buffer) as (server, client):
        role = server.role("r")

        async def handler(ctx: Any) -> None:
            number = ctx.data
            stream = await ctx.accept()
            await play(plans[number], number, outcomes[number], stream, ctx.kind == "writable")

        role.on_readable("e")(handler)
        role.on_writable("e")(handler)
        destination = await ready(client)

        async def opener(number: int, plan: Plan) -> None:
            reads = plan.opener == "reads"
            opening: Any = destination.readable if reads else destination.writable
            await play(plan, number, outcomes[number], await opening("e", number), not reads)

        openers = [asyncio.create_task(opener(i, plan)) for i, plan in enumerate(plans)]
        if cut is not None:
            await turns(cut)
            for unit in client.units:
                unit.connections[0].abort()
        done = await asyncio.gather(*openers, return_exceptions=True)
        await eventually(lambda: open_streams(server, client) == 0)
        await eventually(lambda: server.stats()["running_handlers"] == 0)
        if cut is None:
            assert client.stats()["drops"] == server.stats()["drops"] == {}
    return outcomes, done


def is_start(outcome: Outcome, *, whole: bool) -> bool:
    """Whether what was got is a start of the pieces; those that were cancelled may be cut short.

    With `whole`, nothing else may be missing.
    """
    got = outcome.got
    ends = {0}
    for piece, is_full in outcome.pieces:
        new: set[int] = set()
        for at in ends:
            if got.startswith(piece, at):
                new.add(at + len(piece))
            if not is_full or not whole:
                same = common(got, at, piece)
                # Cut short by the reader's end, or by a cancelled write.
                new.update(range(at, at + same + 1) if not is_full else ())
                if not whole and at + same == len(got):
                    return True
        ends = new
    return len(got) in ends


def common(got: bytearray, at: int, piece: bytes) -> int:
    """How many bytes of `piece` stand in `got` from `at` on."""
    low, high = 0, min(len(piece), len(got) - at)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if got.startswith(piece[:middle], at) else (low, middle - 1)
    return low


def is_failure(ended: BaseException | str, text: str = "") -> bool:
    # A handler is cancelled where it waits for something else than its stream.
    if isinstance(ended, asyncio.CancelledError):
        return True
    return isinstance(ended, roletalk.StreamError) and text in str(ended)


def check(plan: Plan, outcome: Outcome, cut: int | None) -> None:
    assert is_start(outcome, whole=outcome.reader == "end")
    if outcome.reader == "end":
        assert outcome.finished
    if cut is not None:
        for ended in (outcome.writer, outcome.reader):
            assert ended in ("finished", "end", "aborted") or is_failure_or_own(ended)
        return
    # A cancelled write may have aborted the stream.
    if not all(full for _, full in outcome.pieces) and is_failure(outcome.reader):
        return
    if plan.ending == "finish":
        assert (outcome.writer, outcome.reader) == ("finished", "end")
    elif plan.ending == "writer aborts":
        assert is_failure(outcome.reader, "by the writer")
        assert outcome.writer == "aborted" or is_failure(outcome.writer)
    elif plan.ending == "writer fails":
        assert is_failure(outcome.reader, "by the writer")
        assert isinstance(outcome.writer, roletalk.Reject)
    elif outcome.reader == "end":
        # The end came before its turn to abort.
        assert outcome.writer == "finished"
    else:
        assert outcome.writer == "finished" or is_failure(outcome.writer, "by the reader")
        assert outcome.reader == "aborted" or isinstance(outcome.reader, roletalk.Reject)


def is_failure_or_own(ended: BaseException | str) -> bool:
    return ended == "?" or isinstance(ended, roletalk.Reject) or is_failure(ended)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    plans=st.lists(PLANS, min_size=1, max_size=5),
    cut=rarely(st.integers(0, 60)),
    window=st.sampled_from([WINDOW, WINDOW + 1, 40_000, 65_536, MIB]),
    buffer=st.sampled_from([WINDOW, 50_000, 64 * MIB]),
)
def test_any_interleaving(plans: list[Plan], cut: int | None, window: int, buffer: int) -> None:
    outcomes, done = run(session(plans, cut, window, buffer), debug=False)
    for plan, outcome, opened in zip(plans, outcomes, done, strict=True):
        if cut is None:
            assert opened is None
        check(plan, outcome, cut)


# -- the checks themselves


@pytest.mark.parametrize(
    ("pieces", "got", "start", "whole"),
    [
        ([], b"", True, True),
        ([(b"abc", True)], b"", True, False),
        ([(b"abc", True)], b"ab", True, False),
        ([(b"abc", True)], b"abc", True, True),
        ([(b"abc", True)], b"abcd", False, False),
        ([(b"abc", True)], b"b", False, False),
        ([(b"abc", False), (b"xy", True)], b"axy", True, True),
        ([(b"abc", False), (b"xy", True)], b"xy", True, True),
        ([(b"abc", False), (b"xy", True)], b"ax", True, False),
        ([(b"abc", False), (b"xy", True)], b"bxy", False, False),
        ([(b"aaa", False), (b"ab", True)], b"aaab", True, True),
        ([(b"abc", True), (b"xy", True)], b"abxy", False, False),
    ],
)
def test_the_model(pieces: list[tuple[bytes, bool]], got: bytes, start: bool, whole: bool) -> None:
    outcome = Outcome(pieces=pieces, got=bytearray(got))
    assert is_start(outcome, whole=False) is start
    assert is_start(outcome, whole=True) is whole

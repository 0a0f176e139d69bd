"""What a WebSocket connection makes of the bytes that come in, and how it ends.

Written against docs/protocol.md, section 1, and RFC 6455; what goes out is in test_frame_out.py.
"""

# mypy: disable-error-code="unreachable"
# It takes a property for what it was before the last turn of the loop.

from __future__ import annotations

import asyncio
import functools
import gc
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

import pytest

from roletalk._frame import Connection, ConnectionState
from roletalk._inbound import FrameLimits
from tests.faketransport import Recorder, Remote, connected, turns
from tests.helpers import eventually, run
from tests.rawclient import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_payload,
    encode_frame,
    frame_header,
)

P = ParamSpec("P")


def in_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        run(_body(test, *args, **kwargs))

    return wrapper


async def _body(test: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any) -> None:
    await test(*args, **kwargs)


both_sides = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


def close_code_of(remote: Remote) -> int:
    """The code of the close frame that was sent; it is the last frame, and the only one of its kind."""
    frames = remote.sent()
    assert [frame.opcode for frame in frames].index(CLOSE) == len(frames) - 1
    return int.from_bytes(frames[-1].payload[:2], "big")


# -- whole messages ----------------------------------------------------------------------------------


@both_sides
@in_loop
async def test_a_message_in_one_frame(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(BINARY, b"hello"), remote.frame(BINARY))
        assert connection.messages == [b"hello", b""]
        assert connection.bytes_received == 5


@both_sides
@in_loop
async def test_bytes_may_come_one_by_one(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        message = bytes(range(256))
        for byte in remote.frame(BINARY, message) + remote.frame(BINARY, b"next"):
            remote.feed(bytes([byte]))
        assert connection.messages == [message, b"next"]


@both_sides
@in_loop
async def test_fragments_make_one_message(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        parts = [b"", b"ab", b"", b"c" * 5000, b""]
        for number, part in enumerate(parts):
            opcode = BINARY if number == 0 else CONTINUATION
            assert connection.messages == []
            remote.feed(remote.frame(opcode, part, fin=number == len(parts) - 1))
        assert connection.messages == [b"ab" + b"c" * 5000]
        remote.feed(remote.frame(BINARY, b"whole"))
        assert connection.messages[1:] == [b"whole"]


@in_loop
async def test_control_frames_may_stand_between_fragments() -> None:
    with connected() as (connection, remote):
        remote.feed(
            remote.frame(BINARY, b"a", fin=False),
            remote.frame(PING, b"?"),
            remote.frame(CONTINUATION, b"b", fin=False),
            remote.frame(PONG, b"unasked"),
            remote.frame(CONTINUATION, b"c"),
        )
        assert connection.messages == [b"abc"]
        assert [(frame.opcode, frame.payload) for frame in remote.sent()] == [(PONG, b"?")]


@both_sides
@pytest.mark.parametrize("split", [(1000,), (1, 999), (999, 1), (0, 1000, 0), (500, 250, 250)])
@in_loop
async def test_a_message_of_exactly_the_limit(client: bool, split: tuple[int, ...]) -> None:
    with connected(client=client, limits=FrameLimits(max_message_size=1000)) as (
        connection,
        remote,
    ):
        for number, size in enumerate(split):
            opcode = BINARY if number == 0 else CONTINUATION
            remote.feed(remote.frame(opcode, b"x" * size, fin=number == len(split) - 1))
        assert connection.messages == [b"x" * 1000]
        assert connection.is_open


@both_sides
@pytest.mark.parametrize("split", [(1001,), (1, 1000), (1000, 1), (500, 250, 251)])
@in_loop
async def test_a_message_of_one_byte_over_the_limit(client: bool, split: tuple[int, ...]) -> None:
    with connected(client=client, limits=FrameLimits(max_message_size=1000)) as (
        connection,
        remote,
    ):
        for number, size in enumerate(split):
            opcode = BINARY if number == 0 else CONTINUATION
            remote.feed(remote.frame(opcode, b"x" * size, fin=number == len(split) - 1))
        await turns()
        assert connection.messages == []
        assert close_code_of(remote) == 1009


@in_loop
async def test_the_limit_holds_before_the_last_fragment() -> None:
    with connected(limits=FrameLimits(max_message_size=1000)) as (_, remote):
        remote.feed(remote.frame(BINARY, b"x" * 900, fin=False))
        remote.feed(remote.frame(CONTINUATION, b"x" * 101, fin=False))
        await turns()
        assert close_code_of(remote) == 1009


@both_sides
@pytest.mark.parametrize("is_fragment", [False, True], ids=["message", "continuation"])
@pytest.mark.parametrize(
    ("size", "code"),
    [
        (2**64 - 1, 1002),
        (2**63, 1002),
        (2**63 - 1, 1009),
        (2**63 - 14, 1009),
        (2**32 + 5, 1009),
        (2**31, 1009),
    ],
)
@in_loop
async def test_a_length_beyond_all_memory_is_refused_from_the_header(
    client: bool, is_fragment: bool, size: int, code: int
) -> None:
    limits = FrameLimits(close_timeout=0.01)
    with connected(client=client, limits=limits) as (connection, remote):
        if is_fragment:
            remote.feed(remote.frame(BINARY, b"begun", fin=False))
        opcode = CONTINUATION if is_fragment else BINARY
        mask = None if client else b"mask"
        header = frame_header(opcode, size, mask=mask, length_bytes=8)
        tracemalloc.start()
        try:
            remote.feed(header, b"x" * 10_000)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1 << 20
        await eventually(lambda: connection.state == ConnectionState.CLOSED)
        assert connection.close_code == code
        assert connection.messages == []


@in_loop
async def test_the_count_of_fragments_is_limited() -> None:
    limits = FrameLimits(max_message_size=1000)
    limits.max_fragments = 5
    with connected(limits=limits) as (connection, remote):
        remote.feed(remote.frame(BINARY, b"", fin=False))
        for _ in range(3):
            remote.feed(remote.frame(CONTINUATION, b"", fin=False))
        remote.feed(remote.frame(CONTINUATION, b"five"))
        assert connection.messages == [b"five"]
        remote.feed(remote.frame(BINARY, b"", fin=False))
        for _ in range(5):
            remote.feed(remote.frame(CONTINUATION, b"", fin=False))
        await turns()
        assert close_code_of(remote) == 1009
        assert connection.messages == [b"five"]


def test_fragments_of_a_kilobyte_are_always_few_enough() -> None:
    for size in (0, 1000, 1 << 20, 1 << 30):
        assert FrameLimits(max_message_size=size).max_fragments >= size / 1024 + 1


# -- what is refused ---------------------------------------------------------------------------------


@both_sides
@pytest.mark.parametrize("rsv", [1, 2, 4, 7])
@pytest.mark.parametrize("opcode", [BINARY, PING, CLOSE])
@in_loop
async def test_reserved_bits(client: bool, rsv: int, opcode: int) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(opcode, close_payload(1000), rsv=rsv))
        await turns()
        assert close_code_of(remote) == 1002
        assert connection.messages == []
        assert connection.closed_by_us


@both_sides
@pytest.mark.parametrize("fin", [False, True])
@in_loop
async def test_text(client: bool, fin: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(TEXT, b"words", fin=fin))
        await turns()
        assert close_code_of(remote) == 4002
        assert connection.close_code == 4002


@both_sides
@pytest.mark.parametrize("fin", [False, True])
@in_loop
async def test_a_continuation_of_nothing(client: bool, fin: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(BINARY, b"done"), remote.frame(CONTINUATION, b"more", fin=fin))
        await turns()
        assert close_code_of(remote) == 1002
        assert connection.messages == [b"done"]


@both_sides
@pytest.mark.parametrize("opcode", [BINARY, TEXT])
@pytest.mark.parametrize("fin", [False, True])
@in_loop
async def test_a_message_inside_a_message(client: bool, opcode: int, fin: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(
            remote.frame(BINARY, b"first", fin=False),
            remote.frame(opcode, b"second", fin=fin),
            remote.frame(CONTINUATION, b"rest"),
        )
        await turns()
        assert close_code_of(remote) == (1002 if opcode == BINARY else 4002)
        assert connection.messages == []


@both_sides
@in_loop
async def test_the_wrong_masking(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        wrong = encode_frame(BINARY, b"hi", mask=b"\1\2\3\4" if client else None)
        remote.feed(wrong)
        assert close_code_of(remote) == 1002
        await eventually(lambda: connection.state == ConnectionState.CLOSED)
        assert connection.messages == []
        assert connection.close_code == 1002
        assert connection.closed_by_us


@pytest.mark.parametrize("opcode", [3, 7, 11, 15])
@in_loop
async def test_an_unknown_opcode(opcode: int) -> None:
    with connected() as (_, remote):
        remote.feed(remote.frame(opcode))
        assert close_code_of(remote) == 1002


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@in_loop
async def test_control_frames_are_small_and_whole(opcode: int) -> None:
    for bad in ({"fin": False}, {"payload": b"x" * 126}):
        with connected() as (_, remote):
            remote.feed(remote.frame(opcode, **bad))
            assert close_code_of(remote) == 1002


VIOLATIONS = {
    "unmasked": encode_frame(BINARY, b"x", mask=None),
    "unknown opcode": encode_frame(3),
    "control frame in fragments": encode_frame(PING, fin=False),
    "length in a longer form than needed": encode_frame(BINARY, b"x", length_bytes=2),
    "bad close code": encode_frame(CLOSE, close_payload(999)),
    "close code of one byte": encode_frame(CLOSE, b"\x03"),
    "reserved bits": encode_frame(BINARY, b"x", rsv=1),
    "text": encode_frame(TEXT, b"x"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("at_once", [False, True])
@in_loop
async def test_nothing_is_heard_after_a_violation(name: str, at_once: bool) -> None:
    with connected() as (connection, remote):
        rest = (remote.frame(BINARY, b"late"), remote.frame(PING), remote.frame(CLOSE))
        if at_once:
            remote.feed(VIOLATIONS[name], *rest)
        else:
            remote.feed(VIOLATIONS[name])
        for frame in rest:
            remote.feed(frame)
        await turns()
        assert connection.messages == []
        assert close_code_of(remote) in (1002, 4002)


# -- the end -----------------------------------------------------------------------------------------


# After one of these it cannot be told where the next frame begins, or it is not wanted.
UNFRAMED: dict[str, Callable[[Remote], bytes]] = {
    "reserved bits": lambda remote: remote.frame(BINARY, b"x", rsv=4),
    "unknown opcode": lambda remote: remote.frame(3),
    "control frame in fragments": lambda remote: remote.frame(PING, fin=False),
    "long control frame": lambda remote: remote.frame(PING, bytes(126)),
    "too big": lambda remote: remote.frame(BINARY, bytes(1001)),
}


@both_sides
@pytest.mark.parametrize("name", UNFRAMED)
@in_loop
async def test_a_server_ends_its_direction_after_a_violation(client: bool, name: str) -> None:
    with connected(client=client, limits=FrameLimits(max_message_size=1000)) as (
        connection,
        remote,
    ):
        remote.feed(UNFRAMED[name](remote))
        await turns()
        close_code_of(remote)
        assert remote.transport.half_closed is not client
        assert not remote.transport.closing
        # What still comes is read, and thrown away, so that it cannot make the system reset the connection.
        remote.feed(remote.frame(BINARY, b"x" * 1000), remote.frame(CLOSE, close_payload(1002)))
        assert connection.messages == []
        assert not remote.sent()
        remote.transport._lose()
        assert connection.closed_by_us
        assert connection.close_code in (1002, 1009)


@both_sides
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4000, 4999])
@in_loop
async def test_a_close_code_is_echoed(client: bool, code: int) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(CLOSE, close_payload(code, "bye")))
        assert close_code_of(remote) == code
        await eventually(lambda: connection.state == ConnectionState.CLOSED)
        assert (connection.close_code, connection.close_reason) == (code, "bye")
        assert not connection.closed_by_us
        assert connection.closings == 1


@both_sides
@in_loop
async def test_a_close_frame_without_a_code(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(CLOSE))
        assert close_code_of(remote) == 1000
        await eventually(lambda: connection.state == ConnectionState.CLOSED)
        assert not connection.closed_by_us


@both_sides
@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
@in_loop
async def test_a_close_code_that_may_not_be_sent(client: bool, code: int) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(remote.frame(CLOSE, close_payload(code)))
        await turns()
        assert close_code_of(remote) == 1002
        remote.transport.close()
        await eventually(lambda: connection.state == ConnectionState.CLOSED)
        assert connection.closed_by_us
        assert connection.close_code == 1002


@both_sides
@in_loop
async def test_data_after_the_remotes_close_frame_is_ignored(client: bool) -> None:
    with connected(client=client) as (connection, remote):
        remote.feed(
            remote.frame(BINARY, b"before"),
            remote.frame(CLOSE, close_payload(1000)),
            remote.frame(BINARY, b"after"),
            remote.frame(PING, b"after"),
        )
        await turns()
        assert connection.messages == [b"before"]
        assert close_code_of(remote) == 1000


class _Failing(Recorder):
    def on_message(self, message: bytes) -> None:
        super().on_message(message)
        raise {b"error": ValueError, b"exit": KeyboardInterrupt}[message]


@in_loop
async def test_an_error_in_the_receiver_closes_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = _Failing(FrameLimits(), is_client=False)
    remote = Remote(connection)
    remote.feed(remote.frame(BINARY, b"error"), remote.frame(BINARY, b"error"))
    await turns()
    assert close_code_of(remote) == 1011
    assert connection.messages == [b"error"]
    assert "ValueError" in caplog.text
    caplog.clear()  # its records hold the traceback, and that the connection
    connection.abort()
    await turns()


def test_an_interrupt_in_the_receiver_goes_to_the_loop() -> None:
    loop = asyncio.new_event_loop()
    connections: list[tuple[_Failing, Remote]] = []

    async def receive() -> None:
        connection = _Failing(FrameLimits(), is_client=False)
        remote = Remote(connection)
        connections.append((connection, remote))
        remote.feed(remote.frame(BINARY, b"exit"))
        await asyncio.sleep(30)

    task = loop.create_task(receive())
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        ((connection, remote),) = connections
        assert connection.is_open
        remote.transport.close()
        task.cancel()
        loop.run_until_complete(asyncio.wait({task}))
        loop.run_until_complete(turns())
    finally:
        loop.close()


@both_sides
@pytest.mark.parametrize("ending", ["ours", "theirs", "violation", "abort", "lost"])
@in_loop
async def test_no_cycle_keeps_a_lost_connection(client: bool, ending: str) -> None:
    gc.collect()
    gc.disable()
    try:
        gone = await _a_lost_connection(client, ending)
        assert gone() is None
    finally:
        gc.enable()


async def _a_lost_connection(client: bool, ending: str) -> weakref.ref[Connection]:
    connection = Recorder(FrameLimits(), is_client=client)
    remote = Remote(connection)
    remote.feed(remote.frame(BINARY, b"x" * 10), remote.frame(BINARY, b"half", fin=False))
    connection.send_message(b"y")
    if ending == "ours":
        connection.close(4000)
        remote.feed(remote.frame(CLOSE, close_payload(4000)))
    elif ending == "theirs":
        remote.feed(remote.frame(CLOSE, close_payload(4000)))
    elif ending == "violation":
        remote.feed(b"\xff\xff\xff\xff")
    elif ending == "abort":
        connection.abort()
    else:
        remote.transport.close()
    await eventually(lambda: connection.state == ConnectionState.CLOSED)
    await turns()
    return weakref.ref(connection)

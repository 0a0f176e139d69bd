"""The HTTP upgrade: any request or response, cut anywhere, and the frames behind it (RFC 6455, section 4)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from contextlib import suppress
from typing import Final

from roletalk._frame import ConnectionState
from roletalk._inbound import FrameLimits
from roletalk.gate import Gate
from tests.faketransport import FakeTransport, Recorder
from trials.fuzz import reference
from trials.fuzz.source import Source, cutter

DICTIONARY: Final = (
    b"GET / HTTP/1.1\r\n", b"HTTP/1.1 101 Switching Protocols\r\n", b"Upgrade: websocket\r\n",
    b"Connection: Upgrade\r\n", b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Key: ", b"\r\n\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"Sec-WebSocket-Protocol: x\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: h\r\n", b"\r\n ", b"\n\n",
)  # fmt: skip
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY: Final = base64.b64encode(bytes(range(16)))
# Stands for the right answer to a key that is not known yet, and is as long.
ACCEPT: Final = b"<what the listener is to say>"[:28]
REQUEST: Final = (
    b"GET /path HTTP/1.1", b"Host: h", b"Upgrade: websocket", b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY,
)  # fmt: skip
RESPONSE: Final = (
    b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade",
    b"Sec-WebSocket-Accept: " + ACCEPT,
)  # fmt: skip
LOOP: Final = asyncio.new_event_loop()
# Long enough for every end of a connection to be heard of.
TURNS: Final = 3


def test_one(data: bytes) -> None:
    LOOP.run_until_complete(_upgrade(Source(data)))


async def _upgrade(source: Source) -> None:
    is_client = source.flag()
    budget = source.pick((-1, -1, 40, 1000))
    cut = cutter(source)
    head, behind = _head(source, is_client), _behind(source, is_client)
    data = head + behind
    whole = await _outcome(data, [len(data)], is_client, budget)
    pieces = await _outcome(data, [len(piece) for piece in cut(data)], is_client, budget)
    if budget < 0:
        assert pieces == whole, (pieces, whole)
    else:
        # All that comes along with the head is taken; of reads, no more than the budget.
        assert pieces[0] == whole[0]


async def _outcome(
    data: bytes, sizes: list[int], is_client: bool, budget: int
) -> tuple[bool, list[bytes], int]:
    """Whether it was upgraded, the messages that came, and the close code."""
    connection = Recorder(FrameLimits(), is_client=is_client)
    name = "remote" if is_client else None
    gate = Gate(connection, host=name, target="/" if is_client else None, budget=budget)
    transport = FakeTransport(gate)
    if is_client:
        request = transport.written()
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
        assert key is not None
        data = data.replace(ACCEPT, base64.b64encode(hashlib.sha1(key[1] + GUID).digest()))
    for size in sizes:
        if not transport.closing:
            transport.feed(data[:size])
        data = data[size:]
    is_upgraded = connection.state != ConnectionState.CONNECTING
    if not is_upgraded:
        assert connection.messages == []
        assert connection.close_code == 0
    code = connection.close_code
    transport.abort()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    if is_client and not is_upgraded:
        # It ends, with whatever picows makes of what is no response.
        with suppress(Exception):
            await gate.wait_upgraded()
    assert connection.closings == is_upgraded
    return is_upgraded, connection.messages, code


def _head(source: Source, is_client: bool) -> bytes:
    if source.flag():
        return source.take(source.number(2) % 2000)
    lines = list(RESPONSE if is_client else REQUEST)
    for _ in range(source.byte() % 4):
        at = source.byte() % len(lines)
        how = source.byte() % 5
        if how == 0:
            lines[at] = source.some(60)
        elif how == 1:
            del lines[at]
            lines = lines or [b""]
        elif how == 2:
            lines.insert(at, source.some(60))
        elif how == 3:
            lines[at] += source.some(20)
        else:
            lines.append(lines[at])
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _behind(source: Source, is_client: bool) -> bytes:
    """What stands behind the head: frames, or anything."""
    frames = []
    for _ in range(source.byte() % 4):
        mask = None if is_client else b"mask"
        frames.append(reference.frame(source.pick((2, 9, 8, 1)), source.some(100), mask=mask))
    return b"".join(frames) + source.rest()

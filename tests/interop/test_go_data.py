"""The library against a real roletalk-go peer: what messages, requests and replies carry."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import math
import random
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from roletalk import (
    Context,
    NoUnitsError,
    Peer,
    Reject,
    RemoteError,
    RequestContext,
    RequestTimeout,
)
from tests.helpers import run

from .gopeer import GoError, GoPeer, GoValue, Relay, eventually, same, typed
from .linking import link, looped

pytestmark = pytest.mark.slow

CONTINUATION, BINARY = 0, 2

INTEGERS = [0, 1, -1, -10, 255, 256, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**308]
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 123.1122, 1e-11, 1e21, 1e22, 5e-324, 1.7976931348623157e308]
NUMBERS = [*INTEGERS, *FLOATS, math.inf, -math.inf, math.nan]
STRINGS = ["", "a", "héllo ☃ 🎉", "\0", 'quo"te\\\n', "<>&", "\u2028", "é" * 5000]
BINARIES = [b"", b"\0", bytes(range(256)), b"\xff" * 5000]
OBJECTS: list[Any] = [
    {},
    [],
    {"": None},
    [None, True, 1, -2.5, "x", [], {}],
    {"ключ": {"<>&": "☃"}},
    {"big": 2**53 + 1, "small": 1e-300, "deep": [[[[[[[[1]]]]]]]]},
]
OTHERS: list[Any] = [None, True, False, *STRINGS, *BINARIES, *OBJECTS]


@dataclass
class Seen:
    """What a handler of ours was given."""

    data: Any
    raw: bytes
    datatype: int


def serve_echo(peer: Peer) -> asyncio.Queue[Seen]:
    """Serve the role "py": requests "echo" and any message; what comes is put into the queue."""
    seen: asyncio.Queue[Seen] = asyncio.Queue()
    role = peer.role("py")

    @role.on_request("echo")
    def echo(ctx: Context) -> Any:
        seen.put_nowait(Seen(ctx.data, bytes(ctx.raw), int(ctx.datatype)))
        return ctx.data

    @role.on_message()
    def message(ctx: Context) -> None:
        seen.put_nowait(Seen(ctx.data, bytes(ctx.raw), int(ctx.datatype)))

    return seen


def as_go_echoes(number: float) -> float:
    """Go has only floats, and writes ten decimals of them."""
    return float(f"{float(number):.10f}")


# --- data types -------------------------------------------------------------------------------


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_values_to_go(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        await link(peer, go, dialler)
        destination = peer.destination("go")
        for index, value in enumerate([*NUMBERS, *OTHERS]):
            number = type(value) in (int, float)
            expected = float(value) if number else value

            described = await destination.request("describe", value, timeout=5)
            seen = GoValue.parse(described.data)
            assert same(seen.python, expected), (value, seen)

            await destination.send(f"m{index}", value)
            assert same((await go.message(f"m{index}")).python, expected), value

            echoed = (await destination.request("echo", value, timeout=5)).data
            assert same(echoed, as_go_echoes(value) if number else value), (value, echoed)


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (5, b"5"),
        (2**64, b"18446744073709551616"),
        (1.0, b"1.0"),
        (math.inf, b"Infinity"),
        (-math.inf, b"-Infinity"),
        (math.nan, b"NaN"),
    ],
)
@looped
async def test_number_as_written(program: Path, value: float, raw: bytes) -> None:
    """JavaScript peers take no other spelling of these."""
    async with await GoPeer.start(program) as go, Peer() as peer:
        await link(peer, go, "python")
        reply = await peer.destination("go").request("describe", value, timeout=5)
        assert GoValue.parse(reply.data).raw == raw


@looped
async def test_more_python_types_to_go(program: Path) -> None:
    @dataclass
    class Point:
        x: int
        y: float

    moment = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
    async with await GoPeer.start(program) as go, Peer() as peer:
        await link(peer, go, "python")
        destination = peer.destination("go")
        for value, expected in [
            (bytearray(b"\0\1"), b"\0\1"),
            (memoryview(b"\0\1\2\3")[1:3], b"\1\2"),
            ((1, "two"), [1, "two"]),
            (Point(1, 2.5), {"x": 1, "y": 2.5}),
            (moment, "2024-02-29T12:30:00Z"),
        ]:
            reply = await destination.request("describe", value, timeout=5)
            assert GoValue.parse(reply.data).python == expected
        assert (await destination.request("sum", [1, 2, 3.5], timeout=5)).data == 6.5
        with pytest.raises(TypeError):
            await destination.request("echo", object(), timeout=5)
        with pytest.raises(ValueError):
            await destination.request("echo", 10**309, timeout=5)
        assert (await destination.request("echo", "still there", timeout=5)).data == "still there"


_MAX_DIGITS = f"{1.7976931348623157e308:.10f}".rstrip("0").encode()

WRITTEN_BY_GO: list[tuple[dict[str, str], bytes, Any]] = [
    # what Go sends, the payload that it makes of it, what we read
    (typed("float64", "5"), b"5.", 5.0),
    (typed("float64", "0"), b"0.", 0.0),
    (typed("float64", "-0"), b"-0.", -0.0),
    (typed("float64", "100"), b"100.", 100.0),
    (typed("float64", "0.1"), b"0.1", 0.1),
    (typed("float64", "123.1122"), b"123.1122", 123.1122),
    (typed("float64", "0.123456789012"), b"0.123456789", 0.123456789),
    (typed("float64", "1e-11"), b"0.", 0.0),
    (typed("float64", "-1e-11"), b"-0.", -0.0),
    (typed("float64", "1e21"), b"1000000000000000000000.", 1e21),
    (typed("float64", "1.7976931348623157e308"), _MAX_DIGITS, 1.7976931348623157e308),
    (typed("float64", "+Inf"), b"+Inf", math.inf),
    (typed("float64", "-Inf"), b"-Inf", -math.inf),
    (typed("float64", "NaN"), b"NaN", math.nan),
    (typed("float32", "0.1"), b"0.1000000015", 0.1000000015),
    (typed("int", "5"), b"5", 5),
    (typed("int8", "-128"), b"-128", -128),
    (typed("int64", str(-(2**63))), str(-(2**63)).encode(), -(2**63)),
    (typed("uint64", str(2**64 - 1)), str(2**64 - 1).encode(), 2**64 - 1),
    (typed("complex128", "1+2i"), b"(1.0000000000+2.0000000000i)", "(1.0000000000+2.0000000000i)"),
    (typed("json", '{"a": "<&>"}'), b'{"a":"\\u003c\\u0026\\u003e"}', {"a": "<&>"}),
    (typed("json", "[1, 2.5, null]"), b"[1,2.5,null]", [1, 2.5, None]),
    (typed("json", '"text"'), b'"text"', "text"),
    (typed("json", "12"), b"12", 12),
    (typed("json", "null"), b"null", None),
]


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_values_from_go(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        received = serve_echo(peer)
        await link(peer, go, dialler)

        for written, raw, expected in WRITTEN_BY_GO:
            await go.request("py", "echo", written)
            await go.send("py", "message", written)
            for _ in range(2):
                seen = await received.get()
                assert same(seen.data, expected), (written, seen)
                assert seen.raw == raw

        for value, datatype in zip(OTHERS, map(datatype_of, OTHERS), strict=True):
            reply = await go.request("py", "echo", value)
            assert same(reply.python, value), (value, reply)
            assert reply.datatype == datatype
            await go.send("py", "message", value)
            for _ in range(2):
                seen = await received.get()
                assert same(seen.data, value), (value, seen)
                assert seen.datatype == datatype


def datatype_of(value: Any) -> int:
    """Its number on the wire (docs/protocol.md, section 2)."""
    return {bytes: 0, type(None): 1, bool: 2, str: 3, dict: 5, list: 5}[type(value)]


@looped
async def test_our_replies_as_go_sees_them(program: Path) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        values = iter([*NUMBERS, *OTHERS])
        peer.role("py").on_request("next")(lambda _: next(values))
        await link(peer, go, "python")
        for value in [*NUMBERS, *OTHERS]:
            seen = (await go.request("py", "next")).python
            assert same(seen, float(value) if type(value) in (int, float) else value), value


@looped
async def test_object_decoded_to_a_type(program: Path) -> None:
    @dataclass
    class Point:
        x: int
        y: float

    async with await GoPeer.start(program) as go, Peer() as peer:
        peer.role("py").on_request("area")(lambda ctx: ctx.decode(Point).x * ctx.decode(Point).y)
        await link(peer, go, "go")
        assert (await go.request("py", "area", {"x": 3, "y": 0.5})).python == 1.5
        with pytest.raises(GoError):
            await go.request("py", "area", {"x": "three", "y": 0.5})


# --- sizes ------------------------------------------------------------------------------------

SIZES = [1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20]


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_sizes(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        received = serve_echo(peer)
        await link(peer, go, dialler)
        destination = peer.destination("go")
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            assert (await destination.request("echo", data, timeout=10)).data == data
            await destination.send(f"m{size}", data)
            assert (await go.message(f"m{size}")).python == data
            assert (await go.request("py", "echo", data)).python == data
            await go.send("py", "message", data)
            assert [(await received.get()).data for _ in range(2)] == [data, data]

            text = ("é☃🎉x" * size)[: (size + 3) // 4]  # fragments cut it between any two bytes
            assert (await destination.request("echo", text, timeout=10)).data == text
            assert (await go.request("py", "echo", text)).python == text
            assert (await received.get()).data == text


@looped
async def test_fragments(program: Path) -> None:
    """A dialling Go peer cuts whatever is over 4 KiB into many frames; we send one a message."""
    data = random.Random(0).randbytes(1 << 20)
    async with await GoPeer.start(program) as go, Peer() as peer:
        received = serve_echo(peer)
        listener = await peer.listen("127.0.0.1", 0)
        async with Relay.to(listener.port) as relay:
            await go.connect(relay.url)
            await go.event("unit", unit=peer.id)
            reply = await go.request("py", "echo", data)
            assert reply.python == data
            assert (await received.get()).data == data

            gos = [frame for frame in relay.from_dialler() if frame.opcode in (0, BINARY)]
            assert sum(frame.opcode == CONTINUATION for frame in gos) > 200
            ours = [frame for frame in relay.from_acceptor() if frame.opcode in (0, BINARY)]
            assert all(frame.fin and frame.opcode == BINARY for frame in ours)
            assert ours[-1].length > len(data)


@looped
async def test_long_names(program: Path) -> None:
    role, event = "роль" * 8000, "é" * 30_000
    async with await GoPeer.start(program, roles=["go"]) as go, Peer() as peer:
        peer.role(role).on_request(event)(lambda _: "reached")
        await link(peer, go, "go")
        assert (await go.request(role, event, unit=peer.id)).python == "reached"
        await peer.destination("go").send(event, 1)
        assert (await go.message(event)).python == 1


# --- rejects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_gos_rejects(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        unit = await link(peer, go, dialler)
        destination = peer.destination("go")
        for event in ("fail", "fail_null", "no such event"):
            with pytest.raises(RemoteError) as caught:
                await destination.request(event, timeout=5)
            error = caught.value
            # Go writes its errors as the object {}.
            assert error.text == "rejected"
            assert (error.unit, error.role, error.event) == (unit, "go", event)
        with pytest.raises(NoUnitsError):
            await peer.destination("no such role").request("echo", unit=unit, timeout=5)
        await destination.send("no such message", unit=unit)
        assert (await destination.request("echo", 1, timeout=5)).data == 1


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_our_rejects(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        role = peer.role("py")
        role.on_request("echo")(lambda ctx: ctx.data)

        @role.on_request("reject")
        async def reject(_: Context) -> None:
            raise Reject("nö, ☃ <&>")

        @role.on_request("reject_call")
        def reject_call(ctx: RequestContext) -> None:
            ctx.reject("by call")

        @role.on_request("raise")
        async def fail(_: Context) -> None:
            raise KeyError("what nobody else should read")

        @role.on_request("unencodable")
        def unencodable(_: Context) -> object:
            return object()

        peer.role("off", active=False).on_request("echo")(lambda ctx: ctx.data)
        await link(peer, go, dialler)

        async def text(role: str, event: str) -> str:
            with pytest.raises(GoError) as caught:
                await go.request(role, event, unit=peer.id)
            return str(caught.value)

        assert await text("py", "reject") == "nö, ☃ <&>"
        assert await text("py", "reject_call") == "by call"
        assert await text("py", "raise") == "internal error"
        assert await text("py", "unencodable") == "internal error"
        for unknown in (("py", "no such event"), ("no such role", "echo"), ("off", "echo")):
            answer = await text(*unknown)
            assert answer
            assert not answer.startswith("Request timeout")
        await go.send("no such role", "gone", unit=peer.id)
        await go.send("py", "no such message", unit=peer.id)
        assert (await go.request("py", "echo", "still there")).python == "still there"


@looped
async def test_our_request_times_out(program: Path) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        await link(peer, go, "python")
        destination = peer.destination("go")
        with pytest.raises(RequestTimeout):
            await destination.request("hang", timeout=0.2)
        await go.event("hanging")
        await go.call("release")  # its answer finds nobody waiting
        await eventually(lambda: peer.stats()["late_replies"] == 1, "the late answer")
        assert (await destination.request("slow", 1, timeout=5)).data == "slow"
        assert len(peer.units) == 1


@looped
async def test_gos_request_times_out(program: Path) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        release = asyncio.Event()
        role = peer.role("py")

        @role.on_request("hang")
        async def hang(_: Context) -> str:
            await release.wait()
            return "late"

        role.on_request("echo")(lambda ctx: ctx.data)
        await link(peer, go, "go")
        with pytest.raises(GoError, match="Request timeout"):
            await go.request("py", "hang", timeout_ms=200)
        release.set()
        assert (await go.request("py", "echo", "in time")).python == "in time"
        assert len(peer.units) == 1


# --- many at a time ---------------------------------------------------------------------------

# Go's handlers hold their answers back until this many requests are waiting; ours do the same.
AT_ONCE = 400


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_many_concurrent_requests(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program) as go, Peer() as peer:
        waiting = 0
        everybody = asyncio.Event()

        @peer.role("py").on_request("gate")
        async def gate(ctx: Context) -> Any:
            nonlocal waiting
            waiting += 1
            if waiting == AT_ONCE:
                everybody.set()
            await everybody.wait()
            return ctx.data

        await link(peer, go, dialler)
        destination = peer.destination("go")
        requests = [
            destination.request("gate", {"Index": index, "Of": AT_ONCE}, timeout=30)
            for index in range(AT_ONCE)
        ]
        burst = go.call("burst", role="py", event="gate", count=AT_ONCE, concurrency=AT_ONCE)
        replies, answered = await asyncio.gather(asyncio.gather(*requests), burst)
        assert [reply.data for reply in replies] == list(range(AT_ONCE))
        assert answered == AT_ONCE


def test_correlations_of_three_bytes(program: Path) -> None:
    """Go counts its requests from one, so past 65,535 of them a correlation takes three bytes."""
    count = 66_000

    async def main() -> None:
        async with await GoPeer.start(program) as go, Peer() as peer:
            handled = itertools.count(1)

            @peer.role("py").on_request("echo")
            def echo(ctx: Context) -> Any:
                next(handled)
                return ctx.data

            await link(peer, go, "go")
            burst = go.call("burst", role="py", event="echo", count=count, concurrency=50)
            assert await burst == count
            assert next(handled) == count + 1

            destination = peer.destination("go")
            for start in range(0, count, 500):
                wanted = range(start, min(start + 500, count))
                requests = [destination.request("echo", index, timeout=20) for index in wanted]
                assert [reply.data for reply in await asyncio.gather(*requests)] == list(wanted)

    run(main(), timeout=120, debug=False)  # the debug mode of asyncio takes ten times as long


@looped
async def test_order_on_one_connection(program: Path) -> None:
    """Go writes in order; it reads in no order, so only one direction can be seen."""
    count = 2000
    async with await GoPeer.start(program) as go, Peer() as peer:
        received = serve_echo(peer)
        await link(peer, go, "go")
        await go.call("send_numbers", role="py", event="n", count=count)
        assert [(await received.get()).data for _ in range(count)] == list(range(count))

        destination = peer.destination("go")
        for index in range(count):
            await destination.send("n", index)
        seen = {(await go.message("n")).python for _ in range(count)}
        assert seen == set(range(count))


@looped
async def test_messages_and_requests_interleaved_with_large_ones(program: Path) -> None:
    """Small requests overtake nothing wrongly while both sides fill each other's buffers."""
    large = random.Random(1).randbytes(1 << 20)
    async with await GoPeer.start(program) as go, Peer() as peer:
        serve_echo(peer)
        await link(peer, go, "go")
        destination = peer.destination("go")
        both: list[Awaitable[Any]] = []
        for index in range(8):
            both += [
                destination.request("echo", large, timeout=30),
                destination.request("echo", index, timeout=30),
                go.request("py", "echo", large),
                go.request("py", "echo", index),
            ]
        replies = await asyncio.gather(*both)
        assert [reply.data for reply in replies[0::4]] == [large] * 8
        assert [reply.data for reply in replies[1::4]] == list(range(8))
        assert [reply.python for reply in replies[2::4]] == [large] * 8
        assert [reply.python for reply in replies[3::4]] == list(range(8))
        assert len(peer.units) == 1

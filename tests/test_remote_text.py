"""Whatever text a remote peer sends, no error and no log line of ours carries it raw or whole."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import roletalk
from tests import rawclient as raw
from tests.helpers import eventually, pair, peers, ready, run
from tests.streams import OPENERS, read_all
from tests.streamscene import scene

EVIL = "\n\r\x1b[2J\x9b\u202e\u2028" + "x" * 10_000
EVIL_BYTES = EVIL.encode()
LONGEST = 4096

Logged = Callable[[], list[str]]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Logged]:
    """What the library logs meanwhile; held to be harmless in the end."""
    caplog.set_level(logging.DEBUG, "roletalk")
    yield lambda: [r.getMessage() for r in caplog.records if r.name.startswith("roletalk")]
    for record in caplog.get_records("call"):
        if record.name.startswith("roletalk"):
            assert_harmless(record.getMessage())
            assert record.exc_info is None


def assert_harmless(text: str) -> None:
    assert text.isprintable(), f"not printable: {text[:300]!r}"
    assert len(text) <= LONGEST
    assert "x" * LONGEST not in text


def assert_error_is_harmless(error: BaseException) -> None:
    assert_harmless(str(error))
    shown = "".join(traceback.format_exception(error))
    # What stands in the sources that a traceback quotes is ours.
    for evil in "\r\x1b\x9b\u202e\u2028":
        assert evil not in shown


async def caught(awaitable: Any, error: type[BaseException]) -> BaseException:
    with pytest.raises(error) as found:
        await awaitable
    assert_error_is_harmless(found.value)
    return found.value


# -- what a dialler gets


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 " + EVIL_BYTES[:3000].replace(b"\n", b"").replace(b"\r", b"") + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x1b[2J" + b"x" * 5000 + b"\r\n\r\n",
        b"\x1b[2J" + b"x" * 3000 + b"\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nUpgrade: \x1b[2J" + b"x" * 3000 + b"\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: \x1b[2J\r\n\r\n",
    ],
)
def test_an_answer_to_the_upgrade(logged: Logged, answer: bytes) -> None:
    async def main() -> None:
        with raw.RawListener() as listener:

            def serve() -> None:
                with listener.accept() as connection:
                    raw.read_upgrade(connection)
                    connection.send_raw(answer)

            async with peers("client") as (client,):
                serving = asyncio.create_task(asyncio.to_thread(serve))
                url = f"ws://127.0.0.1:{listener.port}"
                await caught(client.connect(url), roletalk.ConnectError)
                await serving

    run(main())


@pytest.mark.parametrize("code", [1000, 4001, 4007])
def test_a_close_reason_in_the_handshake(logged: Logged, code: int) -> None:
    async def main() -> None:
        with raw.RawListener() as listener:

            def serve() -> None:
                with listener.accept_upgraded() as connection:
                    connection.shut(code, EVIL[:60])
                    connection.wait_closed(answer_close=False)

            async with peers("client") as (client,):
                serving = asyncio.create_task(asyncio.to_thread(serve))
                url = f"ws://127.0.0.1:{listener.port}"
                await caught(client.connect(url), roletalk.RoletalkError)
                await serving

    run(main())


# -- what a stranger says


@pytest.mark.parametrize(
    "message",
    [
        raw.json_message(raw.ERROR, EVIL),
        bytes([raw.ERROR]) + EVIL_BYTES,
        raw.json_message(raw.CHALLENGE, {"challenge": EVIL[:200], "ids": [EVIL[:50]]}),
        raw.json_message(raw.CHALLENGE, {EVIL: EVIL}),
        raw.json_message(raw.PROOF, {"id": EVIL, "proof": EVIL}),
        raw.json_message(raw.PROOF, {"id": {EVIL: 1}, "proof": EVIL}),
        raw.json_message(raw.CONFIRMED, {"id": EVIL}),
    ],
)
def test_a_handshake_message(logged: Logged, message: bytes) -> None:
    async def main() -> None:
        async with peers("server", keys={"k": "secret"}) as (server,):
            port = (await server.listen()).port
            with await asyncio.to_thread(raw.dial, port) as connection:
                connection.send(message)
                await eventually(lambda: server.stats()["handshake_failures"] == 1)
            assert any("turned away" in line for line in logged())

    run(main())


@pytest.mark.parametrize(
    "changed",
    [
        {"roles": [EVIL, 5]},
        {"roles": {EVIL: EVIL}},
        {"tags": {EVIL: 5}},
        {"meta": {"protocol": EVIL}},
        {"id": EVIL},
    ],
)
def test_bad_peer_data(logged: Logged, changed: dict[str, Any]) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            port = (await server.listen()).port
            with await asyncio.to_thread(raw.dial, port) as connection:
                connection.send(raw.json_message(raw.CONFIRMED, {**raw.peer_data("id"), **changed}))
                await eventually(lambda: server.stats()["handshake_failures"] == 1)

    run(main())


# -- what a unit says


def evil_unit(port: int, script: Callable[[raw.Connection], None]) -> None:
    with raw.dial(port) as connection:
        data = raw.peer_data(EVIL[:250], name=EVIL[:1000], roles=["r", EVIL], tags={EVIL: EVIL})
        raw.authenticate(connection, data=data)
        script(connection)


async def with_evil_unit(server: roletalk.Peer, script: Callable[[raw.Connection], None]) -> Any:
    port = (await server.listen()).port
    return asyncio.create_task(asyncio.to_thread(evil_unit, port, script))


def test_a_unit_of_that_name(logged: Logged) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            done = asyncio.Event()
            loop = asyncio.get_running_loop()
            leave = asyncio.run_coroutine_threadsafe
            scripted = await with_evil_unit(server, lambda _: leave(done.wait(), loop).result(20))
            destination = await ready(server)
            unit = server.units[0]
            assert_harmless(repr(unit))
            other = server.destination("other")
            await caught(other.request("e", unit=unit), roletalk.NoUnitsError)
            pending = asyncio.ensure_future(destination.request("e"))
            await asyncio.sleep(0)
            done.set()
            await caught(pending, roletalk.UnitClosedError)
            await caught(destination.request("e", unit=unit), roletalk.UnitClosedError)
            await scripted

    run(main())


@pytest.mark.parametrize("kind", [raw.REJECT, raw.RESOLVE, raw.STREAM_REJECT, raw.STREAM_RESOLVE])
def test_an_answer(logged: Logged, kind: int) -> None:
    values = [EVIL, {EVIL: EVIL}, [EVIL], '{"data": "Error: ' + EVIL + '"}']

    def answer_all(connection: raw.Connection) -> None:
        for value in values:
            asked = raw.decode(connection.read_message())
            while asked.kind == raw.ROLES:
                asked = raw.decode(connection.read_message())
            if kind in (raw.STREAM_REJECT, raw.STREAM_RESOLVE):
                answer = raw.stream_answer(kind, asked.correlation, 9, raw.value(value))
            else:
                answer = raw.answer(kind, asked.correlation, raw.value(value))
            connection.send(answer)

    async def main() -> None:
        async with peers("server") as (server,):
            scripted = await with_evil_unit(server, answer_all)
            destination = await ready(server)
            for value in values:
                if kind != raw.RESOLVE:
                    error = await caught(destination.request("e"), roletalk.RoletalkError)
                    if kind == raw.REJECT and isinstance(value, str):
                        assert isinstance(error, roletalk.RemoteError)
                        assert error.text == value[:4096]
                    continue
                reply = await destination.request("e")
                assert reply.data == value
                assert_harmless(repr(reply))
                for shape in (int, dict[str, int], list[int]):
                    with pytest.raises(roletalk.BadPayload) as found:
                        reply.decode(shape)
                    assert_error_is_harmless(found.value)
            await scripted

    run(main())


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    known: int = 0


def test_a_payload_with_a_field_of_that_name(logged: Logged) -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            def decode(ctx: roletalk.RequestContext) -> None:
                ctx.decode(_Strict)

            await caught((await ready(client)).request("e", {EVIL: 1}), roletalk.RemoteError)

    run(main())


@pytest.mark.lag
def test_names_and_texts_that_handlers_log(logged: Logged) -> None:
    async def main() -> None:
        async with pair(slow_handler=0.001) as (server, client):
            role = server.role("r")

            @role.on_message
            def turn_down(ctx: roletalk.Context) -> None:
                assert_harmless(repr(ctx))
                raise roletalk.Reject(ctx.data)

            role.on_request(lambda ctx: time.sleep(0.01))
            destination = await ready(client)
            await destination.send(EVIL, EVIL)
            await destination.request(EVIL)
            await eventually(lambda: any("turned a message down" in line for line in logged()))
            await eventually(lambda: any("held the event loop" in line for line in logged()))

    run(main())


def test_an_event_of_that_name_in_an_error_of_a_handler(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")

            @role.on_request
            def fail(ctx: roletalk.RequestContext) -> Any:
                if ctx.data:
                    raise RuntimeError("of the handler")
                return object()

            destination = await ready(client)
            for data in (True, False):
                await caught(destination.request(EVIL, data), roletalk.RemoteError)

    run(main())
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert_harmless(record.getMessage())


def test_the_text_of_an_abort_and_of_a_close(logged: Logged) -> None:
    async def main() -> None:
        for opener in OPENERS:
            async with scene(opener) as it:
                await it.writer.abort(EVIL)
                await caught(it.reader.read(), roletalk.StreamError)
            async with scene(opener) as it:
                await it.reader.abort(EVIL)
                await eventually(lambda it=it: it.writer.closed)
                await caught(it.writer.write(b"x"), roletalk.StreamError)
            async with scene(opener) as it:
                it.client.units[0].connections[0].close(4000, EVIL[:40])
                server_end = it.reader if it.of("server") == "reader" else it.writer
                await eventually(lambda end=server_end: end.closed)
                if it.of("server") == "reader":
                    await caught(read_all(it.reader, []), roletalk.StreamError)
                else:
                    await caught(it.writer.write(b"x"), roletalk.StreamError)

    run(main())


@pytest.mark.parametrize(
    "message",
    [
        raw.acquaint("somebody", "ws://127.0.0.1:1/" + EVIL[:1000], ["loot"]),
        raw.acquaint("somebody", "ws://127.0.0.1:1/\u202e", ["loot"]),
        raw.acquaint("somebody", EVIL, ["loot"]),
        raw.acquaint(EVIL[:200], "ws://\u202e:1/", ["loot"]),
        raw.json_message(raw.ACQUAINT, {EVIL: EVIL}),
        raw.json_message(raw.ROLES, {"i": EVIL, "roles": EVIL}),
    ],
)
def test_messages_about_others(logged: Logged, message: bytes) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            server.destination("loot")
            before = len(logged())
            scripted = await with_evil_unit(server, lambda connection: connection.send(message))
            await scripted
            await eventually(lambda: server.stats()["drops"] or len(logged()) > before)
            await eventually(lambda: not server.units)

    run(main())

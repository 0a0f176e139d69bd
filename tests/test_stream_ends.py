"""Every way in which a stream ends: who does it, and what both ends learn of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import pytest

import roletalk
from roletalk._text import printable
from tests.helpers import eventually, peers, raises_eventually, ready, run
from tests.streams import OPENERS, Opener, open_streams, pattern, read_all
from tests.streamscene import BOUND, DATA, READ, Scene, cut, scene, started


class Way(NamedTuple):
    """A way to end a stream."""

    who: Literal["reader", "writer", "handler", "opener", "client", "server"]
    act: Callable[[Scene], Any]
    text: str = ""  # that the other end finds in its error
    clean: bool = False  # whether it finishes the stream when it is the writer's doing
    cuts: bool = False  # whether the connection or the unit goes with it


def leave(which: str, error: BaseException | None = None) -> Callable[[Scene], None]:
    def act(it: Scene) -> None:
        future: asyncio.Future[None] = getattr(it, f"{which}_leaves")
        if error is None:
            future.set_result(None)
        else:
            # A new one each time: its traceback would keep the scene alive.
            future.set_exception(type(error)(*error.args))

    return act


WAYS: dict[str, Way] = {
    "finished": Way("writer", lambda it: it.writer.close(), clean=True),
    "writer aborts": Way("writer", lambda it: it.writer.abort("spoiled"), "spoiled"),
    "reader aborts": Way("reader", lambda it: it.reader.abort("full"), "full"),
    "writer aborts for no reason": Way("writer", lambda it: it.writer.abort()),
    "reader aborts for no reason": Way("reader", lambda it: it.reader.abort()),
    "writer aborts with no text": Way("writer", lambda it: it.writer.abort("")),
    "reader aborts with no text": Way("reader", lambda it: it.reader.abort("")),
    "handler returns": Way("handler", leave("handler"), clean=True),
    "handler rejects": Way("handler", leave("handler", roletalk.Reject("no ä")), "no ä"),
    "handler fails": Way("handler", leave("handler", LookupError("secret")), "internal error"),
    "handler is cancelled": Way("handler", lambda it: it.handler.cancel(), "cancelled"),
    "block is left": Way("opener", leave("opener"), clean=True),
    "block rejects": Way("opener", leave("opener", roletalk.Reject("no ä")), "no ä"),
    "block fails": Way("opener", leave("opener", LookupError("secret")), "internal error"),
    "opener is cancelled": Way("opener", lambda it: it.opening.cancel(), "cancelled"),
    "server cuts": Way("server", lambda it: cut(it.server), cuts=True),
    "client cuts": Way("client", lambda it: cut(it.client), cuts=True),
    "server closes unit": Way("server", lambda it: it.server.units[0].close(), cuts=True),
    "client closes unit": Way("client", lambda it: it.client.units[0].close(), cuts=True),
    "server closes": Way("server", lambda it: it.server.close(), cuts=True),
    "client closes": Way("client", lambda it: it.client.close(), cuts=True),
    "server closes at once": Way("server", lambda it: it.server.close(0), cuts=True),
    "client closes at once": Way("client", lambda it: it.client.close(0), cuts=True),
}


async def reader_learns(it: Scene, *, complete: bool, own: bool, text: str) -> None:
    rest: list[bytes] = []
    if complete:
        await read_all(it.reader, rest)
        assert b"".join(rest) == DATA[READ:]
        assert await it.reader.read() == await it.reader.read(1) == b""
        return
    with pytest.raises(roletalk.StreamError, match=re.escape(text) or None) as caught:
        await read_all(it.reader, rest)
    came = b"".join(rest)
    assert came == (DATA[READ:][: len(came)] if own else DATA[READ:])
    assert caught.value.unit is it.reader.unit
    assert (caught.value.role, caught.value.event) == ("r", "e")
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: it.reader.read(),
        lambda: it.reader.read(1),
        lambda: it.reader.readexactly(1),
        lambda: it.reader.readinto(bytearray(1)),
        lambda: it.reader.__anext__(),
    ]
    for again in attempts:
        with pytest.raises(roletalk.StreamError):
            await again()


async def writer_learns(it: Scene, *, complete: bool, own: bool, text: str) -> None:
    if complete:
        await it.writer.close()
        return
    error = await raises_eventually(roletalk.StreamError, lambda: it.writer.write(b"more"))
    assert text in str(error)
    assert isinstance(error, roletalk.StreamError)
    assert error.unit is it.writer.unit
    assert (error.role, error.event) == ("r", "e")
    with pytest.raises(roletalk.StreamError):
        await it.writer.write(b"more")
    if not own:
        with pytest.raises(roletalk.StreamError):
            await it.writer.close()


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("name", WAYS)
def test_what_both_ends_learn(name: str, opener: Opener) -> None:
    way = WAYS[name]

    async def main() -> None:
        async with scene(opener) as it:
            actor = it.of(way.who)
            complete = way.clean and actor == "writer"
            waiting = started(way.act(it))
            if waiting is not None and (name == "finished" or "at once" in name):
                await asyncio.wait_for(waiting, BOUND)

            def own(end: str) -> bool:
                if actor == end and (not way.cuts or "closes" in name):
                    return True
                # What the handler had not read when it was cancelled goes with it.
                return end == "reader" and it.of("handler") == end

            async def learn() -> None:
                await reader_learns(
                    it,
                    complete=complete,
                    own=own("reader"),
                    text="" if actor == "reader" else way.text,
                )
                await writer_learns(
                    it,
                    complete=complete,
                    own=own("writer"),
                    text="" if actor == "writer" else way.text,
                )

            # Whatever ends it, both ends have it in time.
            await eventually(lambda: it.reader.closed and it.writer.closed, timeout=BOUND)
            await asyncio.wait_for(learn(), BOUND)
            if waiting is not None:
                await asyncio.wait_for(waiting, BOUND)

            # The handler: cancelled where the stream died under it.
            died = not complete and way.who != "handler" and actor != it.of("handler")
            if died or way.cuts:
                await asyncio.wait([it.handler], timeout=BOUND)
                assert isinstance(it.handler_end, asyncio.CancelledError)
            elif way.who != "handler":
                assert it.handler_end is None
                it.handler_leaves.set_result(None)
                await asyncio.wait([it.handler], timeout=BOUND)
                assert it.handler_end == "returned"

            # The opener's block: a writer's does not end as if all were well, a reader's just ends.
            if not it.opener_leaves.done():
                it.opener_leaves.set_result(None)
            await asyncio.wait([it.opening], timeout=BOUND)
            if way.who == "opener" and "left" not in name:
                with pytest.raises((roletalk.Reject, LookupError, asyncio.CancelledError)):
                    await it.opening
            elif opener == "writes" and way.who == "writer" and not complete:
                with suppress(roletalk.StreamError):  # it has aborted it itself
                    await it.opening
            elif opener == "writes" and not complete:
                with pytest.raises(roletalk.StreamError):
                    await it.opening
            else:
                await it.opening

            # Nothing is left of it.
            units = it.server.units + it.client.units
            await eventually(lambda: open_streams(it.server, it.client) == 0)
            await eventually(lambda: not any(unit.tasks for unit in units))
            for peer in (it.server, it.client):
                assert peer.stats()["pending_requests"] == 0
                assert peer.stats()["drops"] == {}
                assert peer.stats()["streams_opened"] == 1
            if not way.cuts:
                await it.client.destination("r").request("ping")

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_a_handler_is_cancelled_although_another_task_was_told_before(opener: Opener) -> None:
    async def main() -> None:
        async with scene(opener) as it:
            cut(it.client)
            # In the turn in which it fails: the handler has not been cancelled yet.
            while not it.handled.closed:
                await asyncio.sleep(0)
            operation = read_all(it.reader, []) if opener == "writes" else it.writer.write(b"more")
            with pytest.raises(roletalk.StreamError):
                await operation
            assert it.handler_end is None
            await asyncio.wait([it.handler], timeout=BOUND)
            assert isinstance(it.handler_end, asyncio.CancelledError)

    run(main())


# -- the end and a failure are told apart


@pytest.mark.parametrize("opener", OPENERS)
def test_a_finish_that_has_come_outlives_its_connection(opener: Opener) -> None:
    async def main() -> None:
        async with scene(opener) as it:
            await it.writer.close()
            await it.client.destination("r").request("ping")  # the finish came before its answer
            cut(it.server)
            await eventually(lambda: not it.client.units and not it.server.units)
            assert await it.reader.read() == DATA[READ:]
            assert await it.reader.read() == b""
            assert it.handler_end is None or opener == "reads"

    run(main())


@pytest.mark.parametrize("how", ["read", "readexactly", "readexactly, enough", "readinto"])
def test_a_failure_is_no_end(how: str) -> None:
    async def main() -> None:
        async with scene("reads") as it:
            left = len(DATA) - READ
            await it.writer.abort("spoiled")
            await it.client.destination("r").request("ping")
            if how == "readexactly, enough":
                assert await it.reader.readexactly(left) == DATA[READ:]
            elif how == "readinto":
                buffer = bytearray(2 * left)
                assert await it.reader.readinto(buffer) == left
                assert buffer[:left] == DATA[READ:]
            read: dict[str, Callable[[], Awaitable[Any]]] = {
                "read": it.reader.read,
                "readinto": lambda: it.reader.readinto(bytearray(1)),
            }
            with pytest.raises(roletalk.StreamError, match="spoiled"):
                await read.get(how, lambda: it.reader.readexactly(left + 1))()
            if how in ("read", "readexactly"):
                # What it could not have whole is there still.
                assert await it.reader.read(2 * left) == DATA[READ:]
                with pytest.raises(roletalk.StreamError, match="spoiled"):
                    await it.reader.read(1)

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_a_reader_gets_all_that_came_before_a_failure(opener: Opener) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            await client.connect((await server.listen()).url)
            data = pattern(500_000)
            chunks: list[bytes] = []
            errors: list[BaseException] = []

            async def fail(stream: Any) -> None:
                await stream.write(data)
                await stream.abort("spoiled")

            async def read(stream: Any) -> None:
                try:
                    await read_all(stream, chunks)
                except roletalk.StreamError as error:
                    errors.append(error)

            async def handler(ctx: Any) -> None:
                stream = await ctx.accept()
                await (read if ctx.kind == "readable" else fail)(stream)

            role = server.role("r")
            role.on_readable("e")(handler)
            role.on_writable("e")(handler)
            destination = await ready(client)
            if opener == "reads":
                await read(await destination.readable("e"))
            else:
                await fail(await destination.writable("e"))
            await eventually(lambda: errors)
            assert "spoiled" in str(errors[0])
            assert b"".join(chunks) == data
            await eventually(lambda: open_streams(server, client) == 0)

    run(main())


@pytest.mark.parametrize("reason", ["ä\U0001f600", "x" * 1000, "\0", "two\nlines"])
def test_reasons_arrive_and_are_escaped(reason: str) -> None:
    async def main() -> None:
        for opener in OPENERS:
            async with scene(opener) as it:
                await it.writer.abort(reason)
                with pytest.raises(roletalk.StreamError) as caught:
                    await it.reader.read()
                assert printable(reason, 1000) in str(caught.value)

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_both_ends_abort_at_once(opener: Opener) -> None:
    async def main() -> None:
        for _ in range(10):
            async with scene(opener) as it:
                await asyncio.gather(it.writer.abort("w"), it.reader.abort("r"))
                for attempt in (it.writer.write(b"x"), it.reader.read()):
                    with pytest.raises(roletalk.StreamError):
                        await attempt
                await eventually(lambda it=it: open_streams(it.server, it.client) == 0)  # type: ignore[misc]
                await it.client.destination("r").request("ping")
                assert it.server.stats()["drops"] == it.client.stats()["drops"] == {}

    run(main())


@pytest.mark.parametrize("opener", OPENERS)
def test_a_finish_and_an_abort_cross(opener: Opener) -> None:
    async def main() -> None:
        async with scene(opener) as it:
            await asyncio.gather(it.writer.close(), it.reader.abort("enough"))
            with pytest.raises(roletalk.StreamError):
                await it.reader.read()
            await eventually(lambda: open_streams(it.server, it.client) == 0)
            await it.client.destination("r").request("ping")
            assert it.server.stats()["drops"] == it.client.stats()["drops"] == {}

    run(main())

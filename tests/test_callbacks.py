"""Lists of callbacks; what can be awaited or entered."""

from __future__ import annotations

import asyncio
import logging

import pytest

import roletalk
from roletalk.callbacks import Callbacks, Opening, within
from tests.helpers import eventually, pair, peers, run

pytestmark = pytest.mark.usefixtures("on_mesh")


def test_callbacks_are_called_in_the_order_they_were_added() -> None:
    async def main() -> None:
        seen: list[str] = []
        peer = roletalk.Peer()
        tasks = peer._callback_tasks
        callbacks: Callbacks[str] = Callbacks(peer, "on_it", "subject")

        @callbacks.add
        def first(subject: str) -> None:
            seen.append(f"first {subject}")

        @callbacks.add
        async def second(subject: str) -> None:
            await asyncio.sleep(0)
            seen.append(f"second {subject}")

        callbacks.add(lambda subject: seen.append(f"third {subject}"))
        assert first.__name__ == "first"  # decorated functions stay what they are
        callbacks("x")
        assert seen == ["first x", "third x"]
        assert len(tasks) == 1
        await asyncio.gather(*tasks)
        assert seen == ["first x", "third x", "second x"]
        await eventually(lambda: not tasks)

    run(main())


def test_a_callback_that_raises_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        seen: list[int] = []
        peer = roletalk.Peer()
        callbacks: Callbacks[int] = Callbacks(peer, "on_it", "subject")

        @callbacks.add
        def sync(subject: int) -> None:
            raise RuntimeError("sync failure")

        @callbacks.add
        async def later(subject: int) -> None:
            raise RuntimeError("async failure")

        callbacks.add(seen.append)
        callbacks(5)
        assert seen == [5]
        await eventually(lambda: not peer._callback_tasks)

    with caplog.at_level(logging.ERROR, "roletalk"):
        run(main())
    failures = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert failures == ["sync failure", "async failure"]
    assert all("error in callback" in record.message for record in caplog.records)


def test_a_callback_may_add_another() -> None:
    seen: list[str] = []
    callbacks: Callbacks[str] = Callbacks(roletalk.Peer(), "on_it", "subject")
    callbacks.add(lambda _: callbacks.add(seen.append))
    callbacks("a")
    assert seen == []
    callbacks("b")
    assert seen == ["b"]


def test_a_callback_is_a_function() -> None:
    with pytest.raises(TypeError):
        Callbacks[int](roletalk.Peer()).add("no function")  # type: ignore[type-var]


def test_callbacks_of_a_peer_that_raise_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            seen: list[object] = []

            def fail(subject: object) -> None:
                seen.append(subject)
                raise RuntimeError(type(subject).__name__)

            async def fail_later(subject: object) -> None:
                await asyncio.sleep(0)
                fail(subject)

            for callback in (fail, fail_later):
                server.on_role(callback)
                client.on_unit(callback)
                client.destination("r").on_open(callback)
                client.destination("r").on_unit(callback)
                client.destination("r").on_close(callback)
            role = server.role("r")
            role.on_status_change(fail)
            role.on_request("e")(lambda ctx: "fine")
            unit = await client.connect((await server.listen()).url)
            unit.on_close(fail)
            assert (await client.destination("r").request("e")).data == "fine"
            await unit.close()
            role.disable()
            await eventually(lambda: len(seen) == 12)

    with caplog.at_level(logging.ERROR, "roletalk"):
        run(main())
    assert len([r for r in caplog.records if "error in callback" in r.message]) == 12


def test_async_callbacks_of_what_is_done_before_the_loop_runs() -> None:
    seen: list[object] = []
    peer = roletalk.Peer()

    @peer.on_role
    async def made(role: roletalk.Role) -> None:
        await asyncio.sleep(0)
        seen.append((role.name, role.active))

    role = peer.role("r")

    @role.on_status_change
    async def changed(role: roletalk.Role) -> None:
        seen.append(role.active)

    role.disable()
    role.enable()

    async def main() -> None:
        async with peer:
            await eventually(lambda: len(seen) == 3)

    run(main())
    assert seen == [True, True, ("r", True)]


def test_closing_a_peer_cancels_callbacks_that_still_run() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()
        async with pair() as (_, client):

            @client.units[0].on_close
            async def hang(unit: object) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()

            await client.units[0].close()
            await asyncio.sleep(0)
        assert cancelled.is_set()

    run(main())


# -- waiting


def test_a_wait_that_is_cancelled_when_it_fails() -> None:
    async def main() -> None:
        failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(within(failing, None))
        await asyncio.sleep(0)
        failing.set_exception(OSError("nobody awaits it"))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())  # the loop hears of no exception that was never retrieved


# -- Opening


class Thing:
    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


def opening(error: Exception | None = None) -> Opening[Thing]:
    async def open_it() -> Thing:
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return Thing()

    return Opening(open_it(), "open_it")


def test_an_opening_is_awaited() -> None:
    async def main() -> None:
        assert (await opening()).closed == 0
        with pytest.raises(ValueError, match="no"):
            await opening(ValueError("no"))

    run(main())


def test_an_opening_is_entered() -> None:
    async def main() -> None:
        async with opening() as thing:
            assert thing.closed == 0
        assert thing.closed == 1
        with pytest.raises(KeyError):
            async with opening() as thing:
                raise KeyError
        assert thing.closed == 1
        with pytest.raises(ValueError, match="no"):
            async with opening(ValueError("no")):
                pytest.fail("it was not opened")

    run(main())


def test_an_opening_closes_as_it_was_told() -> None:
    async def main() -> None:
        closed: list[Thing] = []

        async def open_it() -> Thing:
            return Thing()

        async def close_it(thing: Thing) -> None:
            closed.append(thing)

        async with Opening(open_it(), "open_it", close_it) as thing:
            pass
        assert closed == [thing]
        assert thing.closed == 0

    run(main())


def test_an_opening_works_wherever_a_coroutine_does() -> None:
    async def main() -> None:
        assert isinstance(await asyncio.create_task(opening()), Thing)
        assert isinstance(await asyncio.wait_for(opening(), 5), Thing)
        assert len(await asyncio.gather(opening(), opening())) == 2
        task = asyncio.create_task(opening())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_an_opening_that_nobody_wants_is_closed() -> None:
    async def main() -> None:
        opening().close()

    run(main())


def test_openings_of_a_peer_can_be_entered_and_used_in_tasks() -> None:
    async def main() -> None:
        async with peers("server", "client") as (server, client):
            async with server.listen() as listener:
                task = asyncio.create_task(client.connect(listener.url))
                unit = await task
                assert unit.connected
                async with client.connect(listener.url) as same:
                    assert same is unit
                assert client.units == ()
                assert server.listeners == (listener,)
            assert not server.listeners

    run(main())

"""The steps of draining and closing, one by one."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

import roletalk
from roletalk.shutdown import Shutdown
from tests.helpers import eventually, pair, peers, ready, run


class FakeLink:
    def __init__(self, unit: FakeUnit, unsent: list[int]) -> None:
        self._unit = unit
        self._unsent = unsent
        self.closed: list[int] = []
        self.aborted = False
        self.stream_tasks: set[asyncio.Task[Any]] = set()

    @property
    def unsent_bytes(self) -> int:
        return self._unsent.pop(0) if len(self._unsent) > 1 else self._unsent[0]

    def probe(self) -> asyncio.Future[None]:
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._unit.answers:
            heard.set_result(None)
        return heard

    def close(self, code: int, reason: str) -> None:
        self._unit.log.append("close")
        self.closed.append(code)
        if self._unit.answers:
            self._unit._lost.set()

    def abort(self) -> None:
        self.aborted = True
        self._unit._lost.set()


class FakeUnit:
    def __init__(self, log: list[str], unsent: list[int], *, answers: bool = True) -> None:
        self.log = log
        self.answers = answers
        self.calls = object()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._lost = asyncio.Event()
        self.connections = (FakeLink(self, unsent),)


class FakePeer:
    """What a shutdown uses of a peer; notes the order of what it is told."""

    name = "fake"

    def __init__(self, *unsent: int, answers: bool = True) -> None:
        self.log: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.units = (FakeUnit(self.log, list(unsent) or [0], answers=answers),)
        self.roles = (_Role(), _Role())
        self.destinations = ()
        self.listeners: tuple[_Closable, ...] = (_Closable(self.log, "listener"),)
        self._dialers = {_Dialer(self.log)}
        self._announcer = _Noting(self.log, "announce")
        self._acquaintances = _Noting(self.log, "acquaintances")
        self._lobby = _Noting(self.log, "lobby")
        self._heartbeat = _Noting(self.log, "heartbeat")
        self._callback_tasks: set[asyncio.Task[Any]] = set()
        self._units = _Units(self.units)

    def fail_pending(self, tables: object, make_error: Any) -> None:
        error = make_error("r", "e")
        assert isinstance(error, roletalk.UnitClosedError)
        assert "'e' of role 'r'" in str(error)
        self.log.append("pending")

    def stop_sweeping(self) -> None:
        self.log.append("sweep")


class _Units:
    def __init__(self, units: tuple[FakeUnit, ...]) -> None:
        self._units = units

    def running_handlers(self) -> set[asyncio.Task[Any]]:
        return {task for unit in self._units for task in unit.tasks}


class _Role:
    is_active = True


class _Closable:
    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name = log, name

    async def close(self) -> None:
        self._log.append(self._name)


class _Dialer:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def stop(self) -> None:
        self._log.append("dialer")

    async def wait_stopped(self, timeout: float | None) -> None:
        pass


class _Noting:
    def __init__(self, log: list[str], name: str) -> None:
        def note(*args: object) -> None:
            log.append(name)

        self.changed = self.close = self.clear = self.stop = note


def shutdown(peer: FakePeer) -> Shutdown:
    return Shutdown(cast("roletalk.Peer", peer))


DRAINED = ["announce", "acquaintances", "listener", "dialer"]
CLOSED = ["pending", "lobby", "close", "heartbeat", "sweep"]


def test_the_order_of_closing() -> None:
    async def main() -> None:
        peer = FakePeer(5, 3, 0)
        ending = shutdown(peer)
        await ending.close(5)
        assert peer.log == [*DRAINED, *CLOSED]
        assert ending.begun
        assert ending.done.is_set()
        assert not any(role.is_active for role in peer.roles)
        link = peer.units[0].connections[0]
        assert link.closed == [4000]

    run(main())


def test_draining_leaves_the_connections() -> None:
    async def main() -> None:
        peer = FakePeer()
        ending = shutdown(peer)
        await ending.drain(5)
        assert peer.log == DRAINED
        assert ending.begun
        assert not ending.done.is_set()
        peer.listeners = ()
        peer._dialers.clear()
        await ending.drain(5)
        assert peer.log == DRAINED  # it withdraws the roles once
        await ending.close(5)
        assert peer.log == [*DRAINED, *CLOSED]

    run(main())


def test_units_that_hear_nothing_do_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("roletalk.shutdown.HEARD", 0.01)
        peer = FakePeer(answers=False)
        await shutdown(peer).drain(None)
        assert not any(role.is_active for role in peer.roles)

    run(main())


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("end", ["drain", "close"])
def test_what_was_sent_before_the_end_was_heard_of_is_served(
    end: str, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr("roletalk.shutdown.HEARD", 60)
        async with peers("server", "client") as (server, client):
            got: list[int] = []

            @server.role("r").on_request("e")
            async def handler(ctx: roletalk.Context) -> object:
                await asyncio.sleep(0)
                return ctx.data

            server.role("r").on_message("m")(lambda ctx: got.append(ctx.data))
            url = (await server.listen()).url
            for _ in range(connections):
                unit = await client.connect(url, reconnect=False)
            destination = await ready(client)
            ending = asyncio.ensure_future(getattr(server, end)(60))
            asked: list[asyncio.Future[roletalk.Context]] = []
            # As long as the client has not heard of it.
            while unit.roles:
                asked.append(asyncio.ensure_future(destination.request("e", len(asked))))
                await destination.send("m", len(asked))
                await asyncio.sleep(0)
            replies = await asyncio.gather(*asked)
            assert server.closing
            assert [reply.data for reply in replies] == list(range(len(asked)))
            await ending
            assert sorted(got) == list(range(1, len(asked) + 1))
            assert not any(role.active for role in server.roles)
            assert len(asked) > 1

    run(main())


def test_closing_twice_is_closing_once() -> None:
    async def main() -> None:
        peer = FakePeer()
        ending = shutdown(peer)
        first = asyncio.create_task(ending.close(5))
        await ending.close(5)
        await first
        await ending.close(5)
        assert peer.log == [*DRAINED, *CLOSED]

    run(main())


def test_a_cancelled_close_goes_on() -> None:
    async def main() -> None:
        peer = FakePeer()
        ending = shutdown(peer)
        closing = asyncio.create_task(ending.close(5))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await ending.done.wait()
        assert peer.log == [*DRAINED, *CLOSED]

    run(main())


def test_a_close_that_came_to_nothing_is_begun_again() -> None:
    async def main() -> None:
        peer = FakePeer()
        ending = shutdown(peer)
        with pytest.raises(TypeError):
            await ending.close("5")  # type: ignore[arg-type]
        closing = asyncio.create_task(ending.close(5))
        await asyncio.sleep(0)
        # What programs do at their end, before they close what they have.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task is closing or task.get_name() == "roletalk close":
                task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not ending.done.is_set()
        await ending.close(5)
        assert ending.done.is_set()
        assert peer.log[-len(CLOSED) :] == CLOSED

    run(main())


def test_what_is_never_sent_is_given_up() -> None:
    async def main() -> None:
        peer = FakePeer(5)
        await shutdown(peer).close(0.02)
        assert peer.log == [*DRAINED, *CLOSED]

    run(main())


def test_a_remote_that_answers_no_close_is_cut_off() -> None:
    async def main() -> None:
        peer = FakePeer(answers=False)
        await shutdown(peer).close(0)
        link = peer.units[0].connections[0]
        assert link.closed == [4000]
        assert link.aborted

    run(main())


def test_streams_do_not_hold_up_a_close_but_a_drain() -> None:
    async def main() -> None:
        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                peer.log.append("cancelled")

        peer = FakePeer()
        task = asyncio.create_task(endless())
        peer.units[0].tasks = peer.units[0].connections[0].stream_tasks = {task}
        ending = shutdown(peer)
        draining = asyncio.create_task(ending.drain(None))
        await eventually(lambda: peer.log == DRAINED)
        assert not draining.done()
        # With all the time of the world: what waits only for the stream is over when it is.
        await ending.close(None)
        await draining
        assert [each for each in peer.log if each in ("cancelled", "close")] == [
            "cancelled",
            "close",
        ]

    run(main())


def test_handlers_finish_first(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        peer = FakePeer()
        release = asyncio.Event()

        async def finish() -> None:
            await release.wait()
            peer.log.append("handler")

        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                peer.log.append("cancelled")

        peer.units[0].tasks = {asyncio.create_task(finish())}
        ending = shutdown(peer)
        closing = asyncio.create_task(ending.close(None))
        await eventually(lambda: peer.log == DRAINED)
        release.set()
        await closing
        assert peer.log == [*DRAINED, "handler", *CLOSED]

        peer = FakePeer()
        peer.units[0].tasks = {asyncio.create_task(hang())}
        await shutdown(peer).close(0.02)
        assert peer.log == [*DRAINED, "cancelled", *CLOSED]

    with caplog.at_level(logging.WARNING, "roletalk"):
        run(main())
    assert "1 handlers of peer 'fake' still ran" in caplog.text


def test_the_handler_that_closes_is_not_waited_for() -> None:
    async def main() -> None:
        peer = FakePeer()
        ending = shutdown(peer)
        task = asyncio.create_task(ending.close(None))
        peer.units[0].tasks = {task}
        await task
        assert peer.log == [*DRAINED, *CLOSED]

    run(main())


# -- peers


def test_peers_that_close_each_other_at_once() -> None:
    async def main() -> None:
        for _ in range(20):
            async with peers("a", "b") as (a, b):
                unit = await a.connect((await b.listen()).url)
                await eventually(lambda b=b: b.units)  # type: ignore[misc]
                await asyncio.gather(a.close(), b.close(), unit.close(), a.close(), b.drain())
                assert a.units == b.units == ()

    run(main())


def test_a_closed_peer_can_be_looked_at() -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: None)
            destination = await ready(client)
            await client.close()
            assert client.closing
            assert "closing" in repr(client)
            assert client.stats()["units"] == 0
            assert client.listeners == ()
            assert not destination.ready
            with pytest.raises(roletalk.NoUnitsError):
                await destination.request("e")
            with pytest.raises(roletalk.NoUnitsError):
                destination.send_nowait("e")
            role = client.role("late")
            role.disable()
            role.enable()
            client.set_tag("a", "b")
            await client.wait_closed()

    run(main())


def test_a_hundred_units_are_closed_together() -> None:
    async def main() -> None:
        names = [str(i) for i in range(100)]
        patient = {"handshake_timeout": 60.0}
        async with peers("server", **patient) as (server,), peers(*names, **patient) as clients:
            url = (await server.listen()).url
            units = await asyncio.gather(*(c.connect(url, reconnect=False) for c in clients))
            await eventually(lambda: len(server.units) == 100)
            await server.close()
            await eventually(lambda: not any(unit.connected for unit in units))

    run(main())

"""The library against a real roletalk-go peer: connections, roles, and who knows of whom.

What goes over a connection is in test_go_data.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.parse
from pathlib import Path

import pytest

from roletalk import AuthError, Destination, NoUnitsError, Peer, UnitClosedError
from tools.ports import quiet_port

from .gopeer import Frame, GoError, GoPeer, Relay, eventually
from .linking import accepted, link, looped

pytestmark = pytest.mark.slow

Keys = list[tuple[str, str]]

BINARY, PING, PONG = 2, 9, 10


# --- handshake --------------------------------------------------------------------------------


KEYS: dict[str, tuple[Keys, Keys, bool]] = {
    # case: our keys, Go's keys, whether they connect
    "no keys": ([], [], True),
    "same key": ([("k", "secret")], [("k", "secret")], True),
    "not ASCII": ([("ключ", "пароль €")], [("ключ", "пароль €")], True),
    "one id of several": (
        [("a", "1"), ("b", "2"), ("c", "3")],
        [("x", "9"), ("b", "2"), ("y", "8")],
        True,
    ),
    "several ids, other order": (
        [("a", "1"), ("b", "2"), ("c", "3")],
        [("c", "3"), ("b", "2"), ("a", "1")],
        True,
    ),
    "another key": ([("k", "secret")], [("k", "Secret")], False),
    "no common id": ([("a", "secret")], [("b", "secret")], False),
    "only ours": ([("k", "secret")], [], False),
    "only Go's": ([], [("k", "secret")], False),
}


@pytest.mark.parametrize("dialler", ["python", "go"])
@pytest.mark.parametrize("case", KEYS)
@looped
async def test_keys(program: Path, case: str, dialler: str) -> None:
    ours, gos, fits = KEYS[case]
    async with await GoPeer.start(program, keys=gos) as go, Peer(name="py") as peer:
        peer.role("py").on_request("echo")(lambda ctx: ctx.data)
        for key_id, key in ours:
            peer.add_key(key_id, key)
        if fits:
            unit = await link(peer, go, dialler)
            reply = await peer.destination("go").request("echo", "hi", timeout=5)
            assert (reply.data, reply.unit) == ("hi", unit)
            assert (await go.request("py", "echo", "ho")).python == "ho"
            return
        if dialler == "python":
            with pytest.raises(AuthError):
                await peer.connect(go.url, reconnect=False)
            await go.event("refused")
        else:
            listener = await peer.listen("127.0.0.1", 0)
            with pytest.raises(GoError, match="Cannot use connection"):
                await go.connect(listener.url)
        assert peer.units == ()
        assert await go.call("units") == []


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_key_kept_from_legacy_peers(program: Path, dialler: str) -> None:
    """A key with legacy=False is not for Go, even when Go has it."""
    async with await GoPeer.start(program, keys=[("k", "secret")]) as go, Peer() as peer:
        peer.add_key("k", "secret", legacy=False)
        if dialler == "python":
            with pytest.raises(AuthError):
                await peer.connect(go.url, reconnect=False)
        else:
            listener = await peer.listen("127.0.0.1", 0)
            with pytest.raises(GoError):
                await go.connect(listener.url)
        assert peer.units == ()


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_what_each_learns_of_the_other(program: Path, dialler: str) -> None:
    async with (
        await GoPeer.start(program, name="gopher", friendly=False, roles=["a", "b"]) as go,
        Peer(name="snake", friendly=True) as peer,
    ):
        peer.role("py")
        peer.role("sleeping", active=False)
        unit = await link(peer, go, dialler)
        assert (unit.id, unit.name, unit.friendly) == (go.id, "gopher", False)
        assert unit.roles == {"a", "b"}
        assert unit.meta["runtime"] == "GO"
        assert unit.connected
        assert len(unit.connections) == 1

        (seen,) = await go.call("units")
        assert (seen["id"], seen["name"], seen["friendly"]) == (peer.id, "snake", True)
        assert seen["roles"] == ["py"]
        assert seen["meta"]["protocol"] == "2.0.0"


# --- roles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_our_roles_are_live(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program, destinations=["py", "late"]) as go, Peer() as peer:
        role = peer.role("py", active=False)
        unit = await link(peer, go, dialler)
        for _ in range(3):
            await go.has_units("py")
            role.enable()
            await go.has_units("py", peer.id)
            role.disable()
        late = peer.role("late")
        late.on_request("echo")(lambda ctx: ctx.data)
        await go.has_units("late", peer.id)
        assert (await go.request("late", "echo", "now")).python == "now"
        assert peer.units == (unit,)
        assert len(unit.connections) == 1


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_gos_roles_are_live(program: Path, dialler: str) -> None:
    async with await GoPeer.start(program, roles=["go"]) as go, Peer() as peer:
        destination, late = peer.destination("go"), peer.destination("late")
        opened: asyncio.Queue[Destination] = asyncio.Queue()
        closed: asyncio.Queue[Destination] = asyncio.Queue()
        destination.on_open(opened.put_nowait)
        destination.on_close(closed.put_nowait)
        unit = await link(peer, go, dialler)
        for _ in range(3):
            assert await asyncio.wait_for(opened.get(), 10) is destination
            assert destination.units == (unit,)
            await go.call("disable", role="go")
            assert await asyncio.wait_for(closed.get(), 10) is destination
            assert not destination.ready
            with pytest.raises(NoUnitsError):
                await destination.request("echo", timeout=5)
            await go.call("enable", role="go")
        await destination.wait_ready(timeout=10)
        await go.call("role", role="late")
        await late.wait_ready(timeout=10)
        assert (await late.request("echo", 1, timeout=5)).data == 1
        assert peer.units == (unit,)
        assert len(unit.connections) == 1


@looped
async def test_two_go_units_take_turns(program: Path) -> None:
    async with (
        await GoPeer.start(program, name="one") as one,
        await GoPeer.start(program, name="two") as two,
        Peer() as peer,
    ):
        units = {await link(peer, go, "python") for go in (one, two)}
        destination = peer.destination("go")
        assert set(destination.units) == units
        served = [(await destination.request("count", timeout=5)).unit for _ in range(6)]
        assert served[0::2] == [served[0]] * 3
        assert served[1::2] == [served[1]] * 3
        assert set(served) == units
        for unit in units:  # a fourth each, and a choice is kept to
            reply = await destination.request("count", unit=unit, timeout=5)
            assert (reply.data, reply.unit) == (4, unit)

        assert set(destination.broadcast("news", "all")) == units
        assert [(await go.message("news")).python for go in (one, two)] == ["all", "all"]
        answers = [answer async for answer in destination.survey("echo", "who", timeout=5)]
        assert {answer.unit for answer in answers} == units


# --- acquaintance -----------------------------------------------------------------------------


@looped
async def test_go_introduces_a_go_peer_to_us(program: Path) -> None:
    async with (
        await GoPeer.start(program, name="hub", roles=["hub"]) as hub,
        await GoPeer.start(program, name="far", roles=["far"]) as far,
        Peer() as peer,
    ):
        destination = peer.destination("far")
        await link(peer, hub, "python")
        await hub.connect(far.url, reconnect=True)  # only addresses it keeps are passed on
        await destination.wait_ready(timeout=10)
        reply = await destination.request("echo", "met", timeout=5)
        assert (reply.data, reply.unit.id) == ("met", far.id)


@looped
async def test_go_introduces_us_to_a_go_peer(program: Path) -> None:
    async with (
        await GoPeer.start(program, name="hub", destinations=[]) as hub,
        await GoPeer.start(program, name="far", destinations=["py"]) as far,
        Peer() as peer,
    ):
        peer.role("py").on_request("echo")(lambda ctx: ctx.data)
        listener = await peer.listen("127.0.0.1", 0)
        await far.connect(hub.url)
        await accepted(hub, far.id)
        await hub.connect(listener.url, reconnect=True)
        await far.has_units("py", peer.id)
        assert (await far.request("py", "echo", "met")).python == "met"


@pytest.mark.parametrize("first", ["near", "far"])
@looped
async def test_we_introduce_go_peers(program: Path, first: str) -> None:
    """Whichever came first: the one that we dialled is made known to the one that dialled us."""
    async with (
        await GoPeer.start(program, name="near", roles=[], destinations=["far"]) as near,
        await GoPeer.start(program, name="far", roles=["far"], destinations=[]) as far,
        Peer(name="hub") as peer,
    ):
        listener = await peer.listen("127.0.0.1", 0)
        if first == "near":
            await near.connect(listener.url)
            await eventually(lambda: peer.unit(near.id) is not None, "the near peer")
            await peer.connect(far.url)
        else:
            await peer.connect(far.url)
            await near.connect(listener.url)
        await near.has_units("far", far.id)
        assert (await near.request("far", "echo", "met")).python == "met"


@looped
async def test_unfriendly_go_peer_is_not_told(program: Path) -> None:
    async with (
        await GoPeer.start(program, friendly=False, destinations=["far"]) as near,
        await GoPeer.start(program, roles=["far"]) as far,
        Peer() as peer,
        Relay.to(int(near.address.rpartition(":")[2])) as relay,
    ):
        unit = await peer.connect(relay.url, reconnect=False)
        await accepted(near, peer.id)
        before = _messages(relay.from_dialler())
        await peer.connect(far.url, reconnect=False)
        # Had it been told, the request would have followed that message on the same wire.
        await peer.destination("go").request("echo", unit=unit, timeout=5)
        assert _messages(relay.from_dialler()) - before == 1


def _messages(frames: list[Frame]) -> int:
    return sum(frame.opcode == BINARY for frame in frames)


# --- life of a connection ---------------------------------------------------------------------


@pytest.mark.parametrize("dialler", ["python", "go"])
@looped
async def test_go_answers_our_pings(program: Path, dialler: str) -> None:
    interval, timeout = 0.1, 1.0
    async with (
        await GoPeer.start(program) as go,
        Peer(heartbeat_interval=interval, heartbeat_timeout=timeout) as peer,
    ):
        listener = await peer.listen("127.0.0.1", 0)
        target = go.address if dialler == "python" else urllib.parse.urlsplit(listener.url).netloc
        async with Relay.to(int(target.rpartition(":")[2])) as relay:
            if dialler == "python":
                unit = await peer.connect(relay.url)
                ours, gos = relay.from_dialler, relay.from_acceptor
            else:
                await go.connect(relay.url)
                await eventually(lambda: peer.unit(go.id) is not None, "the unit")
                (unit,) = peer.units
                ours, gos = relay.from_acceptor, relay.from_dialler

            def answered() -> bool:
                pings = sum(frame.opcode == PING for frame in ours())
                pongs = sum(frame.opcode == PONG for frame in gos())
                # Longer than the timeout: a pong that we took for nothing would have shown.
                return pings * interval > 2 * timeout and pongs >= pings - 1

            await eventually(answered, "pings and pongs")
            assert unit.connected
            assert peer.units == (unit,)
            assert len(unit.connections) == 1
            assert (await peer.destination("go").request("echo", 1, timeout=5)).data == 1


@looped
async def test_we_answer_gos_pings(program: Path) -> None:
    """Go's interval is fixed at ten seconds, so both directions of dialling share the wait."""
    async with (
        await GoPeer.start(program, name="acceptor") as acceptor,
        await GoPeer.start(program, name="dialler") as go_dialler,
        Peer(heartbeat_interval=3600) as peer,
    ):
        listener = await peer.listen("127.0.0.1", 0)
        async with (
            Relay.to(int(acceptor.address.rpartition(":")[2])) as out,
            Relay.to(listener.port) as inward,
        ):
            await peer.connect(out.url)
            await go_dialler.connect(inward.url)

            def answered() -> bool:
                frames = (
                    (out.from_acceptor(), out.from_dialler()),
                    (inward.from_dialler(), inward.from_acceptor()),
                )
                return all(
                    any(frame.opcode == PING for frame in gos)
                    and any(frame.opcode == PONG for frame in ours)
                    for gos, ours in frames
                )

            await eventually(answered, "pings and pongs", timeout=30)
            assert {unit.id for unit in peer.units} == {acceptor.id, go_dialler.id}


@looped
async def test_frozen_go_peer_is_given_up_and_found_again(program: Path) -> None:
    async with (
        await GoPeer.start(program) as go,
        Peer(heartbeat_interval=0.2, heartbeat_timeout=1.5) as peer,
    ):
        unit = await link(peer, go, "python", reconnect=True)
        closed = asyncio.Event()
        unit.on_close(lambda _: closed.set())
        destination = peer.destination("go")
        os.kill(go.pid, signal.SIGSTOP)
        request = asyncio.ensure_future(destination.request("hang", timeout=None))
        await asyncio.wait_for(closed.wait(), 10)
        with pytest.raises(UnitClosedError):
            await request
        assert not destination.ready
        os.kill(go.pid, signal.SIGCONT)
        await destination.wait_ready(timeout=20)
        assert (await destination.request("echo", "awake", timeout=5)).data == "awake"


@looped
async def test_killed_go_peer_comes_back_on_its_port(program: Path) -> None:
    listen = f"127.0.0.1:{quiet_port()}"
    async with await GoPeer.start(program, listen=listen) as go, Peer() as peer:
        unit = await link(peer, go, "python", reconnect=True)
        destination = peer.destination("go")
        request = asyncio.ensure_future(destination.request("hang", timeout=None))
        await go.event("hanging")
        await go.kill()
        with pytest.raises(UnitClosedError):
            await request
        await eventually(lambda: not destination.ready, "the unit to be gone")
        assert not unit.connected
        async with await GoPeer.start(program, listen=go.address) as again:
            await destination.wait_ready(timeout=20)
            reply = await destination.request("echo", "back", timeout=5)
            assert (reply.data, reply.unit.id) == ("back", again.id)


@looped
async def test_we_reconnect_to_go_after_its_close(program: Path) -> None:
    """A close on purpose by the other side is reconnected."""
    async with await GoPeer.start(program) as go, Peer() as peer:
        unit = await link(peer, go, "python", reconnect=True)
        closed = asyncio.Event()
        unit.on_close(lambda _: closed.set())
        await go.call("close_unit", unit=peer.id)
        await asyncio.wait_for(closed.wait(), 10)
        await accepted(go, peer.id)
        destination = peer.destination("go")
        await destination.wait_ready(timeout=10)
        assert (await destination.request("echo", 1, timeout=5)).data == 1


@looped
async def test_go_reconnects_after_our_close(program: Path) -> None:
    async with await GoPeer.start(program) as go:
        async with Peer(name="first") as peer:
            peer.role("py").on_request("echo")(lambda ctx: ctx.data)
            listener = await peer.listen("127.0.0.1", quiet_port())
            port = listener.port
            await go.connect(listener.url, reconnect=True)
            await go.event("unit", unit=peer.id)
            await eventually(lambda: peer.unit(go.id) is not None, "the unit")
            (unit,) = peer.units

            await unit.close()
            gone = await go.event("unit_closed", unit=peer.id)
            assert "4000" in gone["error"]
            await go.event("unit", unit=peer.id)
            await eventually(lambda: peer.unit(go.id) not in (None, unit), "a new unit")
            assert (await go.request("py", "echo", "again", unit=peer.id)).python == "again"

        gone = await go.event("unit_closed", unit=peer.id)
        assert "4000" in gone["error"]
        async with Peer(name="second") as peer:
            peer.role("py").on_request("echo")(lambda ctx: ctx.data)
            await peer.listen("127.0.0.1", port)
            await go.event("unit", unit=peer.id, name="second")
            assert (await go.request("py", "echo", "new", unit=peer.id)).python == "new"


@pytest.mark.parametrize("cut", ["accepted", "dialled"])
@looped
async def test_unit_outlives_one_of_its_connections(program: Path, cut: str) -> None:
    """Each side has dialled the other; Go drops the one that it accepted or dialled."""
    async with await GoPeer.start(program) as go, Peer() as peer:
        peer.role("py").on_request("echo")(lambda ctx: ctx.data)
        listener = await peer.listen("127.0.0.1", 0)
        unit = await link(peer, go, "python")
        closed: list[object] = []
        unit.on_close(closed.append)
        await go.connect(listener.url)
        await eventually(lambda: len(unit.connections) == 2, "a second connection")
        assert peer.units == (unit,)
        destination = peer.destination("go")
        assert destination.units == (unit,)
        for index in range(10):  # taken in rotation, both carry requests
            assert (await destination.request("echo", index, timeout=5)).data == index

        pending = asyncio.ensure_future(destination.request("hang", timeout=30))
        await go.event("hanging")
        assert await go.call("cut", which=cut) == 1
        await eventually(lambda: len(unit.connections) == 1, "the connection to go")
        # Go answers over whichever connection it has, so this one is not lost.
        await go.call("release")
        assert (await pending).data == "released"
        for index in range(10):
            assert (await destination.request("echo", index, timeout=5)).data == index
            assert (await go.request("py", "echo", index)).python == index
        assert unit.connected
        assert peer.units == (unit,)
        assert closed == []

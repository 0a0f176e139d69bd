"""A live peer in the place of the recorded listeners: a fake dialer says what the real one said.

Its answers are compared with the recorded ones, in order and content (docs/protocol.md has the rules).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import roletalk
from roletalk._codec import decode_value, parse_envelope
from roletalk._wire import MessageType
from tests import rawclient as raw
from tests.recordings import CHANGED, MEANT, Recording, each_pair, load, respelled, same

MASK = b"\x37\xfa\x21\x3d"


class Bench:
    """The role that the recorded listeners had."""

    def __init__(self, peer: roletalk.Peer) -> None:
        self.seen: list[object] = []
        self.release = asyncio.Event()  # the slow handler answers once this is set
        bench = peer.role("bench")

        @bench.on_request("echo")
        def echo(ctx: roletalk.Context) -> object:
            self.seen.append(ctx.data)
            return ctx.data

        @bench.on_message("log")
        def log(ctx: roletalk.Context) -> None:
            self.seen.append(ctx.data)

        @bench.on_request("fail")
        def fail(_: roletalk.Context) -> None:
            raise roletalk.Reject("boom")

        @bench.on_request("noreply")
        def noreply(_: roletalk.Context) -> None:
            """A handler that has nothing to say answers null."""

        @bench.on_request("slow")
        async def slow(_: roletalk.Context) -> str:
            await self.release.wait()
            return "late"

        @bench.on_request("addrole")
        def addrole(_: roletalk.Context) -> str:
            peer.role("extra").enable()
            return "ok"

        @bench.on_request("norole")
        def norole(_: roletalk.Context) -> str:
            peer.role("extra").disable()
            return "ok"


@dataclass
class Stage:
    """A live peer, and the connection on which the recorded dialer speaks to it."""

    peer: roletalk.Peer
    bench: Bench
    connection: raw.Connection
    data: dict[str, Any]  # the peer data that the live peer sent
    dialer_id: str

    @property
    def dialer(self) -> roletalk.Unit:
        (unit,) = (unit for unit in self.peer.units if unit.id == self.dialer_id)
        return unit

    async def settled(self) -> None:
        """Everything sent before has been handled: order is kept on one connection."""
        answer = await asyncio.to_thread(self.connection.ask, "bench", "echo", "settled")
        assert answer.data == "settled"


@asynccontextmanager
async def stage(recording: Recording) -> AsyncIterator[Stage]:
    mine = recording.peer_data("dialer")
    async with roletalk.Peer(name="ours") as peer:
        bench = Bench(peer)
        listener = await peer.listen("127.0.0.1", 0)
        connection = await asyncio.to_thread(raw.dial, listener.port)
        with connection:
            data = await asyncio.to_thread(raw.authenticate, connection, data=mine)
            yield Stage(peer, bench, connection, data, mine["id"])


def speak(recording: Recording, connection: raw.Connection, extra: int = 0) -> list[bytes]:
    """Say what the dialer said, frame by frame, and read a message wherever it got one.

    Returns what was read, and `extra` messages more.
    """
    said = False
    answers: list[bytes] = []
    for frame in recording.frames:
        dialer, opcode = frame["dir"].startswith("dialer"), frame["opcode"]
        if frame["payload"][:1] == b"\x03" and opcode == raw.BINARY:
            continue
        if dialer and opcode != raw.PONG:
            connection.send_frame(opcode, frame["payload"], fin=frame["fin"], mask=MASK)
            said = True
        elif not dialer and opcode == raw.BINARY:
            assert said, "the listener spoke first"
            answers.append(connection.read_message())
    answers += [connection.read_message() for _ in range(extra)]
    return answers


def live(
    scenario: str, pair: str, check: Callable[[Recording, Stage, list[bytes]], None], extra: int = 0
) -> None:
    """Replay the dialer's part of a recording to a live peer, then check."""

    async def run() -> None:
        recording = load(scenario, pair)
        async with stage(recording) as on:
            on.bench.release.set()
            answers = await asyncio.to_thread(speak, recording, on.connection, extra)
            await on.settled()
            check(recording, on, answers)

    asyncio.run(run())


@each_pair
def test_live_messages(pair: str) -> None:
    def check(recording: Recording, on: Stage, answers: list[bytes]) -> None:
        assert answers == []
        assert on.bench.seen[-1] == "settled"
        for found, value in zip(on.bench.seen[:-1], MEANT[recording.dialer], strict=True):
            assert same(found, value)

    live("messages_all_types", pair, check)


@each_pair
def test_live_requests(pair: str) -> None:
    def check(recording: Recording, _: Stage, answers: list[bytes]) -> None:
        recorded = recording.messages("listener")[1:]
        for index, (ours, theirs) in enumerate(zip(answers, recorded, strict=True)):
            mine, other = parse_envelope(ours), parse_envelope(theirs)
            assert (mine.kind, mine.correlation) == (other.kind, other.correlation)
            value = decode_value(mine.body)
            assert same(value, MEANT[recording.dialer][index])  # ours loses nothing on the way
            if index not in CHANGED[pair]:
                assert theirs == respelled(ours, value, recording.listener)

    live("requests_all_types", pair, check)


@each_pair
def test_live_big_request(pair: str) -> None:
    def check(recording: Recording, _: Stage, answers: list[bytes]) -> None:
        assert answers == recording.messages("listener")[1:]

    live("big_request_20000", pair, check)


@each_pair
def test_live_rejects(pair: str) -> None:
    def check(recording: Recording, _: Stage, answers: list[bytes]) -> None:
        events = {f.correlation: f.event.decode() for f in recording.envelopes("dialer")}
        found = {}
        for message in answers:
            answer = parse_envelope(message)
            found[events[answer.correlation]] = answer.kind, decode_value(answer.body)
        assert found.pop("slow") == (MessageType.RESOLVE, "late")
        # Where Go rejects and JS keeps silent, a handler of ours has answered: with nothing.
        assert found.pop("noreply") == (MessageType.RESOLVE, None)
        assert found.pop("fail") == (MessageType.REJECT, "boom")
        for kind, text in (found.pop("unknown"), found.pop("x")):
            assert kind is MessageType.REJECT
            assert isinstance(text, str)
            assert text
        assert not found

    live("rejects", pair, check, extra=1 if pair.endswith("js") else 0)


@each_pair
def test_live_roles_updates(pair: str) -> None:
    def check(recording: Recording, on: Stage, answers: list[bytes]) -> None:
        assert on.data["roles"] == ["bench"]
        found = [parse_envelope(message) for message in answers]
        updates = [json.loads(f.body) for f in found if f.kind is MessageType.ROLES]
        assert [sorted(update["roles"]) for update in updates] == [["bench", "extra"], ["bench"]]
        assert updates[0]["i"] < updates[1]["i"]
        recorded = [f for f in recording.envelopes("listener") if f.kind is MessageType.RESOLVE]
        assert [f for f in found if f.kind is MessageType.RESOLVE] == recorded
        assert on.dialer.roles == frozenset({"mine2"})
        assert on.peer.destination("mine2").ready
        assert not on.peer.destination("mine1").ready

    live("roles_updates", pair, check)


def test_live_roles_updates_out_of_order() -> None:
    """The highest counter wins.  The recorded updates are all alike, so each gets a role of its own."""

    async def run() -> None:
        recording = load("roles_flip_400", "go-js")
        async with stage(recording) as on:
            for message in recording.messages("dialer")[1:]:
                update = json.loads(message[1:])
                on.connection.send(raw.roles_message(update["i"], [f"flip{update['i']}"]))
            await on.settled()
            assert on.dialer.roles == frozenset({"flip401"})

    asyncio.run(run())


@each_pair
def test_live_pings_are_answered(pair: str) -> None:
    async def run() -> None:
        recording = load("heartbeat_16s", pair)
        pings = [
            frame["payload"]
            for frame in recording.frames
            if frame["dir"].startswith("dialer") and frame["opcode"] == raw.PING
        ]
        assert pings
        async with stage(recording) as on:
            for ping in pings:
                on.connection.send_frame(raw.PING, ping, mask=MASK)
                frame = await asyncio.to_thread(on.connection.read_frame)
                assert (frame.opcode, frame.payload) == (raw.PONG, ping)

    asyncio.run(run())


@each_pair
def test_live_close_on_purpose(pair: str) -> None:
    async def run() -> None:
        recording = load("manual_close_by_dialer", pair)
        async with stage(recording) as on:
            unit = on.dialer
            closed = asyncio.Event()
            unit.on_close(lambda _: closed.set())
            await asyncio.to_thread(speak, recording, on.connection)
            assert await asyncio.to_thread(on.connection.wait_closed) == 4000
            await asyncio.wait_for(closed.wait(), raw.WAIT)
            assert not unit.connected
            assert unit not in on.peer.units

    asyncio.run(run())


@each_pair
def test_live_peer_data_is_what_the_legacy_peers_need(pair: str) -> None:
    """Each key that both of them send is there, with a value of the same type."""

    async def run() -> None:
        recording = load("acquaint", pair)
        theirs = recording.peer_data("listener")
        async with stage(recording) as on:
            assert theirs.keys() <= on.data.keys()
            for key in theirs.keys() - {"meta"}:
                assert type(on.data[key]) is type(theirs[key])
            for key, value in theirs["meta"].items():
                assert type(on.data["meta"][key]) is type(value)
            assert on.data["meta"]["protocol"] == theirs["meta"]["protocol"] == "2.0.0"

    asyncio.run(run())


@each_pair
def test_live_an_introduced_peer_is_dialled(pair: str) -> None:
    """The recorded B introduces A to us, who are C with a destination for A's role."""

    async def run() -> None:
        recording = load("acquaint", pair)
        (introduction,) = recording.messages("dialer")[1:]
        introduced = json.loads(introduction[1:])
        data = raw.peer_data(introduced["id"], roles=introduced["roles"])
        with raw.RawListener() as a:
            here = a.url.removesuffix("/").encode()
            there = introduced["address"].encode()
            async with stage(recording) as on:
                destination = on.peer.destination("ra")
                message = introduction.replace(there, here)
                await asyncio.to_thread(on.connection.send, message)
                with await asyncio.to_thread(a.accept_upgraded) as connection:
                    await asyncio.to_thread(raw.authenticate, connection, data=data)
                    await destination.wait_ready(timeout=raw.WAIT)
                    assert [unit.id for unit in destination.units] == [introduced["id"]]

    asyncio.run(run())


def test_live_we_introduce_as_the_recorded_peers_do() -> None:
    """In the place of B: whom we dialled first is introduced to whom we dialled next, and back."""

    def accept(listener: raw.RawListener, name: str, roles: list[str]) -> raw.Connection:
        connection = listener.accept_upgraded()
        raw.authenticate(connection, data=raw.peer_data(name, roles=roles))
        return connection

    async def run() -> None:
        with raw.RawListener() as a, raw.RawListener() as c:
            urls = {"peer-a": a.url.removesuffix("/"), "peer-c": c.url.removesuffix("/")}
            async with roletalk.Peer(name="b") as peer:
                accepting = asyncio.to_thread(accept, a, "peer-a", ["ra", "rb"])
                to_a, _ = await asyncio.gather(accepting, peer.connect(urls["peer-a"]))
                accepting = asyncio.to_thread(accept, c, "peer-c", ["rc"])
                to_c, _ = await asyncio.gather(accepting, peer.connect(urls["peer-c"]))
                with to_a, to_c:
                    told_c = await asyncio.to_thread(to_c.read_kind, raw.ACQUAINT)
                    told_a = await asyncio.to_thread(to_a.read_kind, raw.ACQUAINT)
        of_a, of_c = json.loads(told_c[1:]), json.loads(told_a[1:])
        assert of_a.keys() == of_c.keys() == {"id", "address", "roles"}
        assert (of_a["id"], of_a["address"]) == ("peer-a", urls["peer-a"])
        assert (of_c["id"], of_c["address"]) == ("peer-c", urls["peer-c"])
        assert sorted(of_a["roles"]) == ["ra", "rb"]
        assert of_c["roles"] == ["rc"]

    asyncio.run(run())

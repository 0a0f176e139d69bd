"""Beyond the limits that no other test is about; docs/limits.md says which test is for which."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from typing import Any

import pytest

import roletalk
from roletalk import announcer, callbacks
from roletalk._buffer import MAX_STRANGERS_BYTES, Account
from roletalk._inbound import FrameLimits
from roletalk.gate import STRANGER_BYTES, Gate
from roletalk.lobby import SPARE_DESCRIPTORS, leaves_descriptors
from tests import rawclient as raw
from tests.faketransport import Recorder, Remote
from tests.helpers import eventually, pair, peers, ready, run
from tests.streams import OPENERS, Opener
from tests.streamscene import scene

KIB = 1024
READ = 256 * KIB  # bytes that are taken of a connection in one turn of the loop, at most


async def dialled(stack: ExitStack, port: int, **data: Any) -> raw.Connection:
    """An authenticated raw connection, dropped with `stack`."""

    def dial() -> raw.Connection:
        connection = stack.enter_context(raw.dial(port))
        raw.authenticate(connection, data=raw.peer_data("raw", **data) if data else None)
        return connection

    return await asyncio.to_thread(dial)


# -- memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fragments", [False, True])
def test_parts_of_messages_of_all_connections_together(fragments: bool) -> None:
    async def main() -> None:
        async with peers("server", max_received_bytes=1000 * KIB) as (server,):
            server.role("r").on_request("e")(lambda ctx: len(ctx.raw))
            port = (await server.listen()).port
            part = raw.request("r", "e", 1, b"\0" + bytes(600 * KIB))
            frame = raw.encode_frame(raw.BINARY, part, fin=not fragments)
            rest = raw.encode_frame(raw.CONTINUATION, b"") if fragments else frame[-1:]
            begun = frame if fragments else frame[:-1]
            with ExitStack() as stack:
                first, second, small = [await dialled(stack, port) for _ in range(3)]
                await asyncio.to_thread(first.send_raw, begun)
                await eventually(lambda: server.stats()["received_bytes_kept"] >= 600 * KIB)
                await asyncio.to_thread(second.send_raw, begun)
                assert await asyncio.to_thread(second.wait_closed) == 1013
                reason = "connections closed because too much was being received"
                assert server.stats()["drops"] == {reason: 1}
                # The first one goes on, and so do those that need little.
                assert (await asyncio.to_thread(small.ask, "r", "e", 1)).kind == raw.RESOLVE
                await asyncio.to_thread(first.send_raw, rest)
                answer = await asyncio.to_thread(first.read_answer, 1)
                assert answer.data == 600 * KIB
                await eventually(lambda: server.stats()["received_bytes_kept"] == 0)

    run(main())


def test_payload_of_handlers_of_all_units_together() -> None:
    async def main() -> None:
        async with (
            peers("server", max_received_bytes=100_000) as (server,),
            peers("a", "b") as clients,
        ):
            go_on = asyncio.Event()

            @server.role("r").on_request("e")
            async def keep(ctx: roletalk.RequestContext) -> int:
                await go_on.wait()
                return len(ctx.raw)

            url = (await server.listen()).url
            for client in clients:
                await client.connect(url)
            first, second = [await ready(client) for client in clients]
            asked = [asyncio.ensure_future(first.request("e", bytes(60_000))) for _ in range(2)]
            await eventually(lambda: server.stats()["running_handlers"] == 2)
            assert server.stats()["received_bytes_kept"] == 120_000
            # What the one unit keeps is no longer there for the other.
            with pytest.raises(roletalk.RemoteError, match="too many requests at once"):
                await second.request("e", 1)
            go_on.set()
            assert [(await each).data for each in asked] == [60_000] * 2
            assert server.stats()["received_bytes_kept"] == 0
            assert (await second.request("e", b"x")).data == 1

    run(main())


def test_windows_of_all_streams_together() -> None:
    async def main() -> None:
        async with peers("server", max_received_bytes=0) as (server,), peers("client") as (client,):
            taken: list[int] = []

            @server.role("r").on_readable("e")
            async def read(ctx: roletalk.ReadableContext) -> None:
                async with ctx.accept() as stream:
                    taken.append(server.account.windows)
                    async for _ in stream:
                        pass

            await client.connect((await server.listen()).url)
            async with (await ready(client)).writable("e") as stream:
                await stream.write(bytes(1000 * KIB))
            # No window was wider than the smallest, and all went through.
            assert taken == [0]
            await eventually(lambda: server.stats()["stream_bytes_received"] == 1000 * KIB)

    run(main())


def test_parts_of_messages_of_strangers_together() -> None:
    async def main() -> None:
        account = Account()
        limits = FrameLimits(max_message_size=1 << 20)
        made: list[tuple[Recorder, Remote]] = []

        def stranger(kept: int) -> Recorder:
            connection = Recorder(limits, is_client=False, account=account)
            remote = Remote(connection, Gate(connection, budget=STRANGER_BYTES))
            made.append((connection, remote))
            remote.transport.feed(raw.frame_header(raw.BINARY, 500_000) + bytes(kept - 8))
            return connection

        most = STRANGER_BYTES - 100
        fit = MAX_STRANGERS_BYTES // most
        assert all(stranger(most).is_open for _ in range(fit))
        refused = stranger(most)
        assert refused.close_code == 1013
        assert account.strangers <= MAX_STRANGERS_BYTES
        # Whoever needs little more than a handshake takes still comes in.
        assert stranger(4000).is_open
        for connection, remote in made:
            connection.abort()
            remote.transport._lose()
        assert account.strangers == account.kept == 0

    run(main(), debug=False)


def test_a_stranger_beyond_its_bytes_leaves_nothing_in_the_account() -> None:
    async def main() -> None:
        account = Account()
        connection = Recorder(FrameLimits(), is_client=False, account=account)
        remote = Remote(connection, Gate(connection, budget=STRANGER_BYTES))
        remote.transport.feed(raw.frame_header(raw.BINARY, 500_000) + bytes(STRANGER_BYTES // 2))
        assert account.strangers > 0
        remote.transport.feed(bytes(STRANGER_BYTES))
        assert connection.close_code == 1009
        assert account.strangers == account.kept == 0
        connection.abort()
        remote.transport._lose()
        assert account.strangers == account.kept == 0

    run(main(), debug=False)


def test_answers_of_handlers_that_ran_when_reading_stopped() -> None:
    async def main() -> None:
        limits: dict[str, Any] = {
            "high_water": 64 * KIB,
            "low_water": 32 * KIB,
            "max_message_size": 1024 * KIB,
            "max_handler_bytes": 1024 * KIB,
        }
        bound = 4 * 64 * KIB + 2 * 1024 * KIB
        async with peers("server", **limits) as (server,):
            go_on = asyncio.Event()

            @server.role("r").on_request("e")
            async def answer(ctx: roletalk.RequestContext) -> bytes:
                await go_on.wait()
                return bytes(100 * KIB)

            port = (await server.listen()).port
            with ExitStack() as stack:
                asker = await dialled(stack, port)
                for number in range(1, 201):
                    asker.send(raw.request("r", "e", number))
                await eventually(lambda: server.stats()["running_handlers"] == 200)
                go_on.set()
                await eventually(lambda: server.stats()["running_handlers"] == 0)
                stats = server.stats()
                # What was over is what the reply that went beyond it has, and the rejects.
                assert stats["unsent_bytes"] <= bound + 100 * KIB + 200 * 64
                assert stats["drops"]["replies to units that do not read them"] > 100

                def read() -> list[int]:
                    return [asker.read_answer(number).kind for number in range(1, 201)]

                kinds = await asyncio.to_thread(read)
                assert kinds.count(raw.RESOLVE) + kinds.count(raw.REJECT) == 200
                assert kinds.count(raw.RESOLVE) >= 10

    run(main(), debug=False)


def test_what_is_announced_to_a_unit_that_never_reads() -> None:
    async def main() -> None:
        limits: dict[str, Any] = {"high_water": 64 * KIB, "low_water": 32 * KIB}
        async with peers("server", max_message_size=100 * KIB, **limits) as (server,):
            roles = [server.role(f"{number:05}" * 200) for number in range(50)]
            port = (await server.listen()).port
            with ExitStack() as stack:
                await dialled(stack, port)
                await eventually(lambda: server.units)
                unit = server.units[0]
                reason = "connections closed because the unit took nothing"
                most = 0

                def flip() -> bool:
                    nonlocal most
                    (roles[0].disable if roles[0].active else roles[0].enable)()
                    most = max(most, server.stats()["unsent_bytes"])
                    return reason in server.stats()["drops"]

                await eventually(flip)
                await eventually(lambda: not unit.connected)
                assert most <= 4 * 64 * KIB + 100 * KIB + 60 * KIB

    run(main(), debug=False)


# -- rates -------------------------------------------------------------------------------------------


def test_role_changes_of_a_unit() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            opened: list[object] = []
            wanted = server.destination("flips")
            wanted.on_open(opened.append)
            port = (await server.listen()).port
            count = 20 * announcer.ROLE_CHANGES
            with ExitStack() as stack:
                unit = await dialled(stack, port)

                def flood() -> None:
                    for number in range(1, count):
                        unit.send(raw.roles_message(number, ["flips"] if number % 2 else []))
                    unit.send(raw.roles_message(count, ["flips", "last"]))

                began = asyncio.get_running_loop().time()
                await asyncio.to_thread(flood)
                await eventually(lambda: server.units and "last" in server.units[0].roles)
                seconds = asyncio.get_running_loop().time() - began
                # Each second that it took has its own share; the last change is never lost.
                assert len(opened) <= (int(seconds) + 2) * announcer.ROLE_CHANGES
                assert wanted.ready

    run(main(), debug=False)


def test_role_changes_that_wait_are_dropped_with_their_unit() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            port = (await server.listen()).port
            with ExitStack() as stack:
                raw_unit = await dialled(stack, port)
                await eventually(lambda: server.units)
                unit = server.units[0]
                changes = unit._role_changes
                for number in range(announcer.ROLE_CHANGES + 1):
                    changes.take(frozenset({str(number)}))
                assert unit.roles == {str(announcer.ROLE_CHANGES - 1)}
                raw_unit.drop()
                await eventually(lambda: not unit.connected)
                assert changes._timer is None

    run(main())


def test_async_callbacks_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "MAX_RUNNING", 3)

    async def main() -> None:
        async with peers("peer") as (peer,):
            begun: list[str] = []
            go_on = asyncio.Event()

            @peer.on_role
            async def hang(role: roletalk.Role) -> None:
                begun.append(role.name)
                await go_on.wait()

            for number in range(5):
                peer.role(str(number))
            await eventually(lambda: begun == ["0", "1", "2"])
            assert peer.stats()["drops"] == {"callbacks while too many of them run": 2}
            go_on.set()
            await eventually(lambda: not peer._callback_tasks)
            peer.role("later")
            await eventually(lambda: begun[3:] == ["later"])

    run(main())


def test_one_connection_has_the_loop_for_one_read_at_a_time() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            handled = 0

            @server.role("r").on_message("e")
            def count(ctx: roletalk.Context) -> None:
                nonlocal handled
                handled += 1

            port = (await server.listen()).port
            frame = raw.encode_frame(raw.BINARY, raw.message("r", "e"))
            total = 8 * READ // len(frame)
            most = before = 0
            loop = asyncio.get_running_loop()

            def turn() -> None:
                nonlocal most, before
                most, before = max(most, handled - before), handled
                if handled < total:
                    loop.call_soon(turn)

            with ExitStack() as stack:
                unit = await dialled(stack, port)
                turn()
                await asyncio.to_thread(unit.send_raw, frame * total)
                await eventually(lambda: handled == total)
            assert 1 < most <= READ // len(frame) + 1

    run(main(), debug=False)


def test_log_lines_about_one_remote_peer(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair(max_log_lines=5) as (server, client):

            @server.role("r").on_request("e")
            def fail(ctx: roletalk.RequestContext) -> None:
                raise RuntimeError("of the handler")

            destination = await ready(client)
            for _ in range(20):
                with pytest.raises(roletalk.RemoteError):
                    await destination.request("e")
            assert server.stats()["log_lines_left_out"] == 15

    run(main())
    assert sum("error in handler" in line for line in caplog.messages) == 5
    assert any(line.startswith("15 log lines about remote peers") for line in caplog.messages)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors there")
@pytest.mark.parametrize(("most", "spare"), [(1024, SPARE_DESCRIPTORS), (256, 64)])
def test_descriptors_are_left(monkeypatch: pytest.MonkeyPatch, most: int, spare: int) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda what: (most, 1 << 20))
    assert leaves_descriptors(most - spare - 1)
    assert not leaves_descriptors(most - spare)
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY,) * 2)
    assert leaves_descriptors(1 << 30)


def test_a_stranger_that_takes_one_of_the_last_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roletalk.gate.leaves_descriptors", lambda descriptor: False)

    async def main() -> None:
        async with peers("server") as (server,):
            port = (await server.listen()).port
            with pytest.raises((raw.PeerGone, OSError)):
                await asyncio.to_thread(raw.dial, port)
            assert server.stats()["handshake_failures"] == 1

    run(main())


# -- sizes at their edges ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "is_body"),
    [(16 * KIB - 1, False), (16 * KIB, True), (1024 * KIB, True), (1024 * KIB + 1, False)],
)
def test_which_chunks_are_read_to_where_they_stay(size: int, is_body: bool) -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            chunks: list[bytes] = []

            @server.role("r").on_readable("e")
            async def read(ctx: roletalk.ReadableContext) -> None:
                async with ctx.accept() as stream:
                    chunks.append(await stream.read(-1))

            port = (await server.listen()).port
            with ExitStack() as stack:
                unit = await dialled(stack, port)
                unit.send(raw.open_stream(raw.OPEN_WRITABLE, "r", "e", 1, 7))
                number = (await asyncio.to_thread(unit.read_answer, 1)).channel
                head = raw.stream_data(number, raw.CHUNK)
                data = bytes(range(256)) * (size // 256 + 1)
                frame = raw.encode_frame(raw.BINARY, head + data[: size - len(head)])
                link: Any = server.units[0].connections[0]
                received = link.received_at
                await asyncio.to_thread(unit.send_raw, frame[:1000])
                await eventually(lambda: link.received_at > received)
                # The room that the next read has tells where it goes.
                missing = len(frame) - 1000
                assert (len(link.get_buffer(-1)) == missing) == is_body
                finish = raw.encode_frame(raw.BINARY, raw.stream_data(number, raw.FINISH))
                await asyncio.to_thread(unit.send_raw, frame[1000:] + finish)
                await eventually(lambda: chunks)
                assert chunks == [data[: size - len(head)]]

    run(main(), debug=False)


def test_the_bytes_of_one_chunk() -> None:
    async def main() -> None:
        async with peers("server") as (server,):
            data = bytes(range(256)) * 1000

            @server.role("r").on_writable("e")
            async def write(ctx: roletalk.WritableContext) -> None:
                async with ctx.accept() as stream:
                    await stream.write(data)

            port = (await server.listen()).port
            with ExitStack() as stack:
                unit = await dialled(stack, port)

                def read() -> list[bytes]:
                    unit.send(raw.open_stream(raw.OPEN_READABLE, "r", "e", 1, 7))
                    number = unit.read_answer(1).channel
                    unit.send(raw.stream_data(number, raw.QUOTA, raw.number(1024 * KIB)))
                    chunks = []
                    while (found := raw.decode(unit.read_message())).flag != raw.FINISH:
                        chunks.append(found.payload)
                    return chunks

                chunks = await asyncio.to_thread(read)
                assert b"".join(chunks) == data
                assert max(map(len, chunks)) == 64 * KIB

    run(main(), debug=False)


@pytest.mark.parametrize("opener", OPENERS)
def test_the_text_of_an_abort(opener: Opener) -> None:
    async def main() -> None:
        for size in (4095, 4096, 5000):
            async with scene(opener) as it:
                await it.writer.abort("x" * size)
                with pytest.raises(roletalk.StreamError) as caught:
                    await it.reader.read()
                shown = str(caught.value)
                assert len(shown) == 4096
                assert shown.startswith("aborted by the writer: xxx")
                assert "x… (stream 'e' of role 'r' with unit " in shown

    run(main())


def test_the_text_of_a_reject() -> None:
    async def main() -> None:
        async with pair() as (server, client):

            @server.role("r").on_request("e")
            def refuse(ctx: roletalk.RequestContext) -> None:
                ctx.reject("\n" * ctx.data)

            destination = await ready(client)
            for size, kept in ((4095, 4095), (4096, 4096), (4097, 4096), (100_000, 4096)):
                with pytest.raises(roletalk.RemoteError) as caught:
                    await destination.request("e", size)
                assert caught.value.text == "\n" * kept
                assert len(str(caught.value)) == 4096

    run(main())

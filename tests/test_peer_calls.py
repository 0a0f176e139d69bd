"""Where a peer may be called from: its own thread, loop and process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

import roletalk
from tests.helpers import loop_factory, pair, peers, run

# -- where it may be called from


PLAIN_CALLS: list[tuple[str, Callable[[roletalk.Peer], Any]]] = [
    ("role", lambda peer: peer.role("new")),
    ("destination", lambda peer: peer.destination("new")),
    ("add_key", lambda peer: peer.add_key("a", "b")),
    ("remove_key", lambda peer: peer.remove_key("a")),
    ("set_tag", lambda peer: peer.set_tag("a", "b")),
    ("enable", lambda peer: peer.roles[0].enable()),
    ("disable", lambda peer: peer.roles[0].disable()),
    ("on_request", lambda peer: peer.roles[0].on_request("x")(print)),
    ("send", lambda peer: peer.destinations[0].send("e")),
    ("send_nowait", lambda peer: peer.destinations[0].send_nowait("e")),
    ("broadcast", lambda peer: peer.destinations[0].broadcast("e")),
    ("request", lambda peer: peer.destinations[0].request("e")),
]


@pytest.mark.parametrize("call", [c for _, c in PLAIN_CALLS], ids=[n for n, _ in PLAIN_CALLS])
@pytest.mark.parametrize("where", ["thread", "thread with a loop"])
def test_a_call_from_elsewhere_is_a_runtime_error(
    call: Callable[[roletalk.Peer], Any], where: str
) -> None:
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r")
            client.role("mine")
            await client.destination("r").wait_ready(10)
            outcome: list[BaseException | None] = []

            def attempt() -> None:
                try:
                    call(client)
                    outcome.append(None)
                except BaseException as error:
                    outcome.append(error)

            async def attempt_in_loop() -> None:
                attempt()

            def work() -> None:
                if where == "thread":
                    attempt()
                else:
                    asyncio.run(attempt_in_loop())

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            assert isinstance(outcome[0], RuntimeError), outcome
            assert any(word in str(outcome[0]) for word in ("thread", "loop"))

    run(main())


@pytest.mark.parametrize("call", [c for _, c in PLAIN_CALLS], ids=[n for n, _ in PLAIN_CALLS])
def test_a_call_on_a_later_loop_is_a_runtime_error(call: Callable[[roletalk.Peer], Any]) -> None:
    first, second = loop_factory(), loop_factory()

    async def begin() -> tuple[roletalk.Peer, roletalk.Peer]:
        server, client = roletalk.Peer(), roletalk.Peer()
        server.role("r")
        client.role("mine")
        await client.connect((await server.listen()).url)
        await client.destination("r").wait_ready(10)
        return server, client

    async def attempt(client: roletalk.Peer) -> None:
        with pytest.raises(RuntimeError, match="loop"):
            call(client)

    async def end(peers: tuple[roletalk.Peer, roletalk.Peer]) -> None:
        for peer in peers:
            await peer.close()

    made = first.run_until_complete(begin())
    second.run_until_complete(attempt(made[1]))
    second.close()
    first.run_until_complete(end(made))
    first.close()


COROUTINES: list[tuple[str, Callable[[roletalk.Peer], Any]]] = [
    ("listen", lambda peer: peer.listen()),
    ("connect", lambda peer: peer.connect("ws://127.0.0.1:1")),
    ("close", lambda peer: peer.close()),
    ("drain", lambda peer: peer.drain()),
    ("serve_forever", lambda peer: peer.serve_forever()),
    ("wait_closed", lambda peer: peer.wait_closed()),
    ("wait_ready", lambda peer: peer.destinations[0].wait_ready()),
    ("Unit.close", lambda peer: peer.units[0].close()),
]


@pytest.mark.parametrize("call", [c for _, c in COROUTINES], ids=[n for n, _ in COROUTINES])
def test_a_coroutine_on_another_loop_is_a_runtime_error(
    call: Callable[[roletalk.Peer], Any],
) -> None:
    async def main() -> None:
        async with pair() as (_, client):
            client.destination("r")
            outcome: list[BaseException | None] = []

            async def attempt() -> None:
                try:
                    await asyncio.wait_for(call(client), 5)
                    outcome.append(None)
                except BaseException as error:
                    outcome.append(error)

            thread = threading.Thread(target=lambda: asyncio.run(attempt()))
            thread.start()
            await asyncio.to_thread(thread.join)
            assert isinstance(outcome[0], RuntimeError), outcome
            assert "thread" in str(outcome[0])

    run(main())


FORK = textwrap.dedent(
    """
    import asyncio, os, sys
    import roletalk

    async def main():
        async with roletalk.Peer() as server, roletalk.Peer() as client:
            server.role("r").on_request("e")(lambda ctx: 1)
            await client.connect((await server.listen()).url)
            destination = client.destination("r")
            await destination.wait_ready(10)
            child = os.fork()
            if child == 0:
                said = []
                for call in (lambda: client.role("x"), lambda: client.destination("x"),
                             lambda: destination.send_nowait("e"), lambda: destination.send("e"),
                             lambda: destination.request("e"), lambda: client.add_key("a", "b")):
                    try:
                        call()
                        said.append("no error")
                    except RuntimeError as error:
                        said.append(str(error))
                os._exit(0 if all("fork" in text for text in said) else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert (await destination.request("e")).data == 1
        print("fine")

    asyncio.run(main())
    """
)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.slow
def test_a_call_in_a_forked_child_is_a_runtime_error() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "fine\n", done.stderr


def test_a_peer_may_be_set_up_before_the_loop_runs() -> None:
    peer = roletalk.Peer(name="early")
    peer.add_key("a", "b")
    peer.role("r").on_request("e")(lambda ctx: 1)
    peer.destination("d")
    peer.set_tag("a", "b")
    with pytest.raises(RuntimeError, match="loop"):
        peer.destination("d").request("e")

    async def main() -> None:
        await peer.listen()
        async with peers("client", keys={"a": "b"}) as (client,):
            await client.connect(peer.listeners[0].url)
            assert (await client.destination("r").request("e")).data == 1
        await peer.close()

    run(main())

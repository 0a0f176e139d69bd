"""What is easily done wrong with the library, as a user does it, and what says so."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import multiprocessing
import os
import pickle
import sys
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

import roletalk
from tests.helpers import eventually, pair, peers, ready, run

Main = Callable[[], Coroutine[Any, Any, None]]


def in_loop(main: Main) -> Callable[[], None]:
    @functools.wraps(main)
    def test() -> None:
        run(main())

    del test.__wrapped__  # pytest would take it for the test
    return test


# -- a forgotten await -------------------------------------------------------------------------------


@in_loop
async def test_what_is_opened_and_never_awaited_is_warned_of() -> None:
    async with pair() as (server, client):
        destination = client.destination("r")
        forgotten: list[tuple[str, Callable[[], object]]] = [
            ("Peer.listen", server.listen),
            ("Peer.connect", lambda: client.connect("ws://127.0.0.1:1")),
            ("Destination.readable", lambda: destination.readable("e")),
            ("Destination.writable", lambda: destination.writable("e")),
        ]
        for name, forget in forgotten:
            with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
                forget()


@in_loop
async def test_a_stream_that_is_accepted_without_an_await() -> None:
    async with pair() as (server, client):

        @server.role("r").on_readable("upload")
        async def upload(ctx: roletalk.ReadableContext) -> None:
            with pytest.warns(RuntimeWarning, match="'ReadableContext.accept' was never awaited"):
                ctx.accept()

        with pytest.raises(roletalk.RemoteError, match="the stream was not accepted"):
            await (await ready(client)).writable("upload")


@in_loop
async def test_a_failure_that_nobody_saw_is_warned_of_counted_and_logged() -> None:
    async with peers("lonely") as (peer,):
        destination = peer.destination("orders")
        for forget in (
            lambda: destination.send("placed", 1),
            lambda: destination.request("place", 1),
            lambda: destination.request("place", object()),
        ):
            with pytest.warns(RuntimeWarning, match="role 'orders' failed with|a call failed with"):
                forget()
        assert peer.stats()["drops"] == {"errors of calls that were never awaited": 3}


def test_where_a_failure_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def main() -> None:
        async with peers("lonely") as (peer,):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                peer.destination("orders").send("placed", 1)  # type: ignore[unused-coroutine]
            assert [each.filename for each in caught] == [__file__]

    main()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("roletalk", "WARNING")
    assert record.pathname == __file__
    assert record.getMessage().startswith(
        "a request or message to role 'orders' failed, and nobody awaited it: NoUnitsError: no"
        " connected unit serves role 'orders' (no units are connected"
    )


@in_loop
async def test_a_reply_that_was_not_awaited() -> None:
    async with pair() as (server, client):
        server.role("r").on_request("e")(lambda ctx: 1)
        asked: Any = (await ready(client)).request("e")
        with pytest.raises(AttributeError, match="no data before it is awaited"):
            _ = asked.data
        assert (await asked).data == 1


@in_loop
async def test_to_send_without_an_await_is_no_mistake_while_it_succeeds() -> None:
    async with pair() as (server, client):
        seen: list[Any] = []
        server.role("r").on_message("e")(lambda ctx: seen.append(ctx.data))
        destination = await ready(client)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for number in range(3):
                destination.send("e", number)  # type: ignore[unused-coroutine]
            gc.collect()
        await eventually(lambda: seen == [0, 1, 2])
        assert client.stats()["drops"] == {}


def test_coroutines_that_are_returned_in_place_of_their_results(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @in_loop
    async def main() -> None:
        async with pair() as (server, client):
            role = server.role("r")

            async def look_up() -> int:
                return 1

            @role.on_request("handler")
            async def handler(ctx: roletalk.RequestContext) -> Any:
                found = look_up()
                found.close()
                return found

            destination = await ready(client)
            with pytest.raises(roletalk.RemoteError, match="internal error"):
                await destination.request("handler")

            @role.middleware
            async def forgetful(ctx: roletalk.RequestContext, call_next: Any) -> Any:
                return call_next() if ctx.event == "middleware" else await call_next()

            @role.on_request("middleware")
            def unreached(ctx: roletalk.RequestContext) -> None:
                raise AssertionError

            for event in ("handler", "middleware"):
                with pytest.raises(roletalk.RemoteError, match="internal error"):
                    await destination.request(event)

    main()
    told = [str(record.exc_info and record.exc_info[1]) for record in caplog.records]
    assert "type coroutine: is an await missing before it?" in told[0]
    assert "handler" in told[1]
    assert "returned a coroutine that it did not await" in told[1]
    assert "forgetful (" in told[2]
    assert "write `return await call_next()`" in told[2]
    assert __file__ in told[2]


@in_loop
async def test_a_middleware_that_is_not_async() -> None:
    async with pair(expose_errors=True) as (server, client):
        role = server.role("r")
        role.on_request("e")(lambda ctx: 1)
        role.middleware(lambda ctx, call_next: 5)  # type: ignore[type-var]
        with pytest.raises(roletalk.RemoteError, match="returned int, which cannot be awaited"):
            await (await ready(client)).request("e")


# -- functions that cannot be what they are registered as ----------------------------------------------


def no_arguments() -> None: ...
def two(ctx: Any, extra: Any) -> None: ...
def keyword(ctx: Any, *, needed: Any) -> None: ...
def with_default(ctx: Any, extra: Any = None) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...
def generator(ctx: Any) -> Iterator[int]:
    yield 1


async def async_generator(ctx: Any) -> AsyncIterator[int]:
    yield 1


class Service:
    def hello(self, ctx: Any) -> None: ...
    def __call__(self, ctx: Any) -> None: ...


@functools.wraps(two)
def wrapper(*args: Any) -> None: ...


KINDS = ("message", "request", "readable", "writable")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (
            no_arguments,
            r"called as no_arguments\(ctx\), and no_arguments \(.*test_mistakes.py:\d+\)",
        ),
        (two, r"takes \(ctx, extra\)"),
        (keyword, r"takes \(ctx, \*, needed\)"),
        (Service.hello, "register the bound method of an object"),
        (functools.partial(two, 1, 2), r"takes \(\)"),
        (generator, "cannot be a generator"),
        (async_generator, r"cannot be a generator, and async_generator \(.*has a yield in it"),
        (functools.partial(async_generator), "cannot be a generator"),
        (5, "is a function, not int"),
    ],
)
def test_a_handler_with_the_wrong_signature(kind: str, function: Any, text: str) -> None:
    role = roletalk.Peer().role("r")
    with pytest.raises(TypeError, match=rf"^a handler of {kind}s .*{text}"):
        getattr(role, f"on_{kind}")("e")(function)
    assert role.handlers == ()


class Collected:
    """What a decorator that is a class makes of a function."""

    def __init__(self, func: Callable[[Any], AsyncIterator[int]]) -> None:
        self.func = func

    async def __call__(self, ctx: Any) -> list[int]:
        return [each async for each in self.func(ctx)]


@types.coroutine
def awaitable_generator(ctx: Any) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    "function",
    [
        *(with_default, anything, wrapper, Service().hello, Service(), functools.partial(two, 1)),
        *(print, Collected(async_generator), awaitable_generator),
        *(Mock(), AsyncMock(), Mock(spec=no_arguments), functools.partial(Mock(), 1)),
    ],
)
def test_whatever_can_be_called_with_a_context_is_a_handler(function: Any) -> None:
    role = roletalk.Peer().role("r")
    assert role.on_request("e")(function) is function


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations were evaluated before")
def test_annotations_of_handlers_are_not_evaluated() -> None:
    names: dict[str, Any] = {}
    exec(compile("def handler(ctx: Unknown): ...", "a_module.py", "exec", dont_inherit=True), names)
    roletalk.Peer().role("r").on_message("e")(names["handler"])


def test_middlewares_callbacks_and_filters_with_the_wrong_signature() -> None:
    peer = roletalk.Peer()
    wrong: list[tuple[Callable[[Any], object], Any, str]] = [
        (peer.middleware, with_default_only, r"a middleware is called as .*\(ctx, call_next\)"),
        (
            peer.role("r").middleware,
            no_arguments,
            r"a middleware is called as .*\(ctx, call_next\)",
        ),
        (
            peer.on_unit,
            no_arguments,
            r"a callback of Peer.on_unit is called as no_arguments\(unit\)",
        ),
        (peer.on_unit, async_generator, "cannot be a generator"),
        (peer.role("r").on_status_change, two, r"Role.on_status_change is called as two\(role\)"),
        (
            peer.destination("r").on_open,
            two,
            r"Destination.on_open is called as two\(destination\)",
        ),
        (lambda each: roletalk.Peer(acquaint_filter=each), no_arguments, r"\(unit, url\)"),
        (lambda each: roletalk.Peer(acquaint_filter=each), coroutine_filter, "is a plain function"),
    ]
    for register, function, text in wrong:
        with pytest.raises(TypeError, match=text):
            register(function)


def with_default_only(ctx: Any) -> None: ...
async def coroutine_filter(unit: Any, url: str) -> bool:
    return True


# -- nobody there ------------------------------------------------------------------------------------


@in_loop
async def test_why_there_is_nobody() -> None:
    async def why(peer: roletalk.Peer, role: str) -> str:
        with pytest.raises(roletalk.NoUnitsError) as caught:
            await peer.destination(role).request("e")
        assert (caught.value.role, caught.value.event) == (role, "e")
        with pytest.raises(TimeoutError) as late:
            await peer.destination(role).wait_ready(0)
        assert f"({caught.value.hint})" in str(late.value)
        return str(caught.value)

    async with peers("server", "client") as (server, client):
        assert "neither connect() nor listen() is in effect" in await why(client, "greeter")
        server.role("greeter").on_request("e")(lambda ctx: 1)
        listener = await server.listen()
        await client.connect(listener.url)
        await ready(client, "greeter")
        assert await why(client, "greter") == (
            "no connected unit serves role 'greter'"
            " (1 unit connected, with role 'greeter'; did you mean 'greeter'?)"
        )
        assert "is no unit of its own" in await why(server, "greeter")
        for number in range(20):
            server.role(f"role {number}")
        await ready(client, "role 19")
        assert await why(client, "nothing like it") == (
            "no connected unit serves role 'nothing like it' (1 unit connected, with roles"
            " 'greeter', 'role 0', 'role 1', 'role 10', 'role 11' and 16 more)"
        )
        server.role("long" * 20)
        await ready(client, "long" * 20)
        assert "did you mean" not in await why(client, "long" * 20 + "er")
        with pytest.raises(roletalk.NoUnitsError, match=r"unit 'server' \(.*its roles: 'greeter'"):
            await client.destination("other").send("e", unit=client.units[0])


@in_loop
async def test_nobody_while_a_dial_fails() -> None:
    async with peers("client") as (client,):
        dialling = asyncio.ensure_future(client.connect("ws://127.0.0.1:1", retry=True))
        await eventually(lambda: any(dialer.failure for dialer in client._dialers))
        with pytest.raises(
            roletalk.NoUnitsError,
            match=r"no units are connected; cannot connect to ws://127\.0\.0\.1:1: .*is the peer started",
        ):
            await client.destination("greeter").send("e")
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


@in_loop
async def test_errors_go_to_other_processes() -> None:
    async with pair() as (server, client):
        server.role("r").on_request("e")(lambda ctx: 1 / 0)
        await ready(client)
        for role in ("r", "nobody's"):
            with pytest.raises(roletalk.RoletalkError) as caught:
                await client.destination(role).request("e")
            error = caught.value
            copied = pickle.loads(pickle.dumps(error))
            assert (type(copied), copied.role, copied.event) == (type(error), role, "e")
            assert copied.args == error.args
        assert str(copied) == str(error)


def test_an_error_of_a_program_that_makes_it_in_its_own_way() -> None:
    class OwnError(roletalk.RoletalkError):
        def __init__(self, code: int) -> None:
            self.code = code

    assert str(OwnError(5)) == "5"


@in_loop
async def test_the_error_of_a_reject_says_whose_it_is() -> None:
    async with pair() as (server, client):

        @server.role("r").on_request("e")
        def fail(ctx: roletalk.RequestContext) -> None:
            raise KeyError("secret")

        with pytest.raises(roletalk.RemoteError) as caught:
            await (await ready(client)).request("e")
        assert caught.value.text == "internal error"
        assert str(caught.value) == (
            f"unit 'server' ({server.id[:8]}) rejected 'e' of role 'r': internal error"
            " (its log has the traceback; Peer(expose_errors=True) there sends it)"
        )


@in_loop
async def test_a_timeout_says_whose_it_is() -> None:
    async with pair() as (server, client):

        @server.role("r").on_request("e")
        async def forever(ctx: roletalk.RequestContext) -> None:
            await asyncio.Event().wait()

        destination = await ready(client)
        with pytest.raises(
            roletalk.RequestTimeout, match=r"'e' of role 'r' .* unit 'server' \("
        ) as caught:
            await destination.request("e", timeout=0.01)
        error = caught.value
        assert (error.unit, error.role, error.event) == (client.units[0], "r", "e")
        for task in server._units.running_handlers():
            task.cancel()


# -- the wrong loop, thread or process; a closed peer -------------------------------------------------


def test_a_second_asyncio_run_with_one_peer() -> None:
    peer = roletalk.Peer(name="kept")

    async def use() -> None:
        peer.bind()

    run(use())
    with pytest.raises(RuntimeError, match=r"<Peer 'kept' .*each asyncio.run\(\) makes a new loop"):
        run(use())


@in_loop
async def test_another_thread() -> None:
    async with peers("main") as (peer,):
        peer.bind()
        raised: list[str] = []

        def use() -> None:
            try:
                peer.destination("r").send_nowait("e")
            except RuntimeError as error:
                raised.append(str(error))

        thread = threading.Thread(target=use, name="of the user")
        thread.start()
        await asyncio.to_thread(thread.join)
        (text,) = raised
        assert repr(threading.current_thread().name) in text
        assert "this is thread 'of the user'" in text
        assert "run_coroutine_threadsafe" in text


def test_another_loop_and_none() -> None:
    async def bind(peer: roletalk.Peer) -> None:
        peer.bind()

    async def main(peer: roletalk.Peer) -> None:
        peer.bind()
        other = asyncio.new_event_loop()
        try:
            asyncio._set_running_loop(None)
            with pytest.raises(RuntimeError, match="runs on another event loop of this thread"):
                other.run_until_complete(bind(peer))
        finally:
            asyncio._set_running_loop(peer.loop)
            other.close()

    run(main(roletalk.Peer()))
    with pytest.raises(RuntimeError, match=r"no event loop is running .*asyncio.run\(main\(\)\)"):
        roletalk.Peer().destination("r").send_nowait("e")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child() -> None:
    peer = roletalk.Peer()
    said = multiprocessing.get_context("fork").SimpleQueue()

    def child() -> None:
        try:
            peer.role("r")
        except RuntimeError as error:
            said.put(str(error))
        else:
            said.put("")

    with warnings.catch_warnings():
        # A fork in a program with threads, such as the watchdog of the tests before.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    process.join()
    assert (
        f"made in process {os.getpid()}, and this is process {process.pid}, forked from it; make a"
        " Peer in the child" in said.get()
    )


@in_loop
async def test_a_closed_peer() -> None:
    async with peers("done") as (peer,):
        await peer.listen()
        await peer.close()
        with pytest.raises(
            RuntimeError, match=r"cannot listen: peer 'done' is closed .* a new Peer"
        ):
            await peer.listen()
        with pytest.raises(
            RuntimeError, match=r"cannot connect to 'ws://127\.0\.0\.1:1': peer 'done'"
        ):
            await peer.connect("ws://127.0.0.1:1")
        with pytest.raises(roletalk.NoUnitsError, match="this peer is closed or closing"):
            await peer.destination("r").send("e")


def test_options_for_a_singleton_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roletalk.singletons._singleton", None)
    roletalk.singleton()
    with pytest.raises(RuntimeError, match=r"called with name, tags after the singleton was made"):
        roletalk.singleton(name="late", tags={})


def test_data_that_cannot_be_sent() -> None:
    @in_loop
    async def main() -> None:
        async with pair() as (server, client):
            server.role("r").on_request("e")(lambda ctx: 1)
            destination = await ready(client)
            for data, text in (
                ({1, 2}, "type set: send None, bool, int"),
                ({"at": object()}, "cannot send the dict, for what is in it: .*type object"),
                (asyncio.sleep, "type function: send"),
            ):
                with pytest.raises(TypeError, match=text):
                    await destination.request("e", data)
            never = asyncio.sleep(0)
            with pytest.raises(TypeError, match="coroutine: is an await missing"):
                await destination.request("e", never)
            never.close()

    main()


def test_the_whole_hint_is_in_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log = roletalk.Peer().remote_log
    hint = "what to do, " * 40
    error = roletalk.AuthError("x" * 10_000, hint=hint)
    log.log(logging.WARNING, "a remote peer", "turned away: %s", error)
    (line,) = caplog.messages
    assert line.endswith(f"x… ({hint})")
    assert len(line) < len(hint) + 230

"""A message comes in, its handler runs, and the reply is in the output buffer: no socket."""

from collections.abc import Awaitable, Callable

import roletalk
from bench.guard.paths import echo, echo_after_a_turn, echo_async
from roletalk._codec import build_message, build_request

from .conftest import Measure
from .rig import Rig, loops

PAYLOAD = bytes(32)
MESSAGE = build_message("greeter", "hello", PAYLOAD)
REQUEST = build_request("greeter", "hello", 7, PAYLOAD)


def handle(rig: Rig, link: object, message: bytes, counter: str, count: int) -> None:
    """Until the peer's `counter` says that all are done."""
    aim = rig.peer.counted()[counter] + count
    rig.run(
        lambda: loops.receive_messages(link, message, count),
        lambda: rig.peer.counted()[counter] == aim,
    )


def test_message(measure: Measure, rig: Rig) -> None:
    rig.peer.role("greeter").on_message("hello")(lambda ctx: None)
    (link,) = rig.unit(is_client=False).links
    measure(handle, rig, link, MESSAGE, "messages_received")


def test_request_sync(measure: Measure, rig: Rig) -> None:
    rig.peer.role("greeter").on_request("hello")(echo)
    (link,) = rig.unit(is_client=False).links
    measure(handle, rig, link, REQUEST, "replies_sent")


def test_request_async(measure: Measure, rig: Rig) -> None:
    rig.peer.role("greeter").on_request("hello")(echo_async)
    (link,) = rig.unit(is_client=False).links
    measure(handle, rig, link, REQUEST, "replies_sent")


def test_request_async_that_waits(measure: Measure, rig: Rig) -> None:
    rig.peer.role("greeter").on_request("hello")(echo_after_a_turn)
    (link,) = rig.unit(is_client=False).links
    measure(handle, rig, link, REQUEST, "replies_sent")


def test_request_through_a_middleware(measure: Measure, rig: Rig) -> None:
    @rig.peer.middleware
    async def passing(_: roletalk.Context, call_next: Callable[[], Awaitable[object]]) -> object:
        return await call_next()

    rig.peer.role("greeter").on_request("hello")(echo)
    (link,) = rig.unit(is_client=False).links
    measure(handle, rig, link, REQUEST, "replies_sent")


def test_request_of_an_unknown_role(measure: Measure, rig: Rig) -> None:
    (link,) = rig.unit(is_client=False).links
    measure(handle, rig, link, REQUEST, "rejects_sent")

"""Requests from the caller's side: written, answered, and the caller woken."""

from typing import Any

import pytest

import roletalk
from roletalk._calls import Home

from .conftest import Measure
from .rig import Rig, loops, running

PAYLOAD = bytes(32)


def test_settle(measure: Measure, rig: Rig) -> None:
    """The table and the waiter alone."""
    measure(loops.settle_calls, rig.unit().calls, Home(rig.loop))


def test_send_nowait(measure: Measure, rig: Rig) -> None:
    destination = rig.destination(1)

    def send(count: int) -> None:
        for _ in range(count):
            destination.send_nowait("hello", PAYLOAD)

    measure(lambda count: running(rig.loop, lambda: send(count)))


def test_request_without_a_task(measure: Measure, rig: Rig) -> None:
    """Written, answered, and its result taken."""
    destination, link = called(rig)
    table = link.unit.calls

    def request(count: int) -> None:
        first = table.next
        calls = [destination.request("hello", PAYLOAD, timeout=None) for _ in range(count)]
        loops.receive_answers(link, PAYLOAD, first, count)
        for call in calls:
            try:
                call.send(None)
            except StopIteration:
                continue
            raise AssertionError("a request was not answered")

    measure(lambda count: running(rig.loop, lambda: request(count)))


@pytest.mark.parametrize("tasks", [1, 64])
def test_request_by_tasks(measure: Measure, rig: Rig, tasks: int) -> None:
    """Each waits for its reply, is woken by it, and writes the next request."""
    destination, link = called(rig)
    table = link.unit.calls
    answered = table.next

    async def call(count: int) -> None:
        for _ in range(count):
            await destination.request("hello", PAYLOAD, timeout=None)

    def answer() -> None:
        nonlocal answered
        first, answered = answered, table.next
        loops.receive_answers(link, PAYLOAD, first, answered - first)

    def request(count: int) -> None:
        calls = [rig.loop.create_task(call(count // tasks)) for _ in range(tasks)]

        def is_done() -> bool:
            answer()
            return all(each.done() for each in calls)

        rig.run(answer, is_done)

    measure(request)


def called(rig: Rig) -> tuple[roletalk.Destination, Any]:
    """A destination of one unit, and that unit's connection."""
    destination = rig.destination(1)
    (unit,) = destination.current_units()
    (link,) = unit.links
    return destination, link

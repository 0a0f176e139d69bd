"""The choice of a unit, of one of its connections, and of a handler."""

import pytest

from roletalk._wire import MessageType

from .conftest import Measure
from .rig import Rig, loops


@pytest.mark.parametrize("units", [1, 10, 100])
@pytest.mark.parametrize("for_stream", [False, True], ids=["request", "stream"])
def test_pick_unit(measure: Measure, rig: Rig, for_stream: bool, units: int) -> None:
    measure(loops.pick_units, rig.destination(units), for_stream)


@pytest.mark.parametrize("links", [1, 2, 10])
def test_pick_connection(measure: Measure, rig: Rig, links: int) -> None:
    measure(loops.pick_links, rig.unit(links))


@pytest.mark.parametrize("handlers", [1, 100])
def test_find_handler(measure: Measure, rig: Rig, handlers: int) -> None:
    role = rig.peer.role("greeter")
    for number in range(handlers):
        role.on_request(f"hello{number}")(lambda ctx: None)
    measure(loops.find_handlers, rig.peer.table, int(MessageType.REQUEST), b"greeter", b"hello0")

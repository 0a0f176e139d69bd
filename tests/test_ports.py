"""Ports for who is started again."""

from __future__ import annotations

import pytest

from tests.rawclient import RawListener
from tools import ports


def test_it_is_another_one_each_time_and_not_one_that_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {ports.quiet_port() for _ in range(5)}
    assert len(free) == 5
    with RawListener(ports.quiet_port()) as taken:
        last = ports.quiet_port()
        monkeypatch.setattr(ports, "_ports", iter([taken.port, last]))
        assert ports.quiet_port() == last


def test_where_the_system_gives_out_all_of_them_it_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_ports", iter([65535]))
    with RawListener(ports.quiet_port()) as listener:
        assert listener.port

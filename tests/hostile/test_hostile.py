"""Plays hostile.json: inputs that killed, held or entered other peers.

A case has a name, ``when`` (pre-auth: after the upgrade; post-auth: after an honest handshake), steps
in ``frames_hex``, an expectation and the reason for it.  A step is

========================  =========================================================================
``65ff``                  one binary message; ``(61){9}`` in the hex repeats ``61`` nine times
``@raw:82ff``             bytes on the socket as they are
``@text:68``              one text frame
``@recv:1``               wait for a message of type 1 (decimal) and remember it
``@conn:2``               go on with connection 2, which is made when it is first named
``@echo:1@2``             send the last message of type 1 that was received on connection 2
``@chan:0041``            stream data on the channel of the last 107: a flag and bytes
========================  =========================================================================

Expectations: *close* (the victim ends the connection), *ok* and *reject* (the answer to the last
request), *ignore* (the connection goes on as if nothing had come), *alive* (no more than what must
always hold, see `harness.VictimProcess.watched`).
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import rawclient as raw

from .harness import (
    MAX_DIALS_AT_ONCE,
    VictimProcess,
    assert_closed,
    assert_rejected,
    assert_usable,
    count_dials,
    place_of,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("hostile.json").read_text())

STALL = 10.0  # seconds after which a victim that does not read is left alone

# An introducer on loopback may have loopback addresses dialled (docs/protocol.md, section 8).
MAY_BE_DIALLED = {"acquaint-ssrf-loopback-ssh", "acquaint-ssrf-long", "acquaint-flood-1000"}

_REPEAT = re.compile(r"\(([0-9a-f]*)\)\{(\d+)\}")


def expand(text: str) -> bytes:
    """The bytes of a step's hex."""
    return bytes.fromhex(_REPEAT.sub(lambda found: found[1] * int(found[2]), text))


class Player:
    """Carries out the steps of one case."""

    def __init__(self, victim: VictimProcess, when: str) -> None:
        self._victim = victim
        self._connect = {"pre-auth": victim.dial, "post-auth": victim.connect}[when]
        self._connections: dict[int, raw.Connection] = {}
        self._received: dict[tuple[int, int], bytes] = {}
        self._current = 1
        self.last_sent = b""

    @property
    def connection(self) -> raw.Connection:
        if self._current not in self._connections:
            self._connections[self._current] = self._connect()
        return self._connections[self._current]

    def step(self, text: str) -> None:
        """Carry out one step; `ValueError` for one that is not in the language."""
        if not text.startswith("@"):
            self._send(expand(text))
            return
        name, _, argument = text[1:].partition(":")
        if name == "raw":
            self.connection.send_raw(expand(argument), timeout=STALL)
        elif name == "text":
            self.connection.send_frame(raw.TEXT, expand(argument))
        elif name == "recv":
            found = self.connection.read_kind(int(argument))
            self._received[self._current, int(argument)] = found
        elif name == "conn":
            self._current = int(argument)
        elif name == "echo":
            kind, _, connection = argument.partition("@")
            self._send(self._received[int(connection), int(kind)])
        elif name == "chan":
            channel = raw.decode(self._received[self._current, raw.STREAM_RESOLVE]).channel
            data = expand(argument)
            self._send(raw.stream_data(channel, data[0], data[1:]))
        else:
            raise ValueError(f"unknown step {text[:40]!r}")

    def _send(self, data: bytes) -> None:
        self.last_sent = data
        self.connection.send(data, timeout=STALL)

    def play(self, steps: list[str]) -> None:
        """Carry out `steps`, until the victim ends the connection or stops reading."""
        with contextlib.suppress(raw.PeerGone):
            for text in steps:
                try:
                    self.step(text)
                except TimeoutError:
                    if text.startswith("@recv"):
                        raise
                    return

    @property
    def peer_ids(self) -> list[str]:
        """What it called itself on connections that it authenticated."""
        return [each.peer_id for each in self._connections.values() if each.peer_id]

    def close(self) -> None:
        for connection in self._connections.values():
            connection.drop()


def judge(player: Player, expectation: str) -> None:
    """Assert what the case expects."""
    connection = player.connection
    if expectation == "close":
        assert_closed(connection)
    elif expectation in ("ok", "reject"):
        answer = connection.read_answer(raw.decode(player.last_sent).correlation)
        if expectation == "ok":
            assert answer.kind == raw.RESOLVE
            raw.read_value(answer.payload)
        else:
            assert_rejected(answer)
        assert_usable(connection)
    elif expectation == "ignore":
        assert_usable(connection)
    elif expectation != "alive":
        raise ValueError(f"unknown expectation {expectation!r}")


def parameters(*, acquaint: bool) -> list[Any]:
    return [
        pytest.param(case, id=case["name"])
        for case in CASES
        if case["name"].startswith("acquaint-") == acquaint
    ]


@contextlib.contextmanager
def playing(victim: VictimProcess, case: dict[str, Any]) -> Iterator[Player]:
    player = Player(victim, case["when"])
    with contextlib.closing(player), victim.watched():
        player.play(case["frames_hex"])
        judge(player, case["expectation"])
        yield player


def record(request: pytest.FixtureRequest, victim: VictimProcess) -> None:
    """How long the bystander waited at most, for reports to show."""
    slowest = round(victim.bystander.slowest * 1000, 1)
    request.node.user_properties.append(("bystander_slowest_ms", slowest))


@pytest.mark.parametrize("case", parameters(acquaint=False))
def test_case(victim: VictimProcess, case: dict[str, Any], request: pytest.FixtureRequest) -> None:
    with playing(victim, case) as player:
        pass
    until(lambda: not any(victim.units(peer_id) for peer_id in player.peer_ids))
    record(request, victim)


def named_ports(case: dict[str, Any]) -> list[int]:
    """The ports on 127.0.0.1 that the case would have the victim dial."""
    found = []
    for step in case["frames_hex"]:
        text = expand(step)[1:].decode("latin-1")
        found += [int(port) for port in re.findall(r'"ws://127\.0\.0\.1:(\d+)/', text)]
    return [port for port in found if port]


@pytest.mark.parametrize("case", parameters(acquaint=True))
def test_acquaint(
    fresh_victim: VictimProcess, case: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Whom the victim dials for strangers.  The last thing asked of it is a dial that it does make, so
    that one which it was not to make had its time."""
    with contextlib.ExitStack() as stack:
        traps = []
        for port in named_ports(case)[:64]:
            with contextlib.suppress(OSError):  # taken, or not ours to take
                traps.append(stack.enter_context(raw.RawListener(port)))
        allowed = stack.enter_context(raw.RawListener())
        fresh_victim.may_be_dialled.add(place_of(allowed.url))
        if case["name"] in MAY_BE_DIALLED:
            fresh_victim.may_be_dialled.update(f"127.0.0.1:{port}" for port in named_ports(case))
        player = stack.enter_context(playing(fresh_victim, case))
        if case["name"] not in MAY_BE_DIALLED:
            with fresh_victim.connect() as introducer:
                introducer.send(raw.acquaint("somebody", allowed.url, ["loot"]))
                allowed.accept().drop()
            assert sum(trap.pending() for trap in traps) == 0
        elif case["name"] == "acquaint-flood-1000":
            assert count_dials(player.connection, traps) <= MAX_DIALS_AT_ONCE
        else:
            assert count_dials(player.connection, traps) <= 1
    record(request, fresh_victim)


def test_the_cases_are_whole() -> None:
    """Every case is unique, and says when and what in words that the player knows."""
    assert len({case["name"] for case in CASES}) == len(CASES) == 121
    for case in CASES:
        assert case["when"] in ("pre-auth", "post-auth")
        assert case["expectation"] in ("close", "ok", "reject", "ignore", "alive")


def test_an_unknown_step_is_an_error(victim: VictimProcess) -> None:
    with contextlib.closing(Player(victim, "pre-auth")) as player, pytest.raises(ValueError):
        player.step("@explode:1")

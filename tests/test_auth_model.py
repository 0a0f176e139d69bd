"""Two honest machines and an attacker between them, who has no key and does as hypothesis likes.

What must hold, whatever is dropped, doubled, swapped, cut, changed, replayed or reflected:

* a side only ever takes a proof for one that the other side made, for the challenges that both sent;
* no side makes a legacy proof: nobody here proved to be a legacy peer;
* two sides that are both done agree on whom they are connected to, and how;
* where the attacker only watches, both are done;
* no challenge stays outstanding, and nothing but a `HandshakeError` comes out.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from roletalk.auth import Challenges, Handshake, HandshakeError, State
from tests.handshakes import body, ring, side

CERTIFICATE = b"of the acceptor"
TO = st.integers(0, 1)  # 0: to the dialer
AT = st.integers(0, 250)  # beyond the proof in a message 2


class Between(RuleBasedStateMachine):
    """`wire[to]` is under way to that side; `seen` is all that the attacker ever saw."""

    sides: tuple[Handshake, Handshake]

    @initialize(
        ids=st.sampled_from([("k1",), ("k1", "k2")]),
        legacy=st.booleans(),
        tls=st.booleans(),
        shared=st.booleans(),
    )
    def begin(self, ids: tuple[str, ...], legacy: bool, tls: bool, shared: bool) -> None:
        challenges = Challenges()
        self.challenges = (challenges, challenges if shared else Challenges())
        self.sides = (
            side(
                ring(*ids, legacy=legacy),
                dialer=True,
                challenges=self.challenges[0],
                tls=CERTIFICATE if tls else None,
            ),
            side(
                ring(*reversed(ids), legacy=legacy),
                dialer=False,
                challenges=self.challenges[1],
                tls=CERTIFICATE if tls else None,
            ),
        )
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.taken: tuple[list[bytes], list[bytes]] = ([], [])
        self.wire: tuple[list[bytes], list[bytes]] = ([], [])
        self.seen: list[bytes] = []
        self.meddled = False
        for number, each in enumerate(self.sides):
            self._say(number, each.start())

    def _say(self, number: int, messages: list[bytes]) -> None:
        self.sent[number].extend(messages)
        self.wire[1 - number].extend(messages)
        self.seen.extend(messages)

    def _deliver(self, to: int, message: bytes) -> None:
        before = self.sides[to].state
        try:
            answers = self.sides[to].receive(message)
        except HandshakeError as error:
            assert self.sides[to].state is (State.DONE if before is State.DONE else State.FAILED)
            if error.send is not None:
                self._say(to, [error.send])
            return
        self.taken[to].append(message)
        self._say(to, answers)

    def _meddle(self, to: int, at: int) -> bytes | None:
        """One of the messages under way, taken off the wire."""
        if not self.wire[to]:
            return None
        self.meddled = True
        return self.wire[to].pop(at % len(self.wire[to]))

    # -- what the attacker may do

    @rule(to=TO)
    def pass_on(self, to: int) -> None:
        if self.wire[to]:
            self._deliver(to, self.wire[to].pop(0))

    @rule(to=TO, at=AT)
    def pass_on_out_of_turn(self, to: int, at: int) -> None:
        message = self._meddle(to, at)
        if message is not None:
            self._deliver(to, message)

    @rule(to=TO, at=AT)
    def drop(self, to: int, at: int) -> None:
        self._meddle(to, at)

    @rule(to=TO, at=AT)
    def replay(self, to: int, at: int) -> None:
        """Anything that was ever said, to whom it was said or to who said it."""
        self.meddled = True
        self._deliver(to, self.seen[at % len(self.seen)])

    @rule(to=TO, at=AT, flip=st.integers(1, 7) | st.integers(1, 255))
    def flip(self, to: int, at: int, flip: int) -> None:
        message = self._meddle(to, 0)
        if message is not None:
            at %= len(message)
            self._deliver(to, message[:at] + bytes([message[at] ^ flip]) + message[at + 1 :])

    @rule(to=TO, at=AT)
    def cut(self, to: int, at: int) -> None:
        message = self._meddle(to, 0)
        if message is not None:
            self._deliver(to, message[: at % len(message)])

    @rule(to=TO)
    def strip(self, to: int) -> None:
        """Make a legacy peer of an rt2 one."""
        message = self._meddle(to, 0)
        if message is not None and message[0]:
            fields: dict[str, Any] = json.loads(message[1:])
            fields.pop("rt2", None)
            self._deliver(to, message[:1] + json.dumps(fields).encode())

    @rule(to=TO)
    def respell(self, to: int) -> None:
        """The same to a parser, in other bytes."""
        message = self._meddle(to, 0)
        if message is not None:
            self._deliver(to, message + b" ")

    @precondition(lambda self: not self.meddled)
    @rule()
    def only_watch(self) -> None:
        """Everything arrives, as it was sent."""
        while self.wire[0] or self.wire[1]:
            for to in (0, 1):
                if self.wire[to]:
                    self._deliver(to, self.wire[to].pop(0))
        assert all(each.done for each in self.sides)

    # -- what holds

    @invariant()
    def what_is_taken_for_a_proof_is_the_other_sides(self) -> None:
        for number, each in enumerate(getattr(self, "sides", ())):
            if each.state not in (State.CONFIRMED, State.DONE):
                continue
            other = self.sent[1 - number]
            challenge, proof = self.taken[number][:2]
            assert challenge == other[0]
            assert self.sent[number][0] in self.taken[1 - number]
            assert body(proof, 2) in [body(message, 2) for message in other if message[0] == 2]

    @invariant()
    def nobody_makes_a_legacy_proof(self) -> None:
        for sent in getattr(self, "sent", ()):
            assert all(body(message, 2)["proof"] == "" for message in sent if message[0] == 2)

    @invariant()
    def who_is_done_knows_with_whom(self) -> None:
        for number, each in enumerate(getattr(self, "sides", ())):
            if each.done:
                assert each.result.rt2
                assert each.result.peer.id == ("acceptor", "dialer")[number]
                assert each.result.binding == (self.sides[0]._tls is not None)

    def teardown(self) -> None:
        for each in getattr(self, "sides", ()):
            each.close()
            assert each.state in (State.DONE, State.FAILED)
        for challenges in getattr(self, "challenges", ()):
            assert len(challenges) == 0


Between.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
TestBetween = Between.TestCase

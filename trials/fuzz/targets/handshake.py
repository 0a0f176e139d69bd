"""The handshake: one machine and whatever comes, or two and an attacker between (sections 4, 8, 9)."""

from __future__ import annotations

import json
from collections import deque
from typing import Any, Final

from roletalk.auth import MAX_MESSAGE_BYTES, Challenges, Handshake, HandshakeError, KeyRing, State
from trials.fuzz.source import Source

DICTIONARY: Final = (
    b'"challenge"', b'"ids"', b'"rt2"', b'"v"', b'"side"', b'"peer"', b'"cb"', b'"proof"', b'"id"',
    b'"roles"', b'"meta"', b'"protocol"', b'"2.0.0"', b'"tags"', b'"features"', b'"friendly"',
    b'"end-point"', b'"none"', b'"C"', b'"S"', b'"k1"', b'"k2"', b'"dialer"', b"\\ud800",
)  # fmt: skip
CERTIFICATE: Final = b"the acceptor's certificate"
# What an attacker may put in place of anything.
WORDS: Final[tuple[object, ...]] = (
    "k1", "k2", "C", "S", "", None, 2, 1, 0, -1, True, [], {}, "none", "end-point", "dialer",
    "acceptor", "2.0.0", "3.0", "c" * 32, "c" * 15, "0" * 64, ["k1"], ["k2", "k1"], 1e300, 2**70, "\0",
)  # fmt: skip


class _Side:
    """One honest side, and what it said."""

    def __init__(self, source: Source, challenges: Challenges, *, dialer: bool) -> None:
        self.name = "dialer" if dialer else "acceptor"
        self.keys = KeyRing()
        for key_id in source.pick(((), ("k1",), ("k1", "k2"), ("k2", "k1"))):
            self.keys.add(key_id, f"secret of {key_id}", legacy=source.flag())
        required = source.flag()
        self.machine = Handshake(
            keys=self.keys,
            dialer=dialer,
            peer_id=self.name,
            make_peer_data=self._peer_data,
            challenges=challenges,
            tls=CERTIFICATE if source.flag() else None,
            require_rt2=lambda _: required,
            features=("streams",),
        )
        self.said: list[bytes] = []
        self.taken: list[bytes] = []
        self.failed = False

    def _peer_data(self) -> dict[str, Any]:
        meta = {"os": "", "runtime": "", "time": 1, "uptime": 1, "protocol": "2.0.0"}
        return {"name": "", "roles": ["r"], "friendly": True, "meta": meta, "tags": {}}

    def start(self) -> list[bytes]:
        return self._say(self.machine.start())

    def receive(self, message: bytes) -> list[bytes]:
        before = self.machine.state
        try:
            answers = self.machine.receive(message)
        except HandshakeError as error:
            self.failed = True
            assert error.text
            assert 1000 <= error.close_code < 5000
            assert self.machine.state is (State.DONE if before is State.DONE else State.FAILED)
            if error.send is None:
                return []
            assert error.send[0] == 0
            assert isinstance(json.loads(error.send[1:]), str)
            return [error.send]
        assert before not in (State.DONE, State.FAILED)
        self.taken.append(message)
        return self._say(answers)

    def _say(self, messages: list[bytes]) -> list[bytes]:
        assert all(len(message) <= MAX_MESSAGE_BYTES for message in messages)
        self.said += messages
        return messages

    def end(self, challenges: Challenges) -> None:
        self.machine.close()
        # Nobody here has proved to be a legacy peer.
        proofs = [json.loads(message[1:]) for message in self.said if message[0] == 2]
        assert all(proof["proof"] == "" for proof in proofs)
        assert self.machine.state in (State.DONE, State.FAILED)
        if self.machine.done:
            assert self.machine.result.peer.id != self.name
            assert (self.machine.result.key_id is None) == (not self.keys)


def test_one(data: bytes) -> None:
    source = Source(data)
    challenges = Challenges()
    if source.flag():
        _alone(source, challenges)
    else:
        _between(source, challenges)
    assert len(challenges) == 0


def _alone(source: Source, challenges: Challenges) -> None:
    """An attacker who has no key, and what it saw of this side."""
    side = _Side(source, challenges, dialer=source.flag())
    side.start()
    while not source.is_empty:
        side.receive(_message(source, side.said, []))
    if side.keys:
        assert not side.machine.done
    side.end(challenges)


def _between(source: Source, challenges: Challenges) -> None:
    """An attacker who sees all, and drops, doubles, changes, reorders and makes up messages."""
    dialer = _Side(source, challenges, dialer=True)
    acceptor = _Side(source, Challenges() if source.flag() else challenges, dialer=False)
    sides = (dialer, acceptor)
    under_way = (deque(dialer.start()), deque(acceptor.start()))
    while not source.is_empty:
        act = source.byte()
        to = act & 1
        queue = under_way[1 - to]
        match = act >> 1 & 7
        if match == 0:
            message = _message(source, sides[to].said, sides[1 - to].said)
        elif not queue:
            continue
        elif match == 1:
            queue.rotate(1)
            continue
        elif match == 2:
            queue.popleft()
            continue
        elif match == 3:
            queue.append(queue[0])
            continue
        elif match == 4:
            message = _changed(source, queue.popleft())
        else:
            message = queue.popleft()
        under_way[to].extend(sides[to].receive(message))
    for to in (0, 1, 0, 1, 0, 1, 0, 1):
        queue = under_way[1 - to]
        while queue:
            under_way[to].extend(sides[to].receive(queue.popleft()))
    _check(dialer, acceptor)
    for side in sides:
        side.end(challenges)


def _check(one: _Side, other: _Side) -> None:
    """Who has keys and is done heard the other side; where both are, they agree on the manner."""
    for side, opposite in ((one, other), (other, one)):
        if side.machine.done and side.keys:
            assert side.taken[0] == opposite.said[0]
            assert json.loads(side.taken[1][1:]) in [
                json.loads(message[1:]) for message in opposite.said if message[0] == 2
            ]
    if not (one.machine.done and other.machine.done and one.keys and other.keys):
        return
    mine, theirs = one.machine.result, other.machine.result
    assert mine.rt2 == theirs.rt2
    if mine.rt2:
        assert (mine.peer.id, theirs.peer.id) == (other.name, one.name)
        assert mine.binding == theirs.binding
    for side, key_id in ((one, mine.key_id), (other, theirs.key_id)):
        assert key_id is not None
        key = side.keys.get(key_id)
        assert key is not None
        assert mine.rt2 or key.legacy


# -- what an attacker says -------------------------------------------------------------------------


def _message(source: Source, seen: list[bytes], others: list[bytes]) -> bytes:
    how = source.byte() % 4
    said = [*seen, *others]
    if how == 0:
        return source.some()
    if how == 1 and said:
        return source.pick(said)
    if how == 2 and said:
        return _changed(source, source.pick(said))
    kind = source.byte() % 5
    return bytes([kind]) + json.dumps(_made_up(source, said)).encode()


def _made_up(source: Source, said: list[bytes]) -> object:
    """An object with the fields of some handshake message, each from anywhere."""
    values = [*WORDS, *_fields(said)]
    made: dict[str, object] = {}
    for name in source.pick((("challenge", "ids"), ("id", "proof"), ("id", "roles", "meta"), ())):
        made[name] = source.pick(values)
    if "meta" in made and source.flag():
        made["meta"] = {"protocol": source.pick(("2.0.0", "2", "2.", "02", "1.9", "٢"))}
    if source.flag():
        names = source.pick(
            (("v", "side", "peer", "ids", "cb"), ("proof", "cb"), ("v", "features"))
        )
        made["rt2"] = {name: source.pick(values) for name in names}
    return made


def _fields(said: list[bytes]) -> list[object]:
    """The values in what was said."""
    found: list[object] = []
    for message in said:
        if message[0]:
            content = json.loads(message[1:])
            found += content.values()
            if "rt2" in content:
                found += content["rt2"].values()
    return found


def _changed(source: Source, message: bytes) -> bytes:
    at = source.number(2) % (len(message) + 1)
    return message[:at] + source.some(8) + message[at + source.byte() % 8 :]

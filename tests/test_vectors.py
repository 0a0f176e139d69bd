"""What the Go and the Node.js peer sent, read by ours, and written by ours in their place.

The handshake's own recordings are replayed with the handshake, a live peer answers the others in
`test_vectors_live`, and streams are in `test_stream_vectors`.
"""

import json
import re
from hashlib import sha256
from pathlib import Path

from roletalk._codec import (
    build_answer,
    build_message,
    build_request,
    decode_value,
    encode_value,
    parse_envelope,
)
from roletalk._wire import MessageType
from roletalk.keys import Key
from tests import rawclient as raw
from tests.recordings import MEANT, each_pair, echoed, load, respelled, same, spelled_by

PROTOCOL = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"


@each_pair
def test_messages_of_all_types(pair: str) -> None:
    recording = load("messages_all_types", pair)
    sent = recording.messages("dialer")[1:]
    assert len(sent) == len(MEANT[recording.dialer])
    for message, value in zip(sent, MEANT[recording.dialer], strict=True):
        found = parse_envelope(message)
        assert found.kind is MessageType.MESSAGE
        assert (found.role, found.event) == (b"bench", b"log")
        assert found.correlation is None
        assert same(decode_value(found.body), value)
        assert message == respelled(build_message("bench", "log", value), value, recording.dialer)


@each_pair
def test_requests_of_all_types(pair: str) -> None:
    recording = load("requests_all_types", pair)
    sent = recording.messages("dialer")[1:]
    first = 1 if recording.dialer == "go" else 0
    for correlation, (message, value) in enumerate(
        zip(sent, MEANT[recording.dialer], strict=True), first
    ):
        found = parse_envelope(message)
        assert found.kind is MessageType.REQUEST
        assert (found.role, found.event) == (b"bench", b"echo")
        assert found.correlation == correlation
        assert same(decode_value(found.body), value)
        ours = build_request("bench", "echo", correlation, value)
        assert message == respelled(ours, value, recording.dialer)


@each_pair
def test_answers_of_all_types(pair: str) -> None:
    recording = load("requests_all_types", pair)
    asked = [found.correlation for found in recording.envelopes("dialer")]
    answers = recording.messages("listener")[1:]
    for message, value, correlation in zip(answers, echoed(pair), asked, strict=True):
        found = parse_envelope(message)
        assert found.kind is MessageType.RESOLVE
        assert correlation is not None
        assert found.correlation == correlation
        assert same(decode_value(found.body), value)
        ours = build_answer(MessageType.RESOLVE, correlation, value)
        assert message == respelled(ours, value, recording.listener)


@each_pair
def test_what_go_spells_otherwise_reads_the_same(pair: str) -> None:
    for value in echoed(pair):
        for peer in pair.split("-"):
            assert same(decode_value(spelled_by(peer, value)), value)
            assert same(decode_value(encode_value(value)), value)


@each_pair
def test_a_big_request_comes_in_fragments_from_go(pair: str) -> None:
    recording = load("big_request_20000", pair)
    frames = [f for f in recording.frames if f["dir"].startswith("dialer")][1:]
    (asked,) = recording.messages("dialer")[1:]
    (answered,) = recording.messages("listener")[1:]
    value = decode_value(parse_envelope(asked).body)
    assert isinstance(value, bytes)
    assert len(value) == 20000
    assert len(frames) == (5 if recording.dialer == "go" else 1)
    assert [frame["fin"] for frame in frames] == [False] * (len(frames) - 1) + [True]
    correlation = parse_envelope(asked).correlation
    assert correlation is not None
    assert asked == build_request("bench", "echo", correlation, value)
    assert answered == build_answer(MessageType.RESOLVE, correlation, value)


REJECT_TEXTS = {
    "fail": "boom",
    "unknown": 'The event "unknown" is not handled',
    "x": 'The role "nobody" is not registered',
}


@each_pair
def test_rejects(pair: str) -> None:
    recording = load("rejects", pair)
    events = {found.correlation: found.event.decode() for found in recording.envelopes("dialer")}
    assert list(events.values()) == ["fail", "noreply", "unknown", "x", "slow"]
    answered = {}
    for message in recording.messages("listener")[1:]:
        found = parse_envelope(message)
        assert found.correlation is not None
        event = events[found.correlation]
        value = decode_value(found.body)
        answered[event] = value
        assert found.kind is (MessageType.RESOLVE if event == "slow" else MessageType.REJECT)
        assert message == build_answer(found.kind, found.correlation, value)
    if recording.listener == "go":  # its rejects have lost their texts
        expected: dict[str, object] = {key: {} for key in ("fail", "noreply", "unknown", "x")}
    else:  # it never answers a request whose handler does not
        expected = dict(REJECT_TEXTS)
    assert answered == {**expected, "slow": "late"}


@each_pair
def test_roles_updates(pair: str) -> None:
    recording = load("roles_updates", pair)
    listener, dialer = (
        [json.loads(f.body) for f in recording.envelopes(side) if f.kind is MessageType.ROLES]
        for side in ("listener", "dialer")
    )
    counts_from = 1 if recording.listener == "go" else 2
    assert listener == [
        {"i": counts_from, "roles": ["bench", "extra"]},
        {"i": counts_from + 1, "roles": ["bench"]},
    ]
    assert dialer == [
        {"i": 1, "roles": ["mine1"]},
        {"i": 2, "roles": ["mine1", "mine2"]},
        {"i": 3, "roles": ["mine2"]},
    ]


def test_go_sends_roles_updates_out_of_order() -> None:
    updates = load("roles_flip_400", "go-js").envelopes("dialer")
    assert {update.kind for update in updates} == {MessageType.ROLES}
    counters = [json.loads(update.body)["i"] for update in updates]
    assert sorted(counters) == list(range(1, 402))
    assert counters != sorted(counters)
    assert counters[-1] != 401


@each_pair
def test_acquaint(pair: str) -> None:
    recording = load("acquaint", pair)
    address = f"ws://{recording.content['A_addr']}"
    for side in ("dialer", "listener"):  # B introduces A to C; C, connected to A, A to B
        (found,) = recording.envelopes(side)
        assert found.kind is MessageType.ACQUAINT
        introduced = json.loads(found.body)
        assert introduced.keys() == {"id", "address", "roles"}
        assert introduced["address"] == address
        assert sorted(introduced["roles"]) == ["bench", "ra", "rb"]


@each_pair
def test_a_close_on_purpose_says_so(pair: str) -> None:
    recording = load("manual_close_by_dialer", pair)
    closes = [frame["payload"] for frame in recording.frames if frame["opcode"] == raw.CLOSE]
    assert [int.from_bytes(payload[:2], "big") for payload in closes] == [4000, 4000]


# -- the examples in docs/protocol.md ----------------------------------------------------------------


def documented() -> list[bytes]:
    """The bytes of every ``hexdump`` block: on each line, hex pairs up to two spaces."""
    blocks = re.findall(
        r"^```hexdump\n(.*?)^```", PROTOCOL.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [
        b"".join(bytes.fromhex(line.split("  ")[0]) for line in block.splitlines())
        for block in blocks
    ]


def test_the_documented_examples_are_whole_messages() -> None:
    examples = documented()
    for message in examples:
        if message[0] <= MessageType.CONFIRMED:
            json.loads(message[1:])
        elif message[:2] != (4000).to_bytes(2, "big"):  # the payload of a close frame
            parse_envelope(message)
    missing = {*MessageType} - {message[0] for message in examples}
    assert not missing


def test_the_documented_proof() -> None:
    by_type = {message[0]: message for message in documented() if message[0] <= 2}
    challenge = json.loads(by_type[MessageType.CHALLENGE][1:])["challenge"]
    answer = json.loads(by_type[MessageType.PROOF][1:])
    assert answer == {"id": "cluster", "proof": raw.prove("preshared secret", challenge)}


def test_the_documented_rt2_proofs() -> None:
    (block,) = re.findall(
        r"^```text\nkey id .*?^```", PROTOCOL.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    values = dict(re.findall(r"^(key id|key|hC|hS|CB|P_C|P_S) +(\S.*)$", block, re.MULTILINE))
    first_c, first_s, second_c = re.findall(r"^  (\{.*\})$", block, re.MULTILINE)
    hashes = [sha256(b"\x01" + first.encode()).digest() for first in (first_c, first_s)]
    assert [h.hex() for h in hashes] == [values["hC"], values["hS"]]
    key = Key(values["key"].encode(), legacy=False)
    for side in "CS":
        proof = key.rt2_proof(side, b"".join(hashes), values["key id"], bytes.fromhex(values["CB"]))
        assert proof.decode() == values[f"P_{side}"]
    assert json.loads(second_c)["rt2"] == {"proof": values["P_C"], "cb": "none"}

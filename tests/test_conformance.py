"""A fast part of what the Autobahn test suite asks, and how the trial judges its reports.

Written against RFC 6455.  The connection takes text, which most cases of the suite send.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from roletalk._inbound import FrameLimits
from tests import rawclient as raw
from tests.faketransport import Recorder, Remote, turns
from tests.helpers import run
from tests.rawclient import BINARY, CONTINUATION, PING, PONG, TEXT
from tests.test_frame import both_sides, close_code_of, in_loop
from trials.conformance import verdicts
from trials.conformance.echo import LIMITS, Echo, Listening, converse, echo_server
from trials.conformance.suite import REQUIREMENTS
from trials.conformance.verdicts import NON_STRICT, Case, Verdict, load_cases

EURO = "€uro".encode()


class Kinds(Recorder):
    """Keeps of each message whether it was text, too."""

    def __init__(self, *, client: bool) -> None:
        super().__init__(LIMITS, is_client=client, takes_text=True)
        self.kinds: list[bool] = []

    def on_message(self, message: bytes) -> None:
        super().on_message(message)
        self.kinds.append(self.is_text)


# -- text, where it is taken --------------------------------------------------------------------------


@both_sides
@in_loop
async def test_text_and_binary_messages_are_told_apart(client: bool) -> None:
    connection = Kinds(client=client)
    remote = Remote(connection)
    long = b"x" * 70_000
    remote.feed(
        remote.frame(TEXT, b"a"),
        remote.frame(BINARY, b"b"),
        remote.frame(TEXT, b"c", fin=False),
        remote.frame(PING, b"?"),
        remote.frame(CONTINUATION, b"d", fin=False),
        remote.frame(CONTINUATION, b"e"),
        remote.frame(BINARY, b"f", fin=False),
        remote.frame(CONTINUATION, b"g"),
        remote.frame(TEXT, long),
        remote.frame(BINARY),
        remote.frame(TEXT),
    )
    assert connection.messages == [b"a", b"b", b"cde", b"fg", long, b"", b""]
    assert connection.kinds == [True, False, True, False, True, False, True]
    assert connection.bytes_received == 70_007
    assert [(frame.opcode, frame.payload) for frame in remote.sent()] == [(PONG, b"?")]
    connection.abort()
    await turns()


@both_sides
@pytest.mark.parametrize("begun", [BINARY, TEXT])
@pytest.mark.parametrize("inside", [BINARY, TEXT])
@pytest.mark.parametrize("fin", [False, True])
@in_loop
async def test_a_message_inside_a_message(client: bool, begun: int, inside: int, fin: bool) -> None:
    connection = Kinds(client=client)
    remote = Remote(connection)
    remote.feed(remote.frame(begun, b"a", fin=False), remote.frame(inside, b"b", fin=fin))
    await turns()
    assert close_code_of(remote) == 1002
    assert connection.messages == []
    connection.abort()
    await turns()


@both_sides
@in_loop
async def test_text_is_sent_as_text(client: bool) -> None:
    connection = Echo(is_client=client)
    remote = Remote(connection)
    remote.feed(remote.frame(TEXT, EURO), remote.frame(BINARY, b"\xff"), remote.frame(TEXT))
    sent = [(frame.opcode, frame.fin, frame.payload) for frame in remote.sent()]
    assert sent == [(TEXT, True, EURO), (BINARY, True, b"\xff"), (TEXT, True, b"")]
    connection.abort()
    await turns()


@pytest.mark.parametrize(
    "fragments", [(b"\xff",), (b"\xce\xba", b"\xed\xa0\x80", b"e"), (b"\xce",)]
)
@in_loop
async def test_text_that_is_not_utf_8(fragments: tuple[bytes, ...]) -> None:
    connection = Echo(is_client=False)
    remote = Remote(connection)
    for number, part in enumerate(fragments):
        opcode = CONTINUATION if number else TEXT
        remote.feed(remote.frame(opcode, part, fin=number == len(fragments) - 1))
    await turns()
    assert close_code_of(remote) == 1007
    connection.abort()
    await turns()


@in_loop
async def test_a_character_may_be_cut_by_fragments() -> None:
    connection = Echo(is_client=False)
    remote = Remote(connection)
    for number in range(len(EURO)):
        opcode = CONTINUATION if number else TEXT
        part = EURO[number : number + 1]
        remote.feed(remote.frame(opcode, part, fin=number == len(EURO) - 1))
    assert [frame.payload for frame in remote.sent()] == [EURO]
    connection.abort()
    await turns()


# -- who ends the TCP connection (RFC 6455, 7.1.1) -----------------------------------------------------


def test_the_remote_gets_the_close_frame_and_the_end_while_its_bytes_are_unread() -> None:
    async def main() -> None:
        async with echo_server(FrameLimits(close_timeout=3600)) as port:

            def violate() -> int | None:
                with raw.dial(port) as connection:
                    connection.send_frame(BINARY, rsv=4)
                    for _ in range(16):
                        connection.send(b"x" * 10_000)
                    return connection.wait_closed(answer_close=False)

            assert await asyncio.to_thread(violate) == 1002

    run(main())


# -- both echo applications, talking to each other ----------------------------------------------------


class Talker(Listening):
    """Sends what it is given and closes when as much came back."""

    def __init__(self, messages: list[tuple[bytes, bool]]) -> None:
        super().__init__()
        self.to_say = messages

    def on_open(self) -> None:
        for message, text in self.to_say:
            self.send_message(message, text)

    def on_message(self, message: bytes) -> None:
        super().on_message(message)
        if len(self.told) == len(self.to_say):
            self.close(1000, "enough")


def test_what_the_echo_server_is_sent_comes_back() -> None:
    async def main() -> None:
        sizes = (0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20, LIMITS.max_message_size)
        messages = [(b"x" * size, bool(size % 2)) for size in sizes]
        async with echo_server() as port:
            talker = Talker(messages)
            await converse(talker, port, "/")
            assert [len(message) for message in talker.told] == list(sizes)
            assert (talker.close_code, talker.close_reason) == (1000, "enough")

    run(main())


# -- what is made of the suite's reports ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("behavior", "closing", "verdict"),
    [
        ("OK", "OK", Verdict.OK),
        ("NON-STRICT", "OK", Verdict.NON_STRICT),
        ("OK", "FAILED BY CLIENT", Verdict.NON_STRICT),
        ("OK", "WRONG CODE", Verdict.NON_STRICT),
        ("INFORMATIONAL", "INFORMATIONAL", Verdict.INFORMATIONAL),
        ("FAILED", "OK", Verdict.FAILED),
        ("OK", "FAILED", Verdict.FAILED),
        ("OK", "UNCLEAN", Verdict.FAILED),
        ("INFORMATIONAL", "FAILED", Verdict.FAILED),
        ("UNIMPLEMENTED", "OK", Verdict.FAILED),
    ],
)
def test_the_worse_half_of_a_case_counts(behavior: str, closing: str, verdict: Verdict) -> None:
    assert Case("1.1.1", behavior, closing, "").verdict is verdict


def index(folder: Path, **behaviors: str) -> tuple[Case, ...]:
    """What is loaded of an index of these cases, by their names with underscores."""
    found = {
        name.strip("_").replace("_", "."): {
            "behavior": behavior,
            "behaviorClose": "OK",
            "reportfile": f"{name}.json",
        }
        for name, behavior in behaviors.items()
    }
    (folder / "index.json").write_text(json.dumps({"roletalk": found}), "utf-8")
    return load_cases(folder, "roletalk")


def test_a_non_strict_case_needs_its_reason(tmp_path: Path) -> None:
    known = next(iter(NON_STRICT))
    cases = index(tmp_path, **{f"_{known.replace('.', '_')}": "NON-STRICT", "_10_1_1": "OK"})
    assert [case.name for case in cases] == [known, "10.1.1"]
    assert all(figure.met for figure in verdicts.figures("server", cases, complete=False))
    remark = f"as a server passed, but not strictly: 6.4.1 ({NON_STRICT[known]})"
    assert verdicts.remarks("server", cases) == [remark]
    cases = index(tmp_path, _1_1_1="NON-STRICT")
    unmet = [row.what for row in verdicts.figures("server", cases, complete=False) if not row.met]
    assert unmet == ["as a server: NON-STRICT for no known reason"]
    assert ["_1_1_1.html" in line for line in verdicts.remarks("server", cases)] == [True]


def test_a_failed_or_missing_case_fails_the_trial(tmp_path: Path) -> None:
    cases = index(tmp_path, _1_1_1="FAILED", _1_1_2="OK")
    unmet = [row.what for row in verdicts.figures("client", cases, complete=True) if not row.met]
    assert unmet == ["as a client: cases run", "as a client: FAILED"]


def test_all_of_the_suites_requirements_are_pinned() -> None:
    lines = REQUIREMENTS.read_text("utf-8").splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line) for line in lines)
    assert "autobahntestsuite==25.10.1" in lines

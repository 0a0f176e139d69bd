"""The other ways to talk: an event to one worker, a broadcast to all, a survey of all."""

from dataclasses import dataclass

import roletalk

from .report import Report

EVENTS = 1000


@dataclass(frozen=True)
class Status:
    """A worker's answer to ``status/report``."""

    pid: int
    served: dict[str, int]


async def show_event(report: Report, peer: roletalk.Peer) -> None:
    """One-way messages to one worker, and a request that asks how many it saw."""
    status = peer.destination("status")
    unit = status.units[0]
    for number in range(EVENTS):
        await status.send("note", {"number": number}, unit=unit)
    # Order is kept on one connection: when this request is answered, all the messages were seen.
    answer = (await status.request("report", unit=unit)).decode(Status)

    report.section("event")
    seen = answer.served.get("note", 0)
    report.check(seen == EVENTS, f"{unit.name} saw {seen:,} of {EVENTS:,} one-way messages")


async def show_broadcast(report: Report, peer: roletalk.Peer) -> None:
    """One message to every worker, and a survey that asks all of them."""
    status = peer.destination("status")
    units = status.broadcast("announce", "to all of you")
    answers = await survey(peer)

    report.section("broadcast")
    seen = sum(answer.served.get("announce", 0) for answer in answers.values())
    report.check(
        seen == len(units) == len(answers), f"seen by {seen} of {len(units)} workers, once by each"
    )


async def show_survey(report: Report, peer: roletalk.Peer) -> None:
    """Who served how much: round robin spreads requests evenly."""
    answers = await survey(peer)

    report.section("survey")
    for unit, answer in sorted(answers.items(), key=lambda item: item[0].name):
        report.line(
            f"{unit.name}  pid {answer.pid:<8} tokenise {answer.served['tokenise']:>6,}"
            f"  count {answer.served['count']:>6,}"
        )
    for role in ("tokenise", "count"):
        shares = [answer.served[role] for answer in answers.values()]
        even = max(shares) - min(shares) <= 1
        report.check(even, f"{role}: even to {max(shares) - min(shares)}")


async def survey(peer: roletalk.Peer) -> dict[roletalk.Unit, Status]:
    """The status of every worker.  Raises the first error that one of them answers with."""
    answers: dict[roletalk.Unit, Status] = {}
    async for answer in peer.destination("status").survey("report", timeout=5):
        if isinstance(answer, roletalk.RoletalkError):
            raise answer
        answers[answer.unit] = answer.decode(Status)
    return answers

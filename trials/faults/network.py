"""Links between two hosts go down without a word: what is found, how soon, and what goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from trials.faults.namespaces import TwoHosts, why_not
from trials.faults.processes import Process
from trials.faults.scenario import Settings
from trials.figures import Figure, at_most, told

NAME = "network namespaces"

PORT: Final = 9000
INTERVAL, TIMEOUT = 1.0, 0.5  # s, of the heartbeat
FOUND_WITHIN: Final = INTERVAL + TIMEOUT + 1.0  # s
# A dial that is under way meanwhile has its SYN sent again 1 s, 2 s or 4 s after the one before.
BACK_WITHIN: Final = 5.0  # s
DOWN_FOR: Final = FOUND_WITHIN + 2.0  # s
CALLERS: Final = 8
EVERY: Final = 0.02  # s between requests over two links
OPTIONS: Final = {"heartbeat_interval": INTERVAL, "heartbeat_timeout": TIMEOUT}


def run(settings: Settings) -> list[Figure]:
    reason = why_not()
    if reason:
        return [told("links that go down", f"left out: {reason}")]
    figures = [*one_link("taken down", _down, _up)]
    if not settings.quick:
        figures += one_link("that loses all packets", TwoHosts.lose_all, TwoHosts.lose_none)
    figures += two_links()
    if not settings.quick:
        figures += lossy()
    return figures


def _down(hosts: TwoHosts, link: int) -> None:
    hosts.set_link(link, up=False)


def _up(hosts: TwoHosts, link: int) -> None:
    hosts.set_link(link, up=True)


def pair(
    hosts: TwoHosts, links: int, *, options: dict[str, float] = OPTIONS, **more: Any
) -> tuple[Process, Process]:
    server = Process({"listen": [["0.0.0.0", PORT]], "options": options}, within=hosts.within(0))
    server.wait_for(lambda event: "listening" in event)
    urls = [f"ws://10.99.{link}.1:{PORT}" for link in range(links)]
    client = Process(
        {"connect": urls, "callers": CALLERS, "pause": 0.02, "options": options, **more},
        within=hosts.within(1),
    )
    client.wait_for(lambda event: event.get("well"))
    client.wait_for(lambda event: event.get("connections") == links)
    server.wait_for(lambda event: event.get("connections") == links)
    return server, client


def one_link(
    what: str, cut: Callable[[TwoHosts, int], None], mend: Callable[[TwoHosts, int], None]
) -> list[Figure]:
    """The only link between two peers is cut for longer than the heartbeat bears, and mended."""
    with TwoHosts() as hosts:
        server, client = pair(hosts, 1)
        with server, client:
            time.sleep(1)
            cut_at = time.monotonic()
            cut(hosts, 0)
            found = [
                side.wait_for(lambda event: event.get("connections") == 0, after=cut_at)["at"]
                - cut_at
                for side in (server, client)
            ]
            failures = client.said(
                lambda event: event.get("error") == "UnitClosedError", after=cut_at
            )
            time.sleep(max(DOWN_FOR - (time.monotonic() - cut_at), 0))
            mend(hosts, 0)
            mended_at = time.monotonic()
            back = client.wait_for(lambda event: event.get("well"), after=cut_at)
            last = client.end()
    others = set(last["failed"]) - {"UnitClosedError", "NoUnitsError"}
    return [
        at_most(f"a link {what}: found dead by the listening side", found[0], FOUND_WITHIN, "s"),
        at_most("  by the dialling side", found[1], FOUND_WITHIN, "s"),
        told("  requests that were pending, and failed then", len(failures)),
        at_most("  errors that are not the documented ones", len(others), 0),
        at_most(
            "  answered again, after the link was mended", back["at"] - mended_at, BACK_WITHIN, "s"
        ),
    ]


def two_links() -> list[Figure]:
    """One of two links goes down: requests go on over the other, and over both when it is back."""
    waits = FOUND_WITHIN + 2.0
    with TwoHosts(2) as hosts:
        server, client = pair(hosts, 2, callers=0, every=EVERY, timeout=waits)
        with server, client:
            time.sleep(1)
            cut_at = time.monotonic()
            hosts.set_link(0, up=False)
            found = client.wait_for(lambda event: event.get("connections") == 1, after=cut_at)
            time.sleep(max(DOWN_FOR - (time.monotonic() - cut_at), 0))
            hosts.set_link(0, up=True)
            mended_at = time.monotonic()
            back = client.wait_for(lambda event: event.get("connections") == 2, after=mended_at)
            time.sleep(waits)
            last = client.end()
    # Those that were written to the dead link before it was found wait for an answer until their timeout.
    failed = client.said(lambda event: event.get("error"))
    late = [event for event in failed if event["began"] >= found["at"]]
    between = (found["at"] - cut_at) / EVERY
    return [
        at_most("one of two links down: found dead", found["at"] - cut_at, FOUND_WITHIN, "s"),
        at_most(
            "  share of the requests until then that went unanswered", len(failed) / between, 0.6
        ),
        at_most("  requests that failed from then on", len(late), 0),
        told("  requests answered", last["answered"]),
        at_most("  longest time without an answer", last["longest_gap"], 1.0, "s"),
        at_most("  both links in use again", back["at"] - mended_at, BACK_WITHIN, "s"),
    ]


def lossy() -> list[Figure]:
    """A link that loses a twentieth of the packets and is slow costs no connection."""
    with TwoHosts() as hosts:
        if not hosts.has_netem():
            return [
                told("a link that loses 5 % of the packets", "left out: the kernel has no netem")
            ]
        server, client = pair(hosts, 1)
        with server, client:
            hosts.trouble(0, "delay", "20ms", "10ms", "loss", "5%")
            troubled_at = time.monotonic()
            time.sleep(10 * INTERVAL)
            hosts.calm(0)
            lost = client.said(lambda event: event.get("connections") == 0, after=troubled_at)
            last = client.end()
    return [
        at_most("a link that loses 5 % of the packets: connections lost", len(lost), 0),
        at_most("  requests that failed", sum(last["failed"].values()), 0),
        told("  the slowest answer", last["slowest"], "s"),
    ]

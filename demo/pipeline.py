"""Two roles in a row: text to words, words to counts.

The gateway names roles, never workers: each request goes to the next unit that serves the role.
"""

import asyncio
import time
from collections import Counter

import roletalk

from .corpus import differences, pieces, plain_counts
from .report import Report, rate

CONCURRENT = 32


async def show_pipeline(report: Report, peer: roletalk.Peer, texts: list[str]) -> None:
    """Count the words of `texts` with the workers, and compare with a plain loop."""
    tokenise = peer.destination("tokenise")
    count = peer.destination("count")
    merged: Counter[str] = Counter()
    slots = asyncio.Semaphore(CONCURRENT)

    async def process(piece: str) -> None:
        async with slots:
            words = await tokenise.request("text", piece)
            counts = await count.request("words", words.data)
            merged.update(counts.decode(dict[str, int]))

    work = [piece for text in texts for piece in pieces(text)]
    began = time.perf_counter()
    await asyncio.gather(*(process(piece) for piece in work))
    seconds = time.perf_counter() - began

    report.section("pipeline")
    report.line(f"{len(texts)} files in {len(work)} pieces through tokenise and count")
    report.line(
        f"{2 * len(work):,} requests, {merged.total():,} words in {seconds:.2f} s: "
        f"{rate(2 * len(work), seconds, 'req')}, {rate(merged.total(), seconds, 'words')}"
    )
    wrong = differences(plain_counts(texts), merged)
    report.check(not wrong, f"counts of {len(merged):,} words equal those of a plain loop")
    for line in wrong[:5]:
        report.line(f"      {line}")

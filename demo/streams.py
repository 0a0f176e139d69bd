"""Streams: a lot of bytes to a worker and back, while requests go on over the same connection."""

import asyncio
import hashlib
import time

import roletalk

from .report import Report

MEBIBYTE = 1 << 20
SIZE = 64 * MEBIBYTE


def parts(size: int = SIZE) -> list[bytes]:
    """`size` bytes in mebibytes, each of them another."""
    return [bytes([number % 251]) * MEBIBYTE for number in range(size // MEBIBYTE)]


async def show_streams(report: Report, peer: roletalk.Peer) -> None:
    """Send it, have it digested there, get it back, and digest it here."""
    store = peer.destination("store")
    unit = store.units[0]
    sent = hashlib.blake2b()
    for part in parts():
        sent.update(part)

    asking = asyncio.create_task(ask_meanwhile(peer, unit))
    began = time.perf_counter()
    async with store.writable("put", {"name": "big"}, unit=unit) as stream:
        for part in parts():
            await stream.write(part)
    kept = await store.request("digest", "big", unit=unit)
    there = time.perf_counter() - began

    got = hashlib.blake2b()
    began = time.perf_counter()
    async with store.readable("get", {"name": "big"}, unit=unit) as stream:
        async for chunk in stream:
            got.update(chunk)
    back = time.perf_counter() - began
    asking.cancel()
    (answered,) = await asyncio.gather(asking)

    report.section("streams")
    report.line(
        f"{SIZE >> 20} MiB to {unit.name} at {SIZE / there / 1e6:,.0f} MB/s, and back at"
        f" {SIZE / back / 1e6:,.0f} MB/s, digests included"
    )
    report.check(kept.data == got.hexdigest() == sent.hexdigest(), "the digests are the same")
    report.check(answered > 0, f"{answered:,} requests were answered meanwhile")


async def ask_meanwhile(peer: roletalk.Peer, unit: roletalk.Unit) -> int:
    """One request after the other until cancelled; returns how many were answered."""
    answered = 0
    try:
        while True:
            await peer.destination("status").request("report", unit=unit)
            answered += 1
    except asyncio.CancelledError:
        return answered

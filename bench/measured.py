"""What the clients of all contenders send and answer."""

from collections.abc import Sequence
from typing import Any

KEY = ("bench", "not a secret: it is in the source")

Result = dict[str, Any]


def payload_of(size: int) -> bytes:
    """So many bytes, the same ones in every contender."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def result(count: float, seconds: float, latencies: Sequence[int] = ()) -> Result:
    """What a command answers; `count` is in the scenario's unit, `latencies` in nanoseconds."""
    return {"count": count, "seconds": seconds, "latencies_ns": latencies}


def checked(sent: int, arrived: Any, seconds: float) -> Result:
    """The result of one-way messages.  Raises `RuntimeError` unless all of them arrived."""
    if sent != arrived:
        raise RuntimeError(f"{sent} messages were sent, {arrived} arrived")
    return result(sent, seconds)

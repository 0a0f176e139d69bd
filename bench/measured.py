"""What the clients of all contenders send and answer."""

from typing import Any

PAYLOAD = bytes(range(32))
KEY = ("bench", "not a secret: it is in the source")

Result = dict[str, Any]


def result(count: float, seconds: float, latencies: list[int]) -> Result:
    """What a command answers; `count` is in the scenario's unit, `latencies` in nanoseconds."""
    answer: Result = {"count": count, "seconds": seconds}
    if latencies:
        latencies.sort()
        answer["p50_us"] = latencies[len(latencies) // 2] / 1000
        answer["p99_us"] = latencies[len(latencies) * 99 // 100] / 1000
    return answer


def checked(sent: int, arrived: Any, seconds: float) -> Result:
    """The result of one-way messages.  Raises `RuntimeError` unless all of them arrived."""
    if sent != arrived:
        raise RuntimeError(f"{sent} messages were sent, {arrived} arrived")
    return result(sent, seconds, [])

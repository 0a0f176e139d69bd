"""What `Peer.stats` returns."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["Counters", "Stats"]


class Counters(TypedDict):
    """What the hot path counts, since the peer was made."""

    messages_sent: int
    messages_received: int
    requests_sent: int
    requests_received: int
    replies_sent: int
    replies_received: int
    rejects_sent: int
    rejects_received: int
    late_replies: int
    streams_opened: int
    stream_bytes_sent: int
    stream_bytes_received: int
    late_stream_frames: int
    timeouts: int
    bytes_sent: int
    bytes_received: int


class Stats(Counters):
    """Counters since the peer was made, and what there is now; see `Peer.stats`."""

    drops: dict[str, int]
    reconnects: int
    handshake_failures: int
    loop_lag: float
    loop_lag_max: float
    units: int
    connections: int
    unsent_bytes: int
    pending_requests: int
    running_handlers: int
    streams: int
    handshakes: int
    received_bytes_kept: int
    log_lines_left_out: int

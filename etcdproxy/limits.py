"""How much one peer, and all of them, may have open and ask for. Pure: time is an argument.

A peer is a certificate name, and all nodes of a cluster may share one: the limits leave room for a thousand of them.
What is queued for a watch needs no limit of its own: it is one answer (see hub.py). `queued_bytes` are answers to
Ranges that were not sent yet.
"""

from dataclasses import dataclass
from typing import ClassVar

REQUEST_S = 1e-4  # of the processor's time; a request for which entries are decoded counts once for each of these


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds; requests are Range, Status and opened streams."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}  # as part of a configuration file

    peer_connections: int = 4_000
    peer_streams: int = 4_000
    peer_watches: int = 40_000
    peer_requests_per_s: int = 5_000
    peer_requests_burst: int = 20_000
    peer_queued_bytes: int = 256 << 20
    connections: int = 10_000
    streams: int = 10_000
    watches: int = 100_000
    requests_per_s: int = 20_000
    requests_burst: int = 80_000
    queued_bytes: int = 1 << 30


@dataclass(slots=True)
class Bucket:
    """Requests that may still be made now; refilled evenly. `at` is in seconds of the monotonic clock."""

    tokens: float
    at: float

    def fill(self, per_s: float, most: float, now: float) -> bool:
        """Adds what has come since; whether there is one."""
        self.tokens, self.at = min(self.tokens + (now - self.at) * per_s, most), now
        return self.tokens >= 1

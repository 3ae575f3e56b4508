"""How much one peer, and all of them, may have open and ask for. Pure: time is an argument.

A peer is a certificate name, and all nodes of a cluster may share one: the limits leave room for a thousand of them.
What is queued for a stream needs no limit of its own: it is one answer (see hub.py).
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds; requests are Range, Status and opened streams."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}  # as part of a configuration file

    peer_connections: int = 4_000
    peer_streams: int = 4_000
    peer_watches: int = 40_000
    peer_requests_per_s: int = 5_000
    peer_requests_burst: int = 20_000
    connections: int = 10_000
    streams: int = 10_000
    watches: int = 100_000


@dataclass(slots=True)
class Bucket:
    """Requests that may still be made now; refilled evenly. `at` is in seconds of the monotonic clock."""

    tokens: float
    at: float

    def take(self, limits: Limits, now: float) -> bool:
        """Takes one; False if there is none."""
        refilled = self.tokens + (now - self.at) * limits.peer_requests_per_s
        self.tokens, self.at = min(refilled, limits.peer_requests_burst), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

"""What is known of the readers: who they are, what they have open and may still open, what was refused. Bounded."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from etcdproxy.limits import REQUEST_S, Bucket, Limits

_MAX_PEERS = 1000
_MAX_REFUSALS = 100
_MAX_KEY = 200  # bytes of a refused key that are kept


@dataclass(slots=True)
class Peer:
    """One certificate name. `seen` is when it last asked for something, in seconds of the monotonic clock."""

    name: str
    role: str
    bucket: Bucket
    connections: int = 0
    streams: int = 0
    watches: int = 0
    queued: int = 0  # bytes
    ranges: int = 0
    refused: int = 0
    seen: float = field(default_factory=time.monotonic)


class Refusal(NamedTuple):
    """A request that was not answered as asked."""

    peer: str
    key: str
    reason: str


class Peers:
    """All peers heard of since the start, the least recently seen forgotten first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.connections = 0
        self.streams = 0
        self.watches = 0
        self.queued = 0  # bytes
        self.answers = 0  # of streams that have ended
        self.sent = 0  # bytes of them
        self._bucket = Bucket(limits.requests_burst, time.monotonic())
        self._peers: dict[str, Peer] = {}
        self.refusals: deque[Refusal] = deque(maxlen=_MAX_REFUSALS)
        self.refused: Counter[str] = Counter()
        self.handshakes_failed: Counter[str] = Counter()

    def see(self, name: str, role: str) -> Peer:
        now = time.monotonic()
        peer = self._peers.pop(name, None) or Peer(name, role, Bucket(self.limits.peer_requests_burst, now))
        peer.role, peer.seen = role, now
        self._peers[name] = peer
        if len(self._peers) > _MAX_PEERS:
            idle = (known for known, other in self._peers.items() if not other.connections and not other.streams)
            if (oldest := next(idle, None)) is not None:
                del self._peers[oldest]
        return peer

    def refuse(self, peer: Peer, key: bytes, reason: str) -> Refusal:
        """Keeps the account of a refusal."""
        refusal = Refusal(peer.name, key[:_MAX_KEY].decode(errors="backslashreplace"), reason)
        peer.refused += 1
        self.refused[reason] += 1
        self.refusals.append(refusal)
        return refusal

    def excess(self, peer: Peer) -> str:
        """Which limit one more request of this peer would break, empty if none; the request is then counted."""
        limits, now = self.limits, peer.seen
        if not peer.bucket.fill(limits.peer_requests_per_s, limits.peer_requests_burst, now):
            return "requests per second"
        if not self._bucket.fill(limits.requests_per_s, limits.requests_burst, now):
            return "requests per second of all"
        peer.bucket.tokens -= 1
        self._bucket.tokens -= 1
        return ""

    def charge(self, peer: Peer, spent_s: float) -> None:
        """A request of this peer took so much of the processor's time: it counts as so many more."""
        peer.bucket.tokens -= spent_s / REQUEST_S

    def excess_bytes(self, peer: Peer, size: int) -> str:
        """Which limit one more answer of this size would break, empty if none. The only one is never too big."""
        limits = self.limits
        own = peer.queued and peer.queued + size > limits.peer_queued_bytes
        return "bytes queued" if own or (self.queued and self.queued + size > limits.queued_bytes) else ""

    def excess_connections(self, peer: Peer) -> str:
        """Which limit one more connection of this peer would break, empty if none."""
        return "connections" if peer.connections >= self.limits.peer_connections else ""

    def excess_streams(self, peer: Peer) -> str:
        """Which limit one more stream would break, empty if none."""
        limits = self.limits
        return "streams" if peer.streams >= limits.peer_streams or self.streams >= limits.streams else ""

    def excess_watches(self, peer: Peer) -> str:
        """Which limit one more watch would break, empty if none."""
        limits = self.limits
        return "watches" if peer.watches >= limits.peer_watches or self.watches >= limits.watches else ""

    def count_connection(self, peer: Peer, difference: int) -> None:
        peer.connections += difference
        self.connections += difference

    def count_stream(self, peer: Peer, difference: int) -> None:
        peer.streams += difference
        self.streams += difference

    def count_watches(self, peer: Peer, difference: int) -> None:
        peer.watches += difference
        self.watches += difference

    def count_queued(self, peer: Peer, difference: int) -> None:
        peer.queued += difference
        self.queued += difference

    def count_answers(self, number: int, size: int) -> None:
        self.answers += number
        self.sent += size

    def all(self) -> list[Peer]:
        return sorted(self._peers.values(), key=lambda peer: peer.name)

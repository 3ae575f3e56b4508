"""How long what each cluster says takes until it is in the kernel: its last changes, not its first lists. Pure."""

from collections import deque
from collections.abc import Set
from typing import NamedTuple

KEPT = 256
"""Changes of a cluster; what came together is one."""


class Lag(NamedTuple):
    """Seconds; of how many changes."""

    p50: float
    p99: float
    changes: int


class Lags:
    """`hear`, then `settle` after each round. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._took: dict[str, deque[float]] = {}

    def hear(self, cluster: str, now: float) -> None:
        """Something that it said is not worked out yet."""
        self._since.setdefault(cluster, now)

    def settle(self, busy: Set[str], now: float) -> None:
        """A round is over; of the `busy` clusters something is left for the next one."""
        if not self._since:
            return
        for cluster in self._since.keys() - busy:
            self._took.setdefault(cluster, deque(maxlen=KEPT)).append(now - self._since.pop(cluster))

    def of(self, cluster: str) -> Lag | None:
        """None if nothing is known."""
        if not (took := sorted(self._took.get(cluster, ()))):
            return None
        return Lag(took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)], len(took))

    def forget(self, cluster: str) -> None:
        """The cluster left."""
        self._since.pop(cluster, None)
        self._took.pop(cluster, None)

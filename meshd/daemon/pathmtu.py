"""Searches the largest packet that the way to a node carries: probes of several sizes that must not be fragmented, by
halving. Sans-IO: the caller sends, and says what came back. All sizes are of the whole outer IP packet, in bytes.
"""

from dataclasses import dataclass

LEAST = 576
"""What every way carries (RFC 791); IPv6 has more."""
TRIES = 3
"""So many lost in a row: the size does not pass."""
AGAIN_S = 15.0


@dataclass(slots=True)
class PathMtu:
    """`next_size` says what to send now; then `passed` or `lost`."""

    most: int
    """The MTU of this node's underlay: more is not asked for."""
    found: int | None = None
    """None: not known yet."""
    _low: int = LEAST
    _high: int = 0
    _lost: int = 0
    _due: float = 0.0
    _asks_for_all: bool = True

    def __post_init__(self) -> None:
        self._restart()

    def next_size(self, now: float) -> int | None:
        """None: nothing to ask now."""
        if now < self._due:
            return None
        return self._high if self._asks_for_all else (self._low + self._high + 1) // 2

    def follow(self, most: int) -> None:
        """The underlay's MTU is this."""
        if most != self.most:
            self.most, self.found = most, None
            self._restart()

    def again(self) -> None:
        """The way may be another one: ask now."""
        self._due = 0.0

    def passed(self, size: int, now: float) -> None:
        self._lost = 0
        self._low = max(self._low, size)
        self._narrow(now)

    def lost(self, size: int, now: float) -> None:
        self._lost += 1
        if self._lost >= TRIES:
            self._lost = 0
            self._high = min(self._high, size - 1)
            self._asks_for_all = False
            self._narrow(now)

    def _narrow(self, now: float) -> None:
        if self._low >= self._high:
            self.found = max(self._low, LEAST)
            self._restart()
            self._due = now + AGAIN_S

    def _restart(self) -> None:
        self._low, self._high, self._lost, self._due = LEAST, self.most, 0, 0.0
        self._asks_for_all = True

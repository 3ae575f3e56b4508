"""Numbers that are given out upwards and rest before they are used again. Pure.

The kernel remembers numbers longer than we do: flows that are translated per packet keep that of their backend, and ask
no more than whether there is one. So a number must not soon mean somebody else: it rests for a grace, all others come
first, and a restart goes on where the last process stopped. That place, the mark, stands in the kernel; it is moved in
large steps, so that it is seldom written.
"""

from collections import deque
from collections.abc import Iterable

NUMBER_MAX = 0xFFFFFFFF
GRACE_S = 600.0
STEP = 4096
RESTING_MAX = 1 << 17
"""More than these are not remembered: all numbers that were never used come before them anyway."""


class Numbers:
    """1 to NUMBER_MAX. `now` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._taken: dict[int, None] = {}  # smaller than a set
        self._resting: set[int] = set()
        self._until: deque[tuple[float, int]] = deque()
        self._last = 0
        self.mark = 0
        """The next process begins after this number."""

    def restore(self, taken: Iterable[int], mark: int) -> None:
        """These stand in the maps, and up to the mark others may have stood there lately."""
        self._taken = dict.fromkeys(taken)
        self._last = mark or max(self._taken, default=0)
        self.mark = mark

    def keep_only(self, taken: Iterable[int], now: float) -> None:
        """The others are given back."""
        for number in self._taken.keys() - set(taken):
            self.give_back(number, now)

    def take(self, now: float) -> int:
        while self._until and self._until[0][0] <= now:
            self._resting.discard(self._until.popleft()[1])
        number = self._last % NUMBER_MAX + 1
        while number in self._taken or number in self._resting:
            number = number % NUMBER_MAX + 1
        self._last = number
        self._taken[number] = None
        if not self._is_marked(number):
            self.mark = min(number + STEP, NUMBER_MAX)
        return number

    def give_back(self, number: int, now: float) -> None:
        self._taken.pop(number, None)
        self._resting.add(number)
        self._until.append((now + GRACE_S, number))
        if len(self._until) > RESTING_MAX:
            self._resting.discard(self._until.popleft()[1])

    def _is_marked(self, number: int) -> bool:
        return self.mark - STEP <= number <= self.mark

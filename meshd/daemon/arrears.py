"""Names that wait for their turn, each once, the first one first. Pure.

A dict alone has them in order too, but looks at the places of all that were taken before whenever the first are asked
for: quadratic in a large list.
"""

from collections import deque
from collections.abc import Iterable, Set


class Arrears:
    """`add`, then `take` from the front."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, names: Iterable[str]) -> None:
        """A name that waits already keeps its place."""
        new = dict.fromkeys(name for name in names if name not in self._waiting)
        self._waiting.update(new)
        self._order.extend(new)

    def take(self, count: int) -> Set[str]:
        """So many of them, in their order."""
        order = self._order
        taken = dict.fromkeys([order.popleft() for _ in range(min(count, len(order)))])
        self._waiting.difference_update(taken)
        return taken.keys()

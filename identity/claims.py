"""Several clusters may speak of the same address or prefix. Exactly one is believed, the others are shown."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
Rank = Callable[[str], tuple[int, ...]]


class Claims(Generic[K, V]):
    """Who says what about a key. The claimant of the lowest rank wins, by name among equals.

    The answer depends on what is claimed now, never on the order in which it came. One claim, the common case, costs
    one dictionary entry.
    """

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._single: dict[K, tuple[str, V]] = {}
        self._contested: dict[K, dict[str, V]] = {}

    def put(self, key: K, claimant: str, value: V) -> None:
        """The claimant says `value` of the key; what it said before is replaced."""
        contested = self._contested.get(key)
        if contested is not None:
            contested[claimant] = value
            return
        known = self._single.get(key)
        if known is None or known[0] == claimant:
            self._single[key] = (claimant, value)
        else:
            self._contested[key] = {known[0]: known[1], claimant: value}
            del self._single[key]

    def drop(self, key: K, claimant: str) -> None:
        """The claimant says nothing of the key any more. Nothing happens if it did not."""
        contested = self._contested.get(key)
        if contested is None:
            if (known := self._single.get(key)) and known[0] == claimant:
                del self._single[key]
            return
        contested.pop(claimant, None)
        if len(contested) == 1:
            self._single[key] = next(iter(contested.items()))
            del self._contested[key]

    def winner(self, key: K) -> tuple[str, V] | None:
        """Who is believed about the key, and what it says."""
        contested = self._contested.get(key)
        if contested is None:
            return self._single.get(key)
        claimant = min(contested, key=self._order)
        return claimant, contested[claimant]

    def losers(self, key: K) -> list[str]:
        """Who is not believed about the key, the next in line first."""
        contested = self._contested.get(key)
        return sorted(contested, key=self._order)[1:] if contested else []

    def conflicts(self) -> Iterator[tuple[K, list[str]]]:
        """Every contested key with its claimants, the winner first."""
        for key, contested in self._contested.items():
            yield key, sorted(contested, key=self._order)

    def keys(self) -> Iterator[K]:
        """Every key that anybody claims."""
        yield from self._single
        yield from self._contested

    def __len__(self) -> int:
        return len(self._single) + len(self._contested)

    def _order(self, claimant: str) -> tuple[tuple[int, ...], str]:
        return self._rank(claimant), claimant

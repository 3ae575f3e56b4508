"""Several clusters may speak of the same address; what each says stands elsewhere. One claimant costs one dictionary
entry and nothing else, as there may be hundreds of thousands of addresses.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from identity.claims import Rank

K = TypeVar("K")


class Claimants(Generic[K]):
    """Who claims a key. The claimant of the lowest rank wins, by name among equals, in whatever order they came."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._single: dict[K, str] = {}
        self._contested: dict[K, frozenset[str]] = {}

    def put(self, key: K, claimant: str) -> str:
        """The claimant claims the key (too); who wins now."""
        known = self._single.setdefault(key, claimant) if key not in self._contested else ""
        if known == claimant:
            return claimant
        self._single.pop(key, None)
        self._contested[key] = self._contested.get(key, frozenset([known])) | {claimant}
        return self.winner(key)

    def drop(self, key: K, claimant: str) -> str:
        """The claimant does not claim the key (any more); who wins now, "" if nobody does."""
        contested = self._contested.get(key)
        if contested is None:
            if self._single.get(key) == claimant:
                del self._single[key]
        elif claimant in contested:
            rest = contested - {claimant}
            if len(rest) == 1:
                del self._contested[key]
                (self._single[key],) = rest
            else:
                self._contested[key] = rest
        return self.winner(key)

    def winner(self, key: K) -> str:
        """Who is believed about the key, "" if nobody claims it."""
        contested = self._contested.get(key)
        return min(contested, key=self._order) if contested else self._single.get(key, "")

    def all(self, key: K) -> list[str]:
        """Who claims the key, the one who is believed first."""
        contested = self._contested.get(key)
        if contested:
            return sorted(contested, key=self._order)
        return [self._single[key]] if key in self._single else []

    def conflicts(self) -> Iterator[tuple[K, list[str]]]:
        """Every contested key with its claimants, the winner first."""
        for key in self._contested:
            yield key, self.all(key)

    def __len__(self) -> int:
        return len(self._single) + len(self._contested)

    def _order(self, claimant: str) -> tuple[tuple[int, ...], str]:
        return self._rank(claimant), claimant

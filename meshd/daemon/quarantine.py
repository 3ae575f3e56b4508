"""Records that are well-formed, but not believed: by cluster, kind and name, with the reason and since when. Pure.

Bounded by the clusters' quotas: only records that the store holds can be here.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from wire.keys import Kind


@dataclass(frozen=True, slots=True)
class Held:
    """Why, and since when (monotonic seconds)."""

    reason: str
    since: float


class Quarantine:
    """`note` after every judgement; what is believed again is forgotten here."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, Kind], dict[str, Held]] = {}
        self._reasons: dict[tuple[str, Kind], Counter[str]] = {}
        self.turn = 0
        """Another number whenever something else is held."""
        self._turns: dict[tuple[str, Kind], int] = {}

    def note(self, cluster: str, kind: Kind, name: str, reason: str | None, now: float) -> None:
        """The record is refused for this reason, or (None) is not (any more)."""
        held = self._held.get((cluster, kind))
        if reason is None:
            if held is not None and (past := held.pop(name, None)) is not None:
                self._count(cluster, kind, past.reason, -1)
                if not held:
                    self._drop((cluster, kind))
            return
        if held is None:
            held = self._held[cluster, kind] = {}
        known = held.get(name)
        if known is None or known.reason != reason:
            held[name] = Held(reason, now)
            self._count(cluster, kind, reason, 1)
            if known is not None:
                self._count(cluster, kind, known.reason, -1)

    def _count(self, cluster: str, kind: Kind, reason: str, change: int) -> None:
        self.turn += 1
        self._turns[cluster, kind] = self.turn
        counts = self._reasons.setdefault((cluster, kind), Counter())
        counts[reason] += change
        if not counts[reason]:
            del counts[reason]

    def _drop(self, key: tuple[str, Kind]) -> None:
        self.turn += 1
        del self._held[key], self._reasons[key], self._turns[key]

    def forget(self, cluster: str) -> None:
        """Everything of this cluster."""
        for key in [key for key in self._held if key[0] == cluster]:
            self._drop(key)

    def turn_of(self, cluster: str, kind: Kind) -> int:
        """Another number whenever something else of this is held; 0 if nothing is."""
        return self._turns.get((cluster, kind), 0)

    def count(self, cluster: str, kind: Kind) -> int:
        """How many names are held."""
        return len(self._held.get((cluster, kind), ()))

    def names(self, cluster: str, kind: Kind) -> list[str]:
        return list(self._held.get((cluster, kind), ()))

    def find(self, cluster: str, kind: Kind, name: str) -> Held | None:
        return self._held.get((cluster, kind), {}).get(name)

    def reasons(self, cluster: str, kind: Kind) -> Counter[str]:
        """How many names are held, by reason."""
        return self._reasons.get((cluster, kind), Counter()).copy()

    def kinds(self) -> list[tuple[str, Kind]]:
        """Clusters and kinds of which something is held."""
        return list(self._held)

    def items(self) -> Iterator[tuple[str, Kind, str, Held]]:
        for (cluster, kind), names in self._held.items():
            for name, held in names.items():
                yield cluster, kind, name, held

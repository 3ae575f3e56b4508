"""What is desired beside what is realised, and which keys may differ: from that the operations of a round, in publish
order. Pure. The cost of a round is the number of dirty keys, whatever the size of the maps.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from meshd.reconcile.realised import Realised
from meshd.reconcile.target import Item, Shape

UNKNOWN = b""
"""The realised value of a key of which it is not known what the target holds: it differs from every wish."""


@dataclass(frozen=True, slots=True)
class Step:
    """Operations of one rank on one map. For a removal the values are those that are removed."""

    rank: int
    map: str
    items: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Round:
    """Frozen work: `upserts` in publish order, then `deletes` in the reverse."""

    upserts: tuple[Step, ...]
    deletes: tuple[Step, ...]


class Delta:
    """Desired and realised entries of several maps.

    `realised` changes only by `restore` and `record`: never while a round that was planned is being worked on.
    """

    def __init__(self, shape: Shape) -> None:
        self.desired: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
        self.realised = Realised(self.desired)
        self._dirty: defaultdict[str, dict[bytes, None]] = defaultdict(dict)
        self._unclaimed: defaultdict[str, set[bytes]] = defaultdict(set)
        self.possible: dict[Item, set[bytes]] = {}
        """What may stand under the keys whose last operation failed."""
        self._shape = shape

    def restore(self, map: str, dumped: Mapping[bytes, bytes]) -> None:
        """These entries were found at the start. They are not dirty: only `prune` or a wish touches them."""
        self.realised[map].replace(dumped)
        self._unclaimed[map] = set(dumped)

    def want(self, map: str, key: bytes, value: bytes | None) -> None:
        """None: the entry must not be there. One that was found at the start and that nobody has wanted since is left
        to `prune`: who wants it may not have been heard yet.
        """
        self.want_all(map, {key: value})

    def want_all(self, map: str, wanted: Mapping[bytes, bytes | None]) -> None:
        """The same for many entries of a map."""
        if unclaimed := self._unclaimed[map]:
            wanted = {key: value for key, value in wanted.items() if value is not None or key not in unclaimed}
            unclaimed.difference_update(wanted)
        self.realised[map].keep(wanted)
        desired = self.desired[map]
        for key, value in wanted.items():
            if value is None:
                desired.pop(key, None)
            else:
                desired[key] = value
        self._dirty[map].update(dict.fromkeys(wanted))

    def touch(self, item: Item) -> None:
        """Look at this key again."""
        self._dirty[item[0]][item[1]] = None

    def doubt(self, map: str, keys: Iterable[bytes]) -> None:
        """What is held under these keys may not be right any more: write again what is desired. Between rounds only."""
        realised = self.realised[map]
        unsure = [key for key in keys if key in self.desired[map] and key in realised]
        realised.put(dict.fromkeys(unsure, UNKNOWN))
        self._dirty[map].update(dict.fromkeys(unsure))

    def prune(self, map: str, may: Callable[[bytes, bytes], bool]) -> int:
        """What was found at the start and nobody spoke of since goes with the next round, if it may: how many do."""
        held = self.realised[map]
        gone = [key for key in self._unclaimed[map] if may(key, held[key])]
        self._unclaimed[map].difference_update(gone)
        self._dirty[map].update(dict.fromkeys(gone))
        return len(gone)

    def unclaimed(self) -> int:
        """Entries that were found at the start, and nobody who was heard has spoken of yet."""
        return sum(len(keys) for keys in self._unclaimed.values())

    def plan(self) -> Round | None:
        """Takes the dirty keys; None if none of them differs."""
        upserts: defaultdict[tuple[int, str], dict[bytes, bytes]] = defaultdict(dict)
        deletes: defaultdict[tuple[int, str], dict[bytes, bytes]] = defaultdict(dict)
        for map, keys in self._dirty.items():
            for key, wanted, held in self.realised[map].differing(keys):
                rank = self._shape.rank(map, key)
                if wanted is not None:
                    upserts[rank, map][key] = wanted
                elif held is not None:
                    deletes[rank, map][key] = held
        self._dirty.clear()
        if not upserts and not deletes:
            return None
        ordered = tuple(Step(rank, map, upserts[rank, map]) for rank, map in sorted(upserts))
        reverse = tuple(Step(rank, map, deletes[rank, map]) for rank, map in sorted(deletes, reverse=True))
        return Round(ordered, reverse)

    def record(self, map: str, written: Mapping[bytes, bytes | None]) -> None:
        """These writes succeeded: this is what the target holds now."""
        self.realised[map].put(written)
        if self.possible:
            for key in written:
                self.possible.pop((map, key), None)

    def record_failure(self, map: str, key: bytes) -> None:
        """The operation was not tried: what was there is there."""
        self._may_be(map, key, self.realised[map].get(key))

    def record_attempt(self, map: str, key: bytes, attempted: bytes | None) -> None:
        """The operation failed, with or without effect: an upsert of this value, or (None) a removal."""
        self._may_be(map, key, self.realised[map].get(key))
        self._may_be(map, key, attempted)
        self.realised[map].put({key: UNKNOWN})

    def _may_be(self, map: str, key: bytes, value: bytes | None) -> None:
        values = self.possible.setdefault((map, key), set())
        if value is not None and value != UNKNOWN:
            values.add(value)

    def settle(self) -> list[Item]:
        """Takes back the failures of keys that are as they are wanted by now; returns these."""
        settled = [
            (map, key) for map, key in self.possible if self.realised[map].get(key) == self.desired[map].get(key)
        ]
        for item in settled:
            del self.possible[item]
        return settled

"""The entries of one frontend: its slots, and what session affinity and Maglev need beside them. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from datapath.entries import Entry, IPAddress, frontend_entry, maglev_entry, member_entry, slot_entry
from datapath.maglev import build_table, encode_table
from datapath.servicelayout import SvcFlag
from datapath.slots import Slot, compute_aliases, place_slots
from meshd.daemon.backends import Endpoint, endpoint_text
from meshd.daemon.wishes import Wishes
from meshd.reconcile.target import Item

FrontendKey = tuple[IPAddress, int, int]
"""Address, port, IPPROTO_*."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A frontend as its service wants it: backends with their weights, relative to each other."""

    weights: Mapping[Endpoint, int]
    session_affinity_timeout_s: int = 0
    maglev: bool = False

    def place(
        self, before: Sequence[Endpoint], retained: Iterable[Endpoint], refused: Set[Endpoint] = frozenset()
    ) -> tuple[Endpoint, ...]:
        """The slots' backends, close to where they were; without those that the kernel has no room for."""
        wanted = (*self.weights, *retained)
        return place_slots(before, [each for each in wanted if each not in refused] if refused else wanted)

    def waiting(self, retained: Iterable[Endpoint], refused: Set[Endpoint]) -> tuple[Endpoint, ...]:
        """Those without a slot until the kernel has room for them."""
        return tuple(dict.fromkeys(each for each in (*self.weights, *retained) if each in refused)) if refused else ()

    def is_too_many_for(self, table_size: int) -> bool:
        return self.maglev and len(self.weights) > table_size

    def weights_of(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """Empty if all are the same. One that is only retained counts as the least of the others."""
        if len(set(self.weights.values())) < 2:
            return []
        least = min(self.weights.values())
        found = [self.weights.get(endpoint, least) for endpoint in endpoints]
        return found if len(set(found)) > 1 else []


@dataclass(frozen=True, slots=True)
class Published:
    """A frontend's entries: slots by number (from 1 on), all others by where they stand. `waiting` have no slot yet."""

    key: FrontendKey
    endpoints: tuple[Endpoint, ...]
    slots: tuple[Slot, ...]
    others: Mapping[Item, bytes]
    frontend: Entry
    waiting: tuple[Endpoint, ...] = ()

    @property
    def referred(self) -> set[Endpoint]:
        """The backends whose entries are wanted for it."""
        return {*self.endpoints, *self.waiting}

    @property
    def has_table(self) -> bool:
        return any(map == "md_maglev" for map, _ in self.others)

    def changes(self, before: "Published | None") -> Wishes:
        """What is to be written, the frontend last; everything if it is not known what stands."""
        held = before.slots if before else ()
        wishes: Wishes = {
            item: value for item, value in self.others.items() if not before or before.others.get(item) != value
        }
        for number, slot in enumerate(self.slots, 1):
            if number > len(held) or held[number - 1] != slot:
                entry = slot_entry(*self.key, slot=number, value=slot)
                wishes[entry.map, entry.key] = entry.value
        if not before or before.frontend != self.frontend:
            wishes[self.frontend.map, self.frontend.key] = self.frontend.value
        return wishes

    def leftovers(self, after: "Published | None") -> Wishes:
        """What is to be removed, as `after` (None: nothing) comes in its place."""
        gone: Wishes = {item: None for item in self.others if not after or item not in after.others}
        for number in range(len(after.slots) + 1 if after else 1, len(self.slots) + 1):
            entry = slot_entry(*self.key, slot=number, value=self.slots[number - 1])
            gone[entry.map, entry.key] = None
        if after is None:
            gone[self.frontend.map, self.frontend.key] = None
        return gone


def compute_entries(
    key: FrontendKey, wanted: Wanted, endpoints: tuple[Endpoint, ...], numbers: Sequence[int], table_size: int
) -> Published:
    """`endpoints` in the order of the slots, and their numbers."""
    weights = wanted.weights_of(endpoints)
    flags = SvcFlag.WEIGHTED if weights else SvcFlag(0)
    others = {}
    if wanted.session_affinity_timeout_s:
        others = {(entry.map, entry.key): entry.value for entry in _members(key, numbers)}
    if wanted.maglev and 0 < len(endpoints) <= table_size:
        flags |= SvcFlag.MAGLEV
        table = build_table([endpoint_text(endpoint) for endpoint in endpoints], weights, size=table_size)
        entry = maglev_entry(*key, encode_table(table, numbers))
        others[entry.map, entry.key] = entry.value
    frontend = frontend_entry(
        *key, count=len(endpoints), session_affinity_timeout_s=wanted.session_affinity_timeout_s, flags=flags
    )
    return Published(key, endpoints, _slots(numbers, weights), others, frontend)


def _members(key: FrontendKey, numbers: Sequence[int]) -> Iterator[Entry]:
    return (member_entry(*key, number) for number in numbers)


def _slots(numbers: Sequence[int], weights: Sequence[int]) -> tuple[Slot, ...]:
    if not weights:
        return tuple(map(Slot, numbers))
    return tuple(Slot(number, *alias) for number, alias in zip(numbers, compute_aliases(weights), strict=True))

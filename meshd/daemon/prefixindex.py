"""Prefixes by where they lie: which of them overlap a given one, equal or not. Pure; each question costs what it finds.

Addresses are numbers inside: to ask for one of them costs a look into a dictionary for each length in use.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network

from sortedcontainers import SortedDict, SortedList

from wire.records import IPAddress, IPNetwork

_BITS = {4: 32, 6: 128}


class PrefixIndex:
    """A set of prefixes, each as often as it was added."""

    def __init__(self, prefixes: Iterable[IPNetwork] = ()) -> None:
        self._tables: dict[int, SortedDict[int, dict[int, int]]] = {4: SortedDict(), 6: SortedDict()}
        self._starts: dict[int, SortedList[tuple[int, int]]] = {4: SortedList(), 6: SortedList()}
        self._shifts: dict[int, list[tuple[int, dict[int, int]]]] = {4: [], 6: []}
        """The tables again, by what an address is shifted by to be looked for in one."""
        for prefix in prefixes:
            self.add(prefix)

    def __len__(self) -> int:
        return sum(map(len, self._starts.values()))

    def add(self, prefix: IPNetwork) -> None:
        version, length, start = prefix.version, prefix.prefixlen, int(prefix.network_address)
        table = self._tables[version].get(length)
        if table is None:
            table = self._tables[version][length] = {}
            self._measure(version)
        number = start >> (_BITS[version] - length)
        if number not in table:
            self._starts[version].add((start, length))
        table[number] = table.get(number, 0) + 1

    def discard(self, prefix: IPNetwork) -> None:
        """One time less; nothing happens if it is not there."""
        version, length, start = prefix.version, prefix.prefixlen, int(prefix.network_address)
        table = self._tables[version].get(length, {})
        number = start >> (_BITS[version] - length)
        if number not in table:
            return
        table[number] -= 1
        if not table[number]:
            del table[number]
            self._starts[version].remove((start, length))
            if not table:
                del self._tables[version][length]
                self._measure(version)

    def _measure(self, version: int) -> None:
        bits = _BITS[version]
        self._shifts[version] = [(bits - length, table) for length, table in self._tables[version].items()]

    def holds(self, address: IPAddress) -> bool:
        """Does it lie in any of them?"""
        return self.holds_number(address.version, int(address))

    def tables(self, version: int) -> Sequence[tuple[int, Mapping[int, int]]]:
        """An address as a number lies in a prefix if, shifted by the first, it is in the second of any of these. They
        are not those of later changes.
        """
        return self._shifts[version]

    def holds_number(self, version: int, number: int) -> bool:
        """The same for an address as a number."""
        return any(number >> shift in table for shift, table in self._shifts[version])

    def containing(self, prefix: IPNetwork) -> Iterator[IPNetwork]:
        """Those that `prefix` lies in, itself among them; the widest first."""
        version, start = prefix.version, int(prefix.network_address)
        bits = _BITS[version]
        for length, table in self._tables[version].items():
            if length <= prefix.prefixlen and start >> (bits - length) in table:
                yield prefix.supernet(new_prefix=length)

    def overlapping(self, prefix: IPNetwork) -> Iterator[IPNetwork]:
        """Two prefixes overlap iff one lies in the other."""
        yield from self.containing(prefix)
        version, bits = prefix.version, _BITS[prefix.version]
        first, last = (int(prefix.network_address), prefix.prefixlen + 1), (int(prefix.broadcast_address), bits)
        for start, length in self._starts[version].irange(first, last):
            if length > prefix.prefixlen:
                yield ip_network((start.to_bytes(bits // 8, "big"), length))

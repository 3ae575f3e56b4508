"""Addresses that lie in no PodCIDR of their own cluster: who is believed about them changes with the PodCIDRs around.
Few, as a rule; by where they lie, so that a PodCIDR that changes costs those in it. Pure.
"""

from collections.abc import Iterator

from wire.addresses import address_number
from wire.records import IPNetwork

_SHIFTS = {4: 8, 6: 64}
"""They are kept by /24 and by /64."""
Stray = tuple[str, str]
"""Cluster and address."""


class Strays:
    """`put` and `drop` after each judgement."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[int, dict[Stray, int]]] = {4: {}, 6: {}}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, cluster: str, name: str) -> None:
        version, number = address_number(name)
        block = self._blocks[version].setdefault(number >> _SHIFTS[version], {})
        self._count -= len(block)
        block[cluster, name] = number
        self._count += len(block)

    def drop(self, cluster: str, name: str) -> None:
        """Nothing happens if it was none; prefixes are none."""
        if "/" in name:
            return
        version, number = address_number(name)
        block = self._blocks[version].get(number >> _SHIFTS[version], {})
        if block.pop((cluster, name), None) is not None:
            self._count -= 1
            if not block:
                del self._blocks[version][number >> _SHIFTS[version]]

    def inside(self, prefix: IPNetwork) -> Iterator[Stray]:
        """Those that lie in the prefix."""
        blocks, shift = self._blocks[prefix.version], _SHIFTS[prefix.version]
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        if (last - first) >> shift > len(blocks):
            found = [block for number, block in blocks.items() if first >> shift <= number <= last >> shift]
        else:
            found = [blocks.get(number, {}) for number in range(first >> shift, (last >> shift) + 1)]
        for block in found:
            yield from (stray for stray, number in block.items() if first <= number <= last)

"""Numbers for prefixes outside the mesh that policies name: identities of this node only, never on the wire."""

from collections import Counter
from collections.abc import Iterable, Mapping

from policy.selector import IPNetwork

FIRST = 1 << 24
LAST = FIRST + (1 << 24) - 1


class CidrNumbers:
    """A prefix keeps its number while any policy names it. A number that became free is not given again at once."""

    def __init__(self) -> None:
        self._numbers: dict[IPNetwork, int] = {}
        self._restored: dict[IPNetwork, int] = {}
        self._uses: Counter[IPNetwork] = Counter()
        self._next = FIRST

    @property
    def numbers(self) -> Mapping[IPNetwork, int]:
        return self._numbers

    def restore(self, numbers: Mapping[IPNetwork, int]) -> None:
        """What was found at the start: the same prefix gets the same number again."""
        self._restored = {network: n for network, n in numbers.items() if FIRST <= n <= LAST}
        self._next = max(self._restored.values(), default=FIRST - 1) + 1

    def use(self, networks: Iterable[IPNetwork]) -> dict[IPNetwork, int]:
        """Counts one use more; returns the prefixes that are new, with their numbers."""
        new = {}
        for network in networks:
            if network not in self._numbers:
                new[network] = self._numbers[network] = self._restored.get(network) or self._free()
            self._uses[network] += 1
        return new

    def release(self, networks: Iterable[IPNetwork]) -> dict[IPNetwork, int]:
        """Counts one use less; returns the prefixes that nobody uses any more."""
        gone = {}
        for network in networks:
            self._uses[network] -= 1
            if not self._uses[network]:
                del self._uses[network]
                gone[network] = self._numbers.pop(network)
        return gone

    def _free(self) -> int:
        taken = {*self._numbers.values(), *self._restored.values()}
        while self._next in taken or self._next > LAST:
            self._next = FIRST if self._next > LAST else self._next + 1
        self._next += 1
        return self._next - 1

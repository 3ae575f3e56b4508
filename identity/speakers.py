"""Which clusters speak of each network, so that who else may claim an address is found without an entry for each.

A network is a /24 of IPv4 or a /64 of IPv6: a node's pods, of which one cluster speaks but for mistakes and lies.
"""

from dataclasses import dataclass

_NOBODY: tuple[str, ...] = ()


@dataclass(slots=True)
class _Network:
    clusters: tuple[str, ...]
    addresses: int = 0


class Speakers:
    """Addresses are packed: 4 or 16 bytes. A network of which no address is counted is forgotten."""

    def __init__(self) -> None:
        self._networks: dict[bytes, _Network] = {}
        self._alone: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        """How many networks are spoken of."""
        return len(self._networks)

    def of(self, address: bytes) -> tuple[str, ...]:
        """The clusters that may speak of this address, in no order."""
        network = self._networks.get(_network(address))
        return network.clusters if network else _NOBODY

    def hear(self, address: bytes, cluster: str, more: int = 0) -> tuple[str, ...]:
        """The cluster speaks of this address (too); all that may. With `more` the address is counted besides."""
        key = _network(address)
        network = self._networks.get(key)
        if network is None:
            network = self._networks[key] = _Network(self._alone.setdefault(cluster, (cluster,)))
        elif cluster not in network.clusters:
            network.clusters = (*network.clusters, cluster)
        network.addresses += more
        return network.clusters

    def count(self, address: bytes, more: int) -> None:
        """This address is claimed from now on (1), or by nobody any more (-1)."""
        key = _network(address)
        if (network := self._networks.get(key)) is not None:
            network.addresses += more
            if network.addresses <= 0:
                del self._networks[key]

    def forget(self, cluster: str) -> None:
        """The cluster left."""
        self._alone.pop(cluster, None)
        for network in self._networks.values():
            if cluster in network.clusters:
                network.clusters = tuple(each for each in network.clusters if each != cluster)


def _network(address: bytes) -> bytes:
    return address[:3] if len(address) == 4 else address[:8]

"""Nodes whose way carries less than this node's underlay: what the probes have found of a few nodes of a cluster holds
for all of it, and what a router has said of one node for that one. Packets to them are made to fit. Pure; time is an
argument.
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from datapath.description import decode
from datapath.entries import Direct, Entry
from meshd.daemon.prober import Target
from routing.tunnel import IPV6_LEAST, OVERHEAD
from wire.records import IPAddress, Node

PATIENCE_S = 120.0
"""So long after a start what the map held then is believed of clusters that nothing was found of yet."""
_OTHERS = ""


class Narrow:
    """`look` now and then; `path_of` says what holds for a node."""

    def __init__(self, version: int, held: Mapping[bytes, bytes]) -> None:
        """`version` of the underlay; `held` is what md_node had at the start."""
        self._version = version
        self._held = _held(held, version)
        self._until: float | None = None
        self._found: dict[str, dict[str, int]] = {}
        self._told: Mapping[IPAddress, int] = {}

    def path_of(self, node: Node) -> int:
        """Bytes of the largest IP packet that the way to the node carries; 0: as much as the underlay, or not known."""
        address = node.node_ip(self._version)
        if address is None:
            return 0
        found = self._found.get(node.cluster)
        size = found.get(node.name, found[_OTHERS]) if found is not None else self._held.get(address, 0)
        told = self._told.get(address, 0)
        return min(size, told) if size and told else size or told

    def tell(self, sizes: Mapping[IPAddress, int]) -> set[IPAddress]:
        """What the kernel holds now of what routers said; the addresses of which something else holds. The kernel sends
        nothing larger there in one piece, whatever the way carries by now. IPv4 may be cut: so nobody who forges such
        a word takes away what IPv6 needs inside.
        """
        least = IPV6_LEAST + OVERHEAD[4] if self._version == 4 else 0
        before, self._told = self._told, {address: size for address, size in sizes.items() if size >= least}
        return {address for address, _ in before.items() ^ self._told.items()}

    def look(
        self, clusters: Iterable[str], probed: Callable[[str], Mapping[str, Target]], underlay: int, now: float
    ) -> set[str]:
        """The clusters of which something else holds now. `underlay` is this node's MTU."""
        self._until = now + PATIENCE_S if self._until is None else self._until
        moved = {cluster for cluster in clusters if self._learn(cluster, probed(cluster), underlay)}
        if self._held and now > self._until:
            self._held = {}
            moved |= {cluster for cluster in clusters if cluster not in self._found}
        return moved

    def forget(self, cluster: str) -> None:
        self._found.pop(cluster, None)

    def _learn(self, cluster: str, probed: Mapping[str, Target], underlay: int) -> bool:
        sizes = {name: target.path.found for name, target in probed.items()}
        known = {name: size if size < underlay else 0 for name, size in sizes.items() if size is not None}
        if not known:
            return False
        known[_OTHERS] = min(filter(None, known.values()), default=0)
        before = self._found.get(cluster)
        self._found[cluster] = known
        return known != before if before is not None else any(known.values()) or bool(self._held)


def _held(entries: Mapping[bytes, bytes], version: int) -> dict[IPAddress, int]:
    """What the way to each node carried, of the nodes of other clusters."""
    found: dict[IPAddress, int] = {}
    for key, value in entries.items():
        facts = decode(Entry("md_node", key, value))
        address, inner = facts["address"], facts["tunnel_mtu"]
        sizes = [way.mtu for way in (facts["direct4"], facts["direct6"]) if isinstance(way, Direct) and way.mtu]
        sizes += [inner + OVERHEAD[version]] if isinstance(inner, int) and inner else []
        if sizes and isinstance(address, IPv4Address | IPv6Address):
            found[address] = min(sizes)
    return found

"""PodCIDRs of all nodes, and which of them overlap: two nodes cannot both get the packets for an address."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

IPNetwork = IPv4Network | IPv6Network


class PodCidrs:
    """Both nodes of a pair that overlaps are published, as Kubernetes has them; the longer prefix gets the packets."""

    def __init__(self) -> None:
        self._cidrs: dict[str, Sequence[IPNetwork]] = {}

    def set(self, node: str, cidrs: Sequence[IPNetwork]) -> None:
        """These are the node's now; none: forget it."""
        self._cidrs.pop(node, None)
        if cidrs:
            self._cidrs[node] = cidrs

    def overlaps(self) -> Iterator[tuple[str, str]]:
        """Each node with a prefix that lies within, or is, another node's, and a sentence. Costs a look at all."""
        found = sorted(
            (cidr.version, int(cidr.network_address), cidr.prefixlen, node, cidr)
            for node, cidrs in self._cidrs.items()
            for cidr in cidrs
        )
        around: list[tuple[str, IPNetwork]] = []
        for version, _, _, node, cidr in found:
            while around and (around[-1][1].version != version or not _within(cidr, around[-1][1])):
                around.pop()
            for other, wider in around:
                if other != node:
                    who = "both claim its packets" if wider == cidr else "the longer prefix gets the packets"
                    yield node, f"PodCIDR {cidr} overlaps {wider} of node {other}: {who}, give one another range"
            around.append((node, cidr))


def _within(cidr: IPNetwork, wider: IPNetwork) -> bool:
    return int(wider.network_address) <= int(cidr.network_address) <= int(wider.broadcast_address)

"""Who an address is that no cluster has announced as a pod's: this node, another node, or a prefix that a policy names.
One change costs one change, however many nodes there are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network

from datapath.entries import IPNetwork
from datapath.policing import outside_entry
from identity.numbering import Reserved
from meshd.reconcile.delta import Delta
from policy.cidrs import FIRST as FIRST_CIDR
from wire.records import Node


class Outside:
    """Wants entries of md_outside. `prefixes` gives the numbers of those that policies name."""

    def __init__(self, delta: Delta, prefixes: Callable[[], Mapping[IPNetwork, int]]) -> None:
        self._delta, self._prefixes = delta, prefixes
        self._nodes: dict[tuple[str, str], frozenset[str]] = {}
        self._told: Counter[str] = Counter()
        """How many nodes say that an address is theirs."""
        self._host: frozenset[str] = frozenset()

    def set_host(self, addresses: frozenset[str]) -> None:
        """The node's own addresses."""
        before, self._host = self._host, addresses
        self._want_addresses(before ^ addresses)

    def put_node(self, cluster: str, name: str, node: Node | None) -> None:
        """What a node says of itself now; None: it is gone."""
        addresses = frozenset(a.ip for a in (node.addresses or ()) if _is_address(a.ip)) if node else frozenset[str]()
        before = self._nodes.pop((cluster, name), frozenset())
        if addresses:
            self._nodes[cluster, name] = addresses
        self._told.update(addresses - before)
        for address in before - addresses:
            self._told[address] -= 1
            if not self._told[address]:
                del self._told[address]
        self._want_addresses(before ^ addresses)

    def want(self, network: IPNetwork, number: int | None) -> None:
        """A prefix that policies name (None: not any more). A node's own address is a node's, also if one names it."""
        if network.prefixlen == network.max_prefixlen and (number is None or number >= FIRST_CIDR):
            number = self._node(str(network.network_address)) or self._prefixes().get(network, number)
        entry = outside_entry(network, number or 0)
        self._delta.want(entry.map, entry.key, None if number is None else entry.value)

    def _want_addresses(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            self.want(ip_network(address), self._node(address))

    def _node(self, address: str) -> int | None:
        if address in self._host:
            return int(Reserved.HOST)
        return int(Reserved.REMOTE_NODE) if address in self._told else None


def _is_address(text: str) -> bool:
    try:
        return bool(ip_network(text))
    except ValueError:
        return False

"""Whether a remote cluster may say what it says: not over what is our own cluster's, only inside its allowance. Pure.

The answer depends on what stands now. `Territory` says which prefixes have become ours, so that whoever asked before
can ask again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network

from meshd.daemon.allowance import Allowance
from meshd.daemon.prefixindex import PrefixIndex
from wire.addresses import address_number, parse_address
from wire.records import IP, IPAddress, IPNetwork, Node

DEFAULT_ROUTE = "default-route"
NOT_ROUTABLE = "not-routable"
OUTSIDE_CIDRS = "outside-allowed-cidrs"
OUTSIDE_NAMESPACES = "outside-allowed-namespaces"
OWN_ADDRESS = "own-address"
OWN_NODE = "own-node"
OWN = frozenset({OWN_ADDRESS, OWN_NODE})
"""Reasons that go away when our own cluster gives something up."""
_NOWHERE = PrefixIndex(
    ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8")
)


class Territory:
    """The prefixes of our own cluster: nodes' addresses, PodCIDRs, pods' addresses; by who has them."""

    def __init__(self) -> None:
        self._index = PrefixIndex()
        self._by_claimant: dict[str, tuple[IPNetwork, ...]] = {}
        self._nodes: dict[str, frozenset[IPAddress]] = {}
        self._node_addresses: frozenset[IPAddress] = frozenset()
        self.node_texts: frozenset[str] = frozenset()
        """The addresses of our own nodes."""

    def set(self, claimant: str, prefixes: tuple[IPNetwork, ...]) -> tuple[list[IPNetwork], bool]:
        """What the claimant has now: the prefixes that became ours by it, and whether any may be ours no more."""
        before = self._by_claimant.pop(claimant, ())
        if prefixes:
            self._by_claimant[claimant] = prefixes
        if before == prefixes:
            return [], False
        for prefix in before:
            self._index.discard(prefix)
        grown = [prefix for prefix in prefixes if not any(self._index.containing(prefix))]
        for prefix in prefixes:
            self._index.add(prefix)
        return grown, any(not any(self._index.containing(prefix)) for prefix in before)

    def set_node(self, name: str, addresses: Iterable[IPAddress]) -> bool:
        """Addresses that tunnels to our own nodes end at. True if they changed."""
        before, after = self._nodes.pop(name, frozenset()), frozenset(addresses)
        if after:
            self._nodes[name] = after
        if before != after:
            self._node_addresses = frozenset().union(*self._nodes.values())
            self.node_texts = frozenset(map(str, self._node_addresses))
        return before != after

    def is_node(self, address: IPAddress) -> bool:
        return address in self._node_addresses

    def tables(self, version: int) -> Sequence[tuple[int, Mapping[int, int]]]:
        """What is ours, as PrefixIndex.tables has it."""
        return self._index.tables(version)

    def holds(self, version: int, number: int) -> bool:
        """Is this address, as a number, ours?"""
        return self._index.holds_number(version, number)

    def overlaps(self, prefix: IPNetwork) -> bool:
        return any(self._index.overlapping(prefix))


class Trust:
    """Judges records of remote clusters: None if believed, else the reason."""

    def __init__(self, allowance: Callable[[str], Allowance]) -> None:
        self.territory = Territory()
        self._allowance = allowance

    def ip(self, cluster: str, record: IP) -> str | None:
        if record.host_ip in self.territory.node_texts:
            return OWN_NODE
        if record.mask is None:
            return self.address(cluster, record.ip)
        return self.prefix(cluster, ip_network(record.text()))

    def judge(self, cluster: str) -> Callable[[IP, int, int], str | None]:
        """`ip` for very many addresses in a row, as long as nothing else changes; each with IP version and number."""
        nodes, refused = self.territory.node_texts, self._refused()
        allows_all = self._allowance(cluster).cidrs is None

        def judged(record: IP, version: int, number: int) -> str | None:
            if record.host_ip in nodes or not allows_all:
                return self.ip(cluster, record)
            for shift, table in refused[version]:
                if number >> shift in table:
                    return self.ip(cluster, record)
            return None

        return judged

    def _refused(self) -> dict[int, list[tuple[int, Mapping[int, int]]]]:
        return {version: [*_NOWHERE.tables(version), *self.territory.tables(version)] for version in (4, 6)}

    def node(self, cluster: str, record: Node) -> str | None:
        """A node is believed as a whole or not at all."""
        if any(self.territory.is_node(address) for address in node_addresses(record)):
            return OWN_NODE
        return next((reason for prefix in record.pod_cidrs() if (reason := self.prefix(cluster, prefix))), None)

    def namespace(self, cluster: str, namespace: str) -> str | None:
        allowed = self._allowance(cluster).namespaces
        return None if allowed is None or namespace in allowed else OUTSIDE_NAMESPACES

    def address(self, cluster: str, address: str) -> str | None:
        """A single address, of a pod or a backend."""
        version, number = address_number(address)
        if _NOWHERE.holds_number(version, number):
            return NOT_ROUTABLE
        allowed = self._allowance(cluster).cidrs
        if allowed is not None and not any(parse_address(address) in cidr for cidr in allowed):
            return OUTSIDE_CIDRS
        return OWN_ADDRESS if self.territory.holds(version, number) else None

    def prefix(self, cluster: str, prefix: IPNetwork) -> str | None:
        if prefix.prefixlen == 0:
            return DEFAULT_ROUTE
        if any(_NOWHERE.overlapping(prefix)):
            return NOT_ROUTABLE
        allowed = self._allowance(cluster).cidrs
        if allowed is not None and not any(_inside(prefix, cidr) for cidr in allowed):
            return OUTSIDE_CIDRS
        return OWN_ADDRESS if self.territory.overlaps(prefix) else None


def node_addresses(node: Node) -> Iterator[IPAddress]:
    """Those of its addresses that are any."""
    for entry in node.addresses or ():
        try:
            yield parse_address(entry.ip)
        except ValueError:
            continue


def _inside(prefix: IPNetwork, cidr: IPNetwork) -> bool:
    return (
        prefix.version == cidr.version
        and prefix.prefixlen >= cidr.prefixlen
        and prefix.supernet(new_prefix=cidr.prefixlen) == cidr
    )

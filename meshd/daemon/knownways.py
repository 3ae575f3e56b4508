"""What the kernel has said of the ways to nodes. An event makes it asked again, for what the event may have moved: a
node's address inside the network of a route that came or went, or of any route by a device that changed; what went by
that device, or from an address that came or went. Rules, and whatever else is not understood, are about everything.
"""

from collections.abc import Set

from meshd.daemon.netevents import EVERYTHING, Concern, Networks
from routing.lookup import LEARNED, Lookup
from routing.plan import Hop
from wire.records import IPAddress, IPNetwork


class KnownWays:
    """`hops` and `learned` as in Surroundings. What did not move stays the same object."""

    def __init__(self) -> None:
        self.hops: dict[IPAddress, Hop | None] = {}
        self.learned: dict[IPNetwork, Hop] = {}
        self.devices: dict[int, str] = {}
        """Those that some way leads to, with their names."""
        self._is_valid = False

    def forget(self) -> None:
        """An event was missed: everything is asked next time."""
        self._is_valid = False

    def follow(self, addresses: Set[IPAddress], concern: Concern) -> None:
        """Brings both up to date for the nodes of these addresses. Raises OSError."""
        if not self._is_valid:
            concern = EVERYTHING
        self._is_valid = False
        with Lookup() as lookup:
            over = set() if concern.everything else lookup.prefixes_over(concern.devices)
            answers = lookup.hops(self._doubtful(addresses, concern, over))
            learned = lookup.learned() if addresses and self._moves_learned(concern, over) else self.learned
        self._take(addresses, answers, learned if addresses else {})
        self._is_valid = True

    def _doubtful(self, addresses: Set[IPAddress], concern: Concern, over: Set[IPNetwork]) -> list[IPAddress]:
        if concern.everything:
            return list(addresses)
        found = {address for address in addresses if address not in self.hops}
        networks = [network for network in concern.networks | over if not _is_nodes_never(network)]
        single = {network.network_address for network in networks if network.prefixlen == network.max_prefixlen}
        found |= single & self.hops.keys()
        if len(single) < len(networks) or concern.sources or not concern.devices.isdisjoint(self.devices):
            moved, hops = Networks.of(networks), self.hops.items()
            found |= {address for address, hop in hops if _goes_by(hop, concern) or address in moved}
        return list(found)

    def _moves_learned(self, concern: Concern, over: Set[IPNetwork]) -> bool:
        if concern.everything or not concern.protocols.isdisjoint(LEARNED):
            return True
        return not over.isdisjoint(self.learned) or any(_goes_by(hop, concern) for hop in self.learned.values())

    def _take(
        self, addresses: Set[IPAddress], answers: dict[IPAddress, Hop | None], learned: dict[IPNetwork, Hop]
    ) -> None:
        hops, known = self.hops, self.learned
        if any(address not in self.hops or self.hops[address] != hop for address, hop in answers.items()):
            self.hops = self.hops | answers
        if len(self.hops) > len(addresses):
            self.hops = {address: hop for address, hop in self.hops.items() if address in addresses}
        if learned != self.learned:
            self.learned = learned
        if self.hops is not hops or self.learned is not known:
            several = set(self.hops.values()) | set(self.learned.values())
            self.devices = {hop.ifindex: hop.device for hop in several if hop is not None}


def _is_nodes_never(network: IPNetwork) -> bool:
    """Every device has routes to such networks."""
    return network.version == 6 and (network.is_link_local or network.is_multicast)


def _goes_by(hop: Hop | None, concern: Concern) -> bool:
    return hop is not None and (hop.ifindex in concern.devices or hop.source in concern.sources)

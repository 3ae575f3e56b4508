"""What the socket says of the way of a flow: whose both ends are, and what carries a packet to the destination, as the
programs would find it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, cast

from datapath.description import decode
from datapath.entries import Entry, cidr_entry, ipcache_entry
from meshd.daemon.backends import PROTOCOLS
from meshd.daemon.inspection import Inspection
from meshd.daemon.parties import Parties
from routing.plan import Route
from wire.records import IPAddress

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

Json = dict[str, Any]


class FlowView:
    """Reads a daemon; changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._parties, self._inspection = Parties(daemon), Inspection(daemon)

    def flow(self, source: str, destination: str, protocol: str, port: str) -> Json:
        """`source` and `destination`: an address, or [CLUSTER/]NAMESPACE/POD."""
        try:
            one, other = self._parties.address(source), self._parties.address(destination)
        except ValueError as error:
            return {"error": str(error)}
        ends = [self._parties.who(address) | self._inspection.explain_ip(str(address)) for address in (one, other)]
        service = self._daemon.mesh.services.owner((other, int(port), PROTOCOLS.get(protocol.upper(), 0)))
        return {
            "instance": self._daemon.config.name,
            "source_is_here": self._is_here(one),
            "source": ends[0],
            "destination": ends[1],
            "service": service,
            "way": {"kind": "service", "reason": f"a backend of {service} is chosen"} if service else self._way(other),
        }

    def _is_here(self, address: IPAddress) -> bool:
        return str(address) in self._daemon.mesh.addresses.local_pods or address in (
            self._daemon.mesh.nodes.own_address(4),
            self._daemon.mesh.nodes.own_address(6),
        )

    def _way(self, destination: IPAddress) -> Json:
        if str(destination) in self._daemon.mesh.addresses.local_pods:
            without = self._daemon.pods_without_interface().get(destination.packed)
            return {"kind": "local", "reason": f"a pod of this node; {without}" if without else "a pod of this node"}
        peer = next(self._peers(destination), None)
        if peer is None or not peer["remote"]:
            return {"kind": "cni", "reason": "no other cluster's: the CNI and the node's own routes decide"}
        if peer.get("unreachable"):
            return {"kind": "unreachable", "reason": "its cluster is withdrawn: dropped, and the sender is told"}
        node = cast(IPAddress | None, peer["tunnel"])
        claimant = self._daemon.mesh.nodes.claimant(node) if node else ""
        if not claimant:
            return {"kind": "tunnel", "reason": f"node {node} was not heard of yet: the default tunnel", "node": ""}
        routes = self._daemon.mesh.nodes.routes.get(claimant, ())
        route = next((route for route in routes if route.prefix.version == destination.version), None)
        return _shown(route, claimant)

    def _peers(self, address: IPAddress) -> Iterator[dict[str, Any]]:
        """What md_ipcache and md_cidrs say of it, the first one counts."""
        realised = self._daemon.maps.delta.realised
        exact = ipcache_entry(address, identity=0, tunnel=None, remote=False)
        prefixes = (ip_network((address, length), strict=False) for length in range(address.max_prefixlen, -1, -1))
        wider = (cidr_entry(prefix, identity=0, tunnel=None, remote=True) for prefix in prefixes)
        for entry in (exact, *wider):
            if value := realised[entry.map].get(entry.key):
                yield decode(Entry(entry.map, entry.key, value))


def _shown(route: Route | None, claimant: str) -> Json:
    if route is None:
        return {"kind": "unreachable", "reason": f"{claimant} has no PodCIDR of that family", "node": claimant}
    device = route.hop.device if route.hop else route.end.device if route.end else None
    mtu = route.hop.mtu if route.hop else route.end.mtu if route.end else None
    via = route.next_hop or route.endpoint
    more = {"node": claimant, "prefix": str(route.prefix), "device": device, "underlay_mtu": mtu}
    return {"kind": route.kind, "reason": route.reason, "via": str(via) if device else None, **more}

"""The CIDR map: PodCIDRs of remote nodes, and the prefixes among the ip records, as fallback for addresses that no
record names. Pure. Our own cluster's PodCIDRs are claimed too, so that nobody can take them; they need no entry.
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network

from datapath.entries import Entry, cidr_entry
from identity.claims import Claims, Rank
from identity.numbering import Reserved
from meshd.daemon.addresses import remote_identity
from meshd.daemon.wishes import Wishes
from routing.plan import Route, RouteKind, plan_node
from wire.records import IP, IPAddress, IPNetwork, Node


class Prefixes:
    """Incremental: `update_nodes` and `update_ips` cost what changed. A claimant is `<cluster>/<node or prefix>`."""

    def __init__(self, own: str, node: str, rank: Rank, tunnel: Callable[[IP], IPAddress | None]) -> None:
        self._own, self._node, self._tunnel = own, node, tunnel
        self._claims: Claims[IPNetwork, Entry | None] = Claims(lambda claimant: rank(claimant.partition("/")[0]))
        self._claimed: dict[str, tuple[IPNetwork, ...]] = {}
        self.routes: dict[str, tuple[Route, ...]] = {}
        """The plan by `<cluster>/<node>`, for those who show it."""

    def update_nodes(self, cluster: str, names: Iterable[str], lookup: Callable[[str], Node | None]) -> Wishes:
        wishes: Wishes = {}
        for name in names:
            claimant = f"{cluster}/{name}"
            node = lookup(name)
            routes = plan_node(node, cluster=self._own, node_name=self._node) if node else ()
            self.routes[claimant] = routes
            if not routes:
                del self.routes[claimant]
            wishes |= self._claim(claimant, {route.prefix: _route_entry(route) for route in routes})
        return wishes

    def update_ips(self, cluster: str, names: Iterable[str], lookup: Callable[[str], IP | None]) -> Wishes:
        """`names` are those of prefixes (`10.0.0.0/24`)."""
        wishes: Wishes = {}
        for name in names:
            record = lookup(name)
            prefix = ip_network(name)
            claims = {prefix: self._ip_entry(prefix, cluster, record)} if record else {}
            wishes |= self._claim(f"{cluster}/{name}", claims)
        return wishes

    def _ip_entry(self, prefix: IPNetwork, cluster: str, record: IP) -> Entry:
        remote = cluster != self._own
        return cidr_entry(
            prefix,
            identity=remote_identity(record.id) if remote else record.id,
            tunnel=self._tunnel(record) if remote else None,
            remote=remote,
        )

    def _claim(self, claimant: str, claims: Mapping[IPNetwork, Entry | None]) -> Wishes:
        before = self._claimed.pop(claimant, ())
        if claims:
            self._claimed[claimant] = tuple(claims)
        wishes: Wishes = {}
        for prefix in dict.fromkeys((*before, *claims)):
            if prefix in claims:
                self._claims.put(prefix, claimant, claims[prefix])
            else:
                self._claims.drop(prefix, claimant)
            winner = self._claims.winner(prefix)
            entry = winner[1] if winner else None
            key = cidr_entry(prefix, identity=0, tunnel=None, remote=True)
            wishes[key.map, key.key] = entry.value if entry else None
        return wishes


def _route_entry(route: Route) -> Entry | None:
    """None: the prefix is the CNI's business, or cannot be reached."""
    if route.kind is not RouteKind.TUNNEL:
        return None
    return cidr_entry(route.prefix, identity=Reserved.WORLD, tunnel=route.endpoint, remote=True)

"""The node's own routes to remote PodCIDRs: from the plan, and from who is believed about a prefix; and this node's
PodCIDRs for a routing daemon. Pure.
"""

from collections.abc import Iterator, Set
from ipaddress import ip_network

from meshd.daemon.nodes import Nodes
from meshd.daemon.prefixes import Prefixes
from meshd.daemon.wishes import Wishes
from routing.hostroute import host_route
from wire.records import IPAddress, IPNetwork

ROUTES = "routes"
"""The name of the map that the routes' reconciler sees: prefix → way, both as text."""
EXPORTS = "exports"
"""The same for what a routing daemon shall announce: prefix → EXPORTED."""
EXPORTED = b"unreachable"
BOTH = frozenset((ROUTES, EXPORTS))


class WantedRoutes:
    """Incremental: looks at what the two moved since the last time. `only` says which of the maps are wanted."""

    def __init__(self, nodes: Nodes, prefixes: Prefixes, only: Set[str] = BOTH) -> None:
        self._nodes, self._prefixes, self._only = nodes, prefixes, only
        self._exported: frozenset[IPNetwork] = frozenset()
        self._planned: dict[str, frozenset[IPNetwork]] = {}
        self._sources: dict[int, IPAddress | None] = {}

    def update(self) -> Wishes:
        """None for prefixes that need no route of ours."""
        moved = self._prefixes.moved | set(self._of_moved_nodes())
        self._prefixes.moved = set()
        sources = {version: self._nodes.own_address(version) for version in (4, 6)}
        if sources != self._sources:
            self._sources = sources
            moved |= {prefix for prefixes in self._planned.values() for prefix in prefixes}
        wishes: Wishes = dict(wish for prefix in moved for wish in self._wishes(prefix)) if ROUTES in self._only else {}
        return wishes | (dict(self._export()) if EXPORTS in self._only else {})

    def _export(self) -> Iterator[tuple[tuple[str, bytes], bytes | None]]:
        before, self._exported = self._exported, self._nodes.own_prefixes()
        for prefix in before ^ self._exported:
            yield (EXPORTS, str(prefix).encode()), EXPORTED if prefix in self._exported else None

    def _of_moved_nodes(self) -> Iterator[IPNetwork]:
        moved, self._nodes.moved = self._nodes.moved, set()
        for claimant in moved:
            prefixes = frozenset(route.prefix for route in self._nodes.routes.get(claimant, ()))
            yield from prefixes | self._planned.pop(claimant, frozenset())
            if prefixes:
                self._planned[claimant] = prefixes

    def _wishes(self, prefix: IPNetwork) -> Iterator[tuple[tuple[str, bytes], bytes | None]]:
        key = (ROUTES, str(prefix).encode())
        claimant = self._prefixes.believed(prefix)
        if claimant in self._nodes.waiting:
            return
        routes = self._nodes.routes.get(claimant, ()) if claimant else ()
        for route in routes:
            if route.prefix == prefix and (made := host_route(route, source=self._sources[prefix.version])):
                yield key, made.way.encode()
                return
        yield key, None


def prefix_of(key: bytes) -> IPNetwork:
    """The prefix behind a key of the map."""
    return ip_network(key.decode())

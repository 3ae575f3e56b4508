"""The node map: whose an address of a node is, and what carries packets there. Pure but for what the kernel was asked,
which is given in (routing.plan.Surroundings); the plan of each node is kept for those who show it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import islice
from typing import TypeVar

from datapath.entries import Direct, Entry, inner_mtu, node_entry
from identity.claims import Claims, Rank
from meshd.daemon.wishes import Wishes
from routing.plan import Route, RouteKind, Settings, Surroundings, needed_hops, needed_tunnel, plan_node
from routing.tunnel import ANNOTATION, Tunnel
from wire.records import IPAddress, IPNetwork, Node

K = TypeVar("K")
V = TypeVar("V")
MAX_TUNNELS = 8
"""Tunnel devices that others can make us have, besides our own."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the kernel has to be asked for."""

    tunnels: frozenset[Tunnel] = frozenset()
    refused: frozenset[Tunnel] = frozenset()
    """More than MAX_TUNNELS."""
    hops: frozenset[IPAddress] = frozenset()


class Nodes:
    """Incremental: `update` costs the nodes that changed. What else moves (surroundings, settings, what ways carry)
    marks the nodes that it is about, which may be all, and `replan` takes so many of them at a time.
    """

    def __init__(self, settings: Settings, rank: Rank) -> None:
        self._settings = settings
        self._rank: Rank = lambda claimant: rank(claimant.partition("/")[0])
        self._claims: Claims[IPAddress, Entry | None] = Claims(self._rank)
        self._claimed: dict[str, tuple[IPAddress, ...]] = {}
        self._nodes: dict[str, Node] = {}
        self._surroundings = Surroundings()
        self.routes: dict[str, tuple[Route, ...]] = {}
        """The plan by `<cluster>/<node>`."""
        self._by_tunnel: dict[Tunnel, set[str]] = {}
        self._by_hop: dict[IPAddress, tuple[str, ...]] = {}
        """What the kernel has to be asked for, and for which nodes."""
        self._needs: Needs | None = None
        self._direct: dict[str, set[str]] = {}
        self._direct_turns: dict[str, int] = {}
        self._turn = 0
        self._due: dict[str, None] = {}
        """Nodes that are to be planned anew."""
        self.moved: set[str] = set()
        """Nodes that were planned since somebody last cleared it."""
        self.path_of: Callable[[Node], int] = lambda node: 0
        """What the way to a node carries, as `plan_node` takes it; say so with `measured` or `told` when it changes."""
        self.waiting: set[str] = set()
        """Nodes that the kernel was not asked about yet: nothing is wished for them, what stands for them stays."""

    @property
    def surroundings(self) -> Surroundings:
        return self._surroundings

    @property
    def settings(self) -> Settings:
        return self._settings

    def own_address(self, version: int) -> IPAddress | None:
        """This node's, as its record has it."""
        node = self._nodes.get(f"{self._settings.cluster}/{self._settings.node}")
        return node.node_ip(version) if node else None

    def own_prefixes(self) -> frozenset[IPNetwork]:
        """This node's PodCIDRs, as its record has them."""
        node = self._nodes.get(f"{self._settings.cluster}/{self._settings.node}")
        return frozenset(node.pod_cidrs()) if node else frozenset()

    @property
    def own_tunnel(self) -> str:
        """What this node's record announces; "" if nothing is known of it."""
        node = self._nodes.get(f"{self._settings.cluster}/{self._settings.node}")
        return (node.annotations or {}).get(ANNOTATION, "") if node else ""

    def claimant(self, address: IPAddress) -> str:
        """`<cluster>/<node>` that is believed to have the address, "" if none says so."""
        winner = self._claims.winner(address)
        return winner[0] if winner else ""

    def direct(self, cluster: str) -> Set[str]:
        """Those nodes of a cluster to which some packets go without a tunnel."""
        return self._direct.get(cluster, frozenset())

    def direct_turn(self, cluster: str) -> int:
        """Another number whenever these are others; 0 if there are none."""
        return self._direct_turns.get(cluster, 0)

    def _note_direct(self, claimant: str, is_direct: bool) -> None:
        cluster, _, name = claimant.partition("/")
        names = self._direct.setdefault(cluster, set()) if is_direct else self._direct.get(cluster, set())
        if is_direct is (name in names):
            return
        (names.add if is_direct else names.discard)(name)
        self._turn += 1
        self._direct_turns[cluster] = self._turn
        if not names:
            del self._direct[cluster], self._direct_turns[cluster]

    def conflicts(self) -> Iterable[tuple[IPAddress, list[str]]]:
        """Node addresses that several nodes claim, with these nodes, the believed one first."""
        return self._claims.conflicts()

    def update(self, cluster: str, names: Iterable[str], lookup: Callable[[str], Node | None]) -> Wishes:
        wishes: Wishes = {}
        for name in names:
            claimant, node = f"{cluster}/{name}", lookup(name)
            if known := self._nodes.pop(claimant, None):
                self._need_not(claimant, known)
            if node is not None:
                self._nodes[claimant] = node
                self._need(claimant, node)
            wishes |= self._plan(claimant)
        return wishes

    def _need(self, claimant: str, node: Node) -> None:
        if tunnel := needed_tunnel(node, self._settings):
            if tunnel not in self._by_tunnel:
                self._needs = None
            self._by_tunnel.setdefault(tunnel, set()).add(claimant)
        for hop in needed_hops(node, self._settings):
            if hop not in self._by_hop:
                self._needs = None
            self._by_hop[hop] = (*self._by_hop.get(hop, ()), claimant)

    def _need_not(self, claimant: str, node: Node) -> None:
        if tunnel := needed_tunnel(node, self._settings):
            self._by_tunnel[tunnel].discard(claimant)
            if not self._by_tunnel[tunnel]:
                del self._by_tunnel[tunnel]
                self._needs = None
        for hop in needed_hops(node, self._settings):
            self._by_hop[hop] = tuple(other for other in self._by_hop[hop] if other != claimant)
            if not self._by_hop[hop]:
                del self._by_hop[hop]
                self._needs = None

    def surround(self, surroundings: Surroundings) -> None:
        """The kernel was asked (again)."""
        before, self._surroundings = self._surroundings, surroundings
        claimants: set[str] = set()
        for tunnel in _changed(before.ends, surroundings.ends):
            claimants |= self._by_tunnel.get(tunnel, set())
        for hop in _changed(before.hops, surroundings.hops):
            claimants.update(self._by_hop.get(hop, ()))
        if learned := set(_changed(before.learned, surroundings.learned)):
            asked = {claimant for claimants in self._by_hop.values() for claimant in claimants}
            claimants |= {name for name in asked if any(route.prefix in learned for route in self.routes[name])}
        self._due |= dict.fromkeys(sorted(claimants))

    def measured(self, clusters: Set[str]) -> None:
        """The ways to the nodes of these carry something else."""
        self._due |= dict.fromkeys(claimant for claimant, node in self._nodes.items() if node.cluster in clusters)

    def told(self, addresses: Iterable[IPAddress]) -> None:
        """The ways to the nodes of these addresses carry something else. These come before others that are due."""
        self._due = dict.fromkeys(filter(None, map(self.claimant, addresses))) | self._due

    def configure(self, settings: Settings) -> None:
        """Other modes."""
        before, self._settings = self._settings, settings
        self._by_tunnel.clear()
        self._by_hop.clear()
        self._needs = None
        for claimant, node in self._nodes.items():
            self._need(claimant, node)
        same = (before.underlay_version, before.subnets) == (settings.underlay_version, settings.subnets)
        for claimant, node in self._nodes.items():
            changed = not same or before.mode_of(node.cluster) is not settings.mode_of(node.cluster)
            if changed and node.cluster != settings.cluster:
                self._due[claimant] = None

    @property
    def is_due(self) -> bool:
        """Nodes wait for `replan`."""
        return bool(self._due)

    def replan(self, most: int = sys.maxsize) -> Wishes:
        """Plans so many of the nodes anew that are due."""
        wishes: Wishes = {}
        for claimant in list(islice(self._due, most)):
            wishes |= self._plan(claimant)
        return wishes

    def needs(self) -> Needs:
        """Beyond MAX_TUNNELS kinds and ports of tunnels, those of the fewest nodes get none."""
        if self._needs is None:
            tunnels = sorted(self._by_tunnel, key=lambda tunnel: (-len(self._by_tunnel[tunnel]), tunnel))
            most, rest = frozenset(tunnels[:MAX_TUNNELS]), frozenset(tunnels[MAX_TUNNELS:])
            self._needs = Needs(most, rest, frozenset(self._by_hop))
        return self._needs

    def _plan(self, claimant: str) -> Wishes:
        node = self._nodes.get(claimant)
        entries: dict[IPAddress, Entry | None] = {}
        self._due.pop(claimant, None)
        self.waiting.discard(claimant)
        self.moved.add(claimant)
        routes: tuple[Route, ...] = ()
        if node is None:
            self.routes.pop(claimant, None)
        else:
            self.routes[claimant] = routes = plan_node(node, self._settings, self._surroundings, self.path_of(node))
            if self._is_known(node):
                entries = {address: self._entry(address, node, routes) for address in _addresses(node)}
            else:
                self.waiting.add(claimant)
                entries = dict.fromkeys(_addresses(node))
        self._note_direct(claimant, any(route.kind is RouteKind.DIRECT for route in routes))
        before = self._claimed.pop(claimant, ())
        if entries:
            self._claimed[claimant] = tuple(entries)
        wishes: Wishes = {}
        for address in dict.fromkeys((*before, *entries)):
            if address in entries:
                self._claims.put(address, claimant, entries[address])
            else:
                self._claims.drop(address, claimant)
            winner = self._claims.winner(address)
            key = node_entry(address, cluster_id=0, remote=True)
            if winner is None:
                wishes[key.map, key.key] = None
            elif winner[1] is not None:
                wishes[key.map, key.key] = winner[1].value
        return wishes

    def _is_known(self, node: Node) -> bool:
        tunnel = needed_tunnel(node, self._settings)
        hops = needed_hops(node, self._settings)
        asked = self._surroundings
        return (tunnel is None or tunnel in asked.ends) and all(hop in asked.hops for hop in hops)

    def _entry(self, address: IPAddress, node: Node, routes: Iterable[Route]) -> Entry:
        if node.cluster == self._settings.cluster:
            here = node.name == self._settings.node
            return node_entry(address, cluster_id=node.cluster_id, remote=False, here=here)
        end = next((route.end for route in routes if route.kind is RouteKind.TUNNEL and route.end), None)
        if end is None and not node.pod_cidrs():  # pods of a node without PodCIDRs: Cilium's other IPAMs
            found = self._surroundings.ends.get(tunnel) if (tunnel := needed_tunnel(node, self._settings)) else None
            end = None if isinstance(found, str) else found
            if end is not None and (path := self.path_of(node)):
                end = replace(end, mtu=min(end.mtu, path))
        return node_entry(
            address,
            cluster_id=node.cluster_id,
            remote=True,
            tunnel_ifindex=end.ifindex if end else 0,
            tunnel_mtu=inner_mtu(end.mtu, self._settings.underlay_version) if end else 0,
            direct4=_direct(4, routes),
            direct6=_direct(6, routes),
        )


def _changed(before: Mapping[K, V], after: Mapping[K, V]) -> Iterator[K]:
    """Keys that came, went or lead to something else."""
    if before is not after:
        yield from (key for key in before if key not in after)
        yield from (key for key, value in after.items() if key not in before or before[key] != value)


def _direct(version: int, routes: Iterable[Route]) -> Direct | None:
    for route in routes:
        if route.kind is RouteKind.DIRECT and route.prefix.version == version and route.hop and route.next_hop:
            return Direct(route.hop.ifindex, route.next_hop, route.hop.mtu)
    return None


def _addresses(node: Node) -> list[IPAddress]:
    """Every address that packets of the node may come from."""
    found = []
    for entry in node.addresses or ():
        if entry.type != "CiliumInternalIP":  # in the PodCIDR: a pod to us
            try:
                found.append(ip_address(entry.ip))
            except ValueError:
                continue
    return found

"""From what the clusters say to what this node's maps shall hold: takes the keys that changed in the store, gives
what is desired to the reconcilers, and says what may be pruned because everybody who owns it has been heard.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Set
from ipaddress import ip_address
from typing import cast

from datapath.entries import Entry
from datapath.maglev import DEFAULT_SIZE
from globalsvc.preferences import Balancing
from meshd.daemon.addresses import MAP as IPCACHE
from meshd.daemon.addresses import Addresses
from meshd.daemon.allowance import DEFAULT_ALLOWANCE, Allowance
from meshd.daemon.backends import endpoint_of
from meshd.daemon.inheritance import Inheritance
from meshd.daemon.members import Members
from meshd.daemon.merging import Merging
from meshd.daemon.nodes import Nodes
from meshd.daemon.prefixes import Prefixes
from meshd.daemon.restoration import Restoration
from meshd.daemon.services import Services
from meshd.daemon.store import Dirty, Store
from meshd.daemon.suspicion import Suspicion
from meshd.daemon.wantedroutes import BOTH, WantedRoutes
from meshd.daemon.wishes import Wishes
from meshd.reconcile.delta import UNKNOWN, Delta
from meshd.reconcile.target import Item
from routing.plan import Settings, Surroundings
from wire.keys import SHARED_KINDS, Kind
from wire.records import IP, IPNetwork, Node

PODS = "pods"
"""The name of the map that the endpoint reconciler sees: packed address → identity (four bytes), policed (one)."""
SERVICE_MAPS = ("md_svc4", "md_svc6", "md_affm", "md_maglev", "md_be4", "md_be6")
SLICE = 512
"""What is taken in one round, in addresses: two or three milliseconds, for which everybody else waits. Only lists fill
it: of what is told meanwhile less comes between two rounds (connection.BRIEF).
"""
REPLANNED = 32
"""So many nodes take as long to plan anew."""


class Mesh:
    """`refresh` after the store became dirty; the reconcilers' deltas follow."""

    def __init__(
        self,
        store: Store,
        members: Members,
        *,
        node: str,
        maps: Delta,
        pods: Delta,
        routes: Delta | None = None,
        route_maps: Set[str] = BOTH,
        underlay_version: int = 4,
        balancing: Balancing = Balancing.RANDOM,
        table_size: int = DEFAULT_SIZE,
        allowance: Callable[[str], Allowance] = lambda cluster: DEFAULT_ALLOWANCE,
    ) -> None:
        """`routes` takes those of `route_maps` (wantedroutes.py)."""
        self._store, self._members, self._node = store, members, node
        self._own = members.cluster
        self._maps, self._pods, self._routes, self._route_maps = maps, pods, routes, route_maps
        self.withdrawn: set[str] = set()
        """Clusters that are lost: `withdraw` and `welcome` change it."""
        self.suspicion = Suspicion(
            store,
            self._own,
            allowance,
            holder=lambda version, number: self.prefixes.holder(version, number),
            rank=members.rank,
        )
        self.addresses = Addresses(
            self._own,
            members.rank,
            self.suspicion.believed_ip,
            held=maps.desired[IPCACHE].keys(),
            withdrawn=self.withdrawn,
            underlay_version=underlay_version,
        )
        self.nodes = Nodes(Settings(self._own, node, underlay_version=underlay_version), members.rank)
        self.prefixes = Prefixes(
            self._own,
            members.rank,
            self.addresses.tunnel,
            withdrawn=self.withdrawn,
            underlay_version=underlay_version,
        )
        self.host_routes = WantedRoutes(self.nodes, self.prefixes, route_maps)
        self.merging = Merging(store, self.suspicion, own=self._own, node=node, withdrawn=self.withdrawn)
        self.services = Services(self.merging.renew, balancing=balancing, table_size=table_size)
        self.listeners: list[Callable[[Dirty], None]] = []
        """Called with what was taken from the store, once it is known here."""
        self._policed: Set[int] = frozenset()
        self._withheld: Set[int] = frozenset()
        self._inherited: Inheritance | None = None

    def restore(self, restored: Restoration) -> None:
        """What the maps held at the start. Before the first `refresh`."""
        self._inherited = Inheritance(restored, self._store, self._members, self.withdrawn)
        self.merging.restored = restored.services
        self._wish(self.services.restore(restored.services))

    @property
    def restored(self) -> bool:
        """Everything that was found at the start has been spoken of, or is pruned."""
        return self._inherited is None

    def want(self, entry: Entry) -> None:
        """Something that no cluster says, such as this node's own settings."""
        self._maps.want(entry.map, entry.key, entry.value)

    def surround(self, surroundings: Surroundings) -> None:
        """What the kernel says of the ways to other nodes."""
        self.nodes.surround(surroundings)

    def configure(self, settings: Settings) -> None:
        """How the nodes of other clusters shall be reached."""
        self.nodes.configure(settings)

    def refuse(self, backends: Set[Item]) -> None:
        """The entries of these backends, and of no others, could not be written."""
        desired = self._maps.desired
        entries = [Entry(map, key, desired[map][key]) for map, key in backends if key in desired[map]]
        self._wish(self.services.refuse(frozenset(map(endpoint_of, entries))))

    def withdraw(self, cluster: str) -> None:
        """Its backends leave every service; its addresses stay known and become unreachable."""
        if cluster not in self.withdrawn:
            self.withdrawn.add(cluster)
            self.suspicion.reconsider(cluster)

    def welcome(self, cluster: str) -> None:
        """It is there again, or gone for good."""
        if cluster in self.withdrawn:
            self.withdrawn.discard(cluster)
            self.suspicion.reconsider(cluster)

    def leave(self, cluster: str) -> None:
        """Nothing of it stays; what it had said was drained from the store."""
        self.withdrawn.discard(cluster)
        self.suspicion.forget(cluster)
        self.addresses.forget(cluster)

    def refresh(self, now: float = 0.0) -> bool:
        """Brings desired up to date with the store, in slices; True if there is more. `now` is monotonic, in seconds.

        Our own cluster is heard first: until then nobody can say what it claims for itself.
        """
        self.suspicion.now = self.services.now = now
        own_heard = self._store.synced(self._own, SHARED_KINDS)
        dirty = self._store.take(SLICE, only=None if own_heard else self._own)
        self._wish(self._changes(dirty))
        self._wish(self.nodes.replan(REPLANNED))
        for listener in self.listeners:
            listener(dirty)
        if self._routes is not None:
            for (map, key), way in self.host_routes.update().items():
                self._routes.want(map, key, way)
        if self.nodes.is_due or any(own_heard or cluster == self._own for cluster, _ in self._store.dirty):
            return True
        if own_heard:
            self._release_restored()
        return False

    def _changes(self, dirty: Dirty) -> Wishes:
        wishes: Wishes = {}
        services: set[str] = set()
        for kind in (Kind.NODE, Kind.IP):
            for prefix in self.suspicion.own_changed(kind, dirty.get((self._own, kind), ())):
                self._reconsider_around(prefix)
        for (cluster, kind), names in dirty.items():
            if kind in (Kind.SERVICE, Kind.LOCAL_SERVICE):
                if kind is Kind.LOCAL_SERVICE or cluster != self._own:
                    services |= names
            elif kind is Kind.NODE:
                wishes |= self.prefixes.update_nodes(cluster, names, self._nodes(cluster))
                wishes |= self.nodes.update(cluster, names, self._nodes(cluster))
                if cluster == self._own and self._node in names:
                    self._place()
                    services |= self.merging.move()
            elif kind is Kind.IP:
                prefixes = [name for name in names if "/" in name]
                addresses = [name for name in names if "/" not in name] if prefixes else list(names)
                believed = self.suspicion.believed_ips(cluster, addresses)
                self._maps.want_all(IPCACHE, self.addresses.update(cluster, believed))
                wishes |= self.prefixes.update_ips(cluster, prefixes, self._ips(cluster))
                if cluster == self._own:
                    self._want_pods(addresses)
        turned, self.prefixes.turned = self.prefixes.turned, {}
        for prefix, before in turned.items():
            self.suspicion.turned(prefix, before)
        return wishes | self.services.update(sorted(services))

    def _reconsider_around(self, prefix: IPNetwork) -> None:
        for claimant in list(self.prefixes.claimants_around(prefix)):
            cluster, _, name = claimant.partition("/")
            for kind in (Kind.NODE, Kind.IP):
                self._store.touch(cluster, kind, [name])

    def _place(self) -> None:
        """This node's own record changed: perhaps other pods are its now."""
        node = cast(Node | None, self._store.record(self._own, Kind.NODE, self._node))
        before = set(self.addresses.local_pods)
        records = self._store.clusters[self._own].shelf(Kind.IP).records.values()
        self.addresses.place(_node_ips(node), cast(Iterable[IP], records))
        self._want_pods(before | set(self.addresses.local_pods))

    def police(self, policed: Set[int], withheld: Set[int], moved: Set[int]) -> None:
        """Policies hold for pods of the identities `policed`; of those `withheld` nobody knows yet whether they do. For
        the ones of `moved` that is new, or past.
        """
        self._policed, self._withheld = policed, withheld
        self._want_pods([name for name, identity in self.addresses.local_pods.items() if identity in moved])

    def _want_pods(self, names: Iterable[str]) -> None:
        for name in names:
            identity = self.addresses.local_pods.get(name)
            key = ip_address(name).packed
            held = self._pods.realised[PODS].get(key)
            if identity in self._withheld and held != UNKNOWN:
                self._pods.want(PODS, key, held)  # a new pod is not delivered to, another one stays as it was
            elif identity is not None:
                self._pods.want(PODS, key, identity.to_bytes(4, sys.byteorder) + bytes([identity in self._policed]))
            elif key in self._pods.desired[PODS]:  # else it may be a pod whose node, ours, was not heard yet
                self._pods.want(PODS, key, None)

    def _nodes(self, cluster: str) -> Callable[[str], Node | None]:
        return lambda name: self.suspicion.believed_node(cluster, name)

    def _ips(self, cluster: str) -> Callable[[str], IP | None]:
        return lambda name: self.suspicion.believed_ip(cluster, name)

    def _wish(self, wishes: Wishes) -> None:
        by_map: defaultdict[str, dict[bytes, bytes | None]] = defaultdict(dict)
        for (map, key), value in wishes.items():
            by_map[map][key] = value
        for map, wanted in by_map.items():
            self._maps.want_all(map, wanted)

    def _release_restored(self) -> None:
        """What was found at the start goes as far as those have been heard who might own it."""
        inherited = self._inherited
        if inherited is None or not inherited.has_moved(waiting=bool(self.nodes.waiting)):
            return
        self._wish(self.services.retain(inherited.may_stay))
        self._prune(inherited)
        if inherited.all_heard() and not self.nodes.waiting:
            self.services.forget_restored()
            self._inherited = self.merging.restored = None

    def _prune(self, inherited: Inheritance) -> None:
        if inherited.services_heard():
            for map in SERVICE_MAPS:
                self._maps.prune(map, lambda key, value: True)
        if inherited.nodes_heard():
            self._maps.prune("md_cidrs", lambda key, value: True)
            if not self.nodes.waiting:
                self._maps.prune("md_node", lambda key, value: True)
                if self._routes is not None:
                    for map in self._route_maps:
                        self._routes.prune(map, lambda key, value: True)
        if inherited.pods_heard():
            self._pods.prune(PODS, lambda key, value: True)
        self._maps.prune(IPCACHE, lambda key, value: inherited.address_may_go(value))


def _node_ips(node: Node | None) -> frozenset[str]:
    return frozenset(address.ip for address in (node.addresses or ()) if address.ip) if node else frozenset()

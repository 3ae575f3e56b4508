"""Stands between the store and the merges: gives out what is believed of the remote clusters, keeps account of the
rest, and lets judge again whatever a change of our own cluster or of an allowance may concern.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_network
from typing import TypeVar, cast

from msgspec.structs import replace

from identity.claims import Rank
from meshd.daemon.allowance import Allowance
from meshd.daemon.quarantine import Quarantine
from meshd.daemon.store import Store
from meshd.daemon.strays import Strays
from meshd.daemon.trust import OWN, Trust, node_addresses
from wire.addresses import address_number, packed_addresses
from wire.keys import SHARED_KINDS, Kind
from wire.records import IP, IPNetwork, Node, Service

R = TypeVar("R")
CONFLICT = "conflict"
LISTED_MAX = 4096
"""Addresses of a prefix that are looked for one by one."""
_JUDGED = (Kind.NODE, Kind.IP, Kind.SERVICE)


class Suspicion:
    """`now` is set by whoever lets it judge."""

    def __init__(
        self,
        store: Store,
        own: str,
        allowance: Callable[[str], Allowance],
        *,
        holder: Callable[[int, int], str] = lambda version, number: "",
        rank: Rank = lambda cluster: (),
    ) -> None:
        """`holder` gives the cluster that is believed about the PodCIDRs around an address (version, number)."""
        self.strays = Strays()
        self._holder, self._rank = holder, rank
        self.trust = Trust(allowance)
        self.quarantine = Quarantine()
        self.now = 0.0
        self._store, self._own = store, own
        self._offered_at: dict[str, tuple[tuple[str, str], ...]] = {}
        """Backend address → cluster and name of the services that have it."""
        self._offers: dict[tuple[str, str], tuple[str, ...]] = {}

    def reconsider(self, cluster: str) -> None:
        """Everything that depends on this cluster's records has to be worked out again."""
        for kind in SHARED_KINDS:
            self._store.touch(cluster, kind)

    def forget(self, cluster: str) -> None:
        """The cluster left."""
        self.quarantine.forget(cluster)
        for key in [key for key in self._offers if key[0] == cluster]:
            self._index(*key, ())

    def own_changed(self, kind: Kind, names: Iterable[str]) -> list[IPNetwork]:
        """These records of our own cluster changed: what is ours now, and who else says so?

        Returns single addresses that became ours: a prefix of somebody else may lie around one.
        """
        territory = self.trust.territory
        grown: list[IPNetwork] = []
        shrunk = nodes_moved = False
        for name in names:
            record = self._store.record(self._own, kind, name)
            if kind is Kind.NODE:
                addresses = list(node_addresses(cast(Node, record))) if record else []
                nodes_moved |= territory.set_node(name, addresses)
                cidrs = cast(Node, record).pod_cidrs() if record else []
                prefixes = (*cidrs, *map(ip_network, addresses))
            else:
                prefixes = (ip_network(name),) if record else ()
            more, less = territory.set(f"{kind}/{name}", prefixes)
            grown += more
            shrunk |= less
        if shrunk or nodes_moved:
            self._retry_refused()
        if nodes_moved or any(prefix.prefixlen < prefix.max_prefixlen for prefix in grown):
            self._reconsider_all()
            return []
        self._reconsider_at(grown)
        return grown

    def believed_node(self, cluster: str, name: str) -> Node | None:
        record = cast(Node | None, self._store.record(cluster, Kind.NODE, name))
        if record is None or cluster == self._own:
            return self._verdict(cluster, Kind.NODE, name, record, None)
        return self._verdict(cluster, Kind.NODE, name, record, self.trust.node(cluster, record))

    def believed_ip(self, cluster: str, name: str) -> IP | None:
        if "/" not in name:
            return self.believed_ips(cluster, (name,))[name]
        record = cast(IP | None, self._store.record(cluster, Kind.IP, name))
        if record is None or cluster == self._own:
            return self._verdict(cluster, Kind.IP, name, record, None)
        return self._verdict(cluster, Kind.IP, name, record, self.trust.ip(cluster, record))

    def believed_ips(self, cluster: str, names: Collection[str]) -> dict[str, IP | None]:
        """Addresses, no prefixes. Many at a time: most clusters have hundreds of thousands."""
        records = cast(Mapping[str, IP], self._store.records(cluster, Kind.IP))
        if cluster == self._own:
            return {name: records.get(name) for name in names}
        judge, held = self.trust.judge(cluster), self.quarantine.count(cluster, Kind.IP)
        believed: dict[str, IP | None] = {}
        for name, packed in zip(names, packed_addresses(names), strict=True):
            believed[name] = record = records.get(name)
            version, number = 4 if len(packed) == 4 else 6, int.from_bytes(packed, "big")
            reason = judge(record, version, number) if record is not None else None
            if record is not None and reason is None:
                reason = self._stray(cluster, name, version, number)
            elif self.strays:
                self.strays.drop(cluster, name)
            if reason is not None or held:
                believed[name] = self._verdict(cluster, Kind.IP, name, record, reason)
        return believed

    def _stray(self, cluster: str, name: str, version: int, number: int) -> str | None:
        """Whether the address lies in a PodCIDR of another cluster, which is believed before this one."""
        holder = self._holder(version, number)
        if holder != cluster:
            self.strays.put(cluster, name)
            return CONFLICT if holder and self._rank(holder) < self._rank(cluster) else None
        if self.strays:
            self.strays.drop(cluster, name)
        return None

    def turned(self, prefix: IPNetwork, before: str) -> None:
        """Another cluster than `before` is believed about this prefix now: what of the addresses in it?"""
        for cluster, name in list(self.strays.inside(prefix)):
            self._store.touch(cluster, Kind.IP, [name])
        if before and before != self._own:
            records = self._store.records(before, Kind.IP)
            if prefix.num_addresses <= LISTED_MAX:
                self._store.touch(before, Kind.IP, map(str, prefix))
            else:
                self._store.touch(before, Kind.IP, [name for name in records if _lies_in(name, prefix)])

    def believed_service(self, cluster: str, name: str) -> Service | None:
        """Without the backends that are refused; these are in quarantine as `<namespace>/<name> <address>`."""
        record = cast(Service | None, self._store.record(cluster, Kind.SERVICE, name))
        reason = self.trust.namespace(cluster, record.namespace) if record else None
        believed = self._verdict(cluster, Kind.SERVICE, name, record, reason)
        backends = tuple(believed.backends or ()) if believed else ()
        self._index(cluster, name, backends)
        if believed is None:
            return None
        refused = {text for text in backends if self._refuses_backend(cluster, name, text)}
        if not refused:
            return believed
        kept = {text: ports for text, ports in (believed.backends or {}).items() if text not in refused}
        return replace(believed, backends=kept)

    def _refuses_backend(self, cluster: str, name: str, address: str) -> bool:
        reason = self.trust.address(cluster, address)
        self.quarantine.note(cluster, Kind.SERVICE, f"{name} {address}", reason, self.now)
        return reason is not None

    def _index(self, cluster: str, name: str, backends: tuple[str, ...]) -> None:
        service = (cluster, name)
        before = self._offers.get(service, ())
        if before == backends:
            return
        for address in before:
            if others := tuple(each for each in self._offered_at[address] if each != service):
                self._offered_at[address] = others
            else:
                del self._offered_at[address]
            if address not in backends:
                self.quarantine.note(cluster, Kind.SERVICE, f"{name} {address}", None, self.now)
        if backends:
            self._offers[service] = backends
        else:
            del self._offers[service]
        alone = (service,)  # one for all of its addresses that nobody else has
        for address in backends:
            known = self._offered_at.get(address)
            self._offered_at[address] = (*known, service) if known else alone

    def _verdict(self, cluster: str, kind: Kind, name: str, record: R | None, reason: str | None) -> R | None:
        self.quarantine.note(cluster, kind, name, reason, self.now)
        return None if reason else record

    def _others(self) -> list[str]:
        return [cluster for cluster in self._store.clusters if cluster != self._own]

    def _retry_refused(self) -> None:
        """Those that were refused because something was ours, and what a service lacks for that reason."""
        for cluster, kind in self.quarantine.kinds():
            names = [n for n in self.quarantine.names(cluster, kind) if self._is_ours(cluster, kind, n)]
            self._store.touch(cluster, kind, [name.partition(" ")[0] for name in names])

    def _is_ours(self, cluster: str, kind: Kind, name: str) -> bool:
        held = self.quarantine.find(cluster, kind, name)
        return held is not None and held.reason in OWN

    def _reconsider_all(self) -> None:
        for cluster in self._others():
            for kind in _JUDGED:
                self._store.touch(cluster, kind)

    def _reconsider_at(self, addresses: Iterable[IPNetwork]) -> None:
        """Single addresses became ours: who has said exactly them, or a prefix around them?"""
        for prefix in addresses:
            name = str(prefix.network_address)
            for cluster in self._others():
                self._store.touch(cluster, Kind.IP, [name])
            for cluster, service in self._offered_at.get(name, ()):
                self._store.touch(cluster, Kind.SERVICE, [service])


def _lies_in(name: str, prefix: IPNetwork) -> bool:
    version, number = address_number(name.partition("/")[0])
    shift = prefix.max_prefixlen - prefix.prefixlen
    return version == prefix.version and number >> shift == int(prefix.network_address) >> shift

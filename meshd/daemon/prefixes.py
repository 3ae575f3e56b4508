"""The CIDR map: PodCIDRs of remote nodes, and the prefixes among the ip records, as fallback for addresses that no
record names. Pure. Our own cluster's PodCIDRs are claimed too, so that nobody can take them; they need no entry.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from ipaddress import ip_network

from datapath.entries import Entry, cidr_entry
from identity.claims import Claims, Rank
from identity.numbering import Reserved
from meshd.daemon.addresses import remote_identity
from meshd.daemon.prefixindex import PrefixIndex
from meshd.daemon.wishes import Wishes
from wire.records import IP, IPAddress, IPNetwork, Node


class Prefixes:
    """Incremental: `update_nodes` and `update_ips` cost what changed. A claimant is `<cluster>/<node or prefix>`.

    Of clusters whose prefixes overlap, equal or not, the one of the lowest rank is believed.
    """

    def __init__(
        self,
        own: str,
        rank: Rank,
        tunnel: Callable[[IP], IPAddress | None],
        *,
        withdrawn: Set[str] = frozenset(),
        underlay_version: int = 4,
    ) -> None:
        self._own, self._tunnel, self._withdrawn, self._underlay = own, tunnel, withdrawn, underlay_version
        self._rank = rank
        self._index = PrefixIndex()
        self.blocked: dict[IPNetwork, tuple[str, str]] = {}
        """Prefixes that are not believed, with the cluster that claims them and the one that is believed instead."""
        self._claims: Claims[IPNetwork, Entry | None] = Claims(lambda claimant: rank(claimant.partition("/")[0]))
        self._claimed: dict[str, tuple[IPNetwork, ...]] = {}
        self.turned: dict[IPNetwork, str] = {}
        """Prefixes of which another cluster is believed, or none, since somebody last cleared it; with who was before
        that.
        """
        self._holders: dict[int, dict[int, dict[int, str]]] = {4: {}, 6: {}}
        """IP version → how far an address is shifted → what is left of it → the cluster that is believed."""
        self.moved: set[IPNetwork] = set()
        """Prefixes of which another one may be believed now, since somebody last cleared it."""

    def update_nodes(self, cluster: str, names: Iterable[str], lookup: Callable[[str], Node | None]) -> Wishes:
        wishes: Wishes = {}
        for name in names:
            node = lookup(name)
            claims = {prefix: self._node_entry(prefix, node) for prefix in node.pod_cidrs()} if node else {}
            wishes |= self._claim(f"{cluster}/{name}", claims)
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

    def believed(self, prefix: IPNetwork) -> str:
        """The claimant that is believed about this prefix, "" if none is."""
        winner = self._claims.winner(prefix)
        return winner[0] if winner and prefix not in self.blocked else ""

    def contested(self) -> Iterator[tuple[IPNetwork, list[str]]]:
        """Prefixes that several say, with these claimants, the believed one first."""
        return self._claims.conflicts()

    def holder(self, version: int, number: int) -> str:
        """The cluster that is believed about the prefixes around an address; "" if there are none. It is one: of those
        that overlap only one cluster's are believed.
        """
        for shift, table in self._holders[version].items():
            if (cluster := table.get(number >> shift)) is not None:
                return cluster
        return ""

    def claimants_around(self, prefix: IPNetwork) -> Iterator[str]:
        """Who claims something that `prefix` lies in."""
        for wider in self._index.containing(prefix):
            if winner := self._claims.winner(wider):
                yield winner[0]
            yield from self._claims.losers(wider)

    def _node_entry(self, prefix: IPNetwork, node: Node) -> Entry | None:
        """None: the prefix is the CNI's business, or the node has no address that packets could be sent to."""
        endpoint = node.node_ip(self._underlay)
        if node.cluster == self._own or endpoint is None:
            return None
        gone = node.cluster in self._withdrawn
        return cidr_entry(prefix, identity=Reserved.WORLD, tunnel=endpoint, remote=True, unreachable=gone)

    def _ip_entry(self, prefix: IPNetwork, cluster: str, record: IP) -> Entry:
        remote = cluster != self._own
        return cidr_entry(
            prefix,
            identity=remote_identity(record.id) if remote else record.id,
            tunnel=self._tunnel(record) if remote else None,
            remote=remote,
            unreachable=cluster in self._withdrawn,
        )

    def _claim(self, claimant: str, claims: Mapping[IPNetwork, Entry | None]) -> Wishes:
        before = self._claimed.pop(claimant, ())
        if claims:
            self._claimed[claimant] = tuple(claims)
        changed = dict.fromkeys((*before, *claims))
        for prefix in changed:
            claimed = self._claims.winner(prefix) is not None
            if prefix in claims:
                self._claims.put(prefix, claimant, claims[prefix])
            else:
                self._claims.drop(prefix, claimant)
            if not claimed and prefix in claims:
                self._index.add(prefix)
            elif claimed and self._claims.winner(prefix) is None:
                self._index.discard(prefix)
        affected = dict.fromkeys(near for prefix in changed for near in (prefix, *self._index.overlapping(prefix)))
        self.moved.update(affected)
        return {(key.map, key.key): value for prefix in affected for key, value in [self._believed(prefix)]}

    def _believed(self, prefix: IPNetwork) -> tuple[Entry, bytes | None]:
        """The entry's key, and its value if there shall be one."""
        winner = self._claims.winner(prefix)
        key = cidr_entry(prefix, identity=0, tunnel=None, remote=True)
        self.blocked.pop(prefix, None)
        if winner is None:
            self._hold(prefix, "")
            return key, None
        cluster = winner[0].partition("/")[0]
        if before := self._before(cluster, prefix):
            self.blocked[prefix] = (cluster, before)
            self._hold(prefix, "")
            return key, None
        self._hold(prefix, cluster)
        return key, winner[1].value if winner[1] else None

    def _hold(self, prefix: IPNetwork, cluster: str) -> None:
        shift = prefix.max_prefixlen - prefix.prefixlen
        tables, number = self._holders[prefix.version], int(prefix.network_address) >> shift
        before = tables.get(shift, {}).get(number, "")
        if before == cluster:
            return
        self.turned.setdefault(prefix, before)
        if cluster:
            tables.setdefault(shift, {})[number] = cluster
            return
        del tables[shift][number]
        if not tables[shift]:
            del tables[shift]

    def _before(self, cluster: str, prefix: IPNetwork) -> str:
        """The cluster of a lower rank that claims something that overlaps; "" if there is none."""
        winners = (self._claims.winner(near) for near in self._index.overlapping(prefix))
        others = {winner[0].partition("/")[0] for winner in winners if winner}
        lower = [other for other in others if self._rank(other) < self._rank(cluster)]
        return min(lower, key=self._rank, default="")

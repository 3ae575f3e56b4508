"""The ipcache: every pod address of every cluster with its identity and the node that carries it. Pure.

Several clusters may claim an address: the one of the lowest rank is believed (identity/claims.py). The pods of this
node are given out besides, for the interfaces they must be found at.
"""

from collections.abc import Callable, Iterable, Set

from datapath.entries import Entry, ipcache_entry
from identity.claims import Claims, Rank
from identity.numbering import Reserved
from meshd.daemon.wishes import Wishes
from wire.addresses import parse_address
from wire.records import IP, IPAddress

Lookup = Callable[[str], IP | None]


class Addresses:
    """Incremental: `update` costs what changed. Addresses are kept as their canonical text, the record's name."""

    def __init__(self, own: str, rank: Rank, *, underlay_version: int = 4, withdrawn: Set[str] = frozenset()) -> None:
        self._own, self._underlay, self._withdrawn = own, underlay_version, withdrawn
        self._claims: Claims[str, IP] = Claims(rank)
        self._node_ips: frozenset[str] = frozenset()
        self.local_pods: dict[str, int] = {}
        """Identity by address of the pods of this node."""

    def __len__(self) -> int:
        return len(self._claims)

    def conflicts(self) -> Iterable[tuple[str, list[str]]]:
        """Addresses that several clusters claim, with these clusters, the believed one first."""
        return self._claims.conflicts()

    def claimants(self, name: str) -> list[str]:
        """The clusters that claim this address, the believed one first."""
        winner = self._claims.winner(name)
        return [winner[0], *self._claims.losers(name)] if winner else []

    def update(self, cluster: str, names: Iterable[str], lookup: Lookup) -> Wishes:
        """`names` of the cluster changed; those of prefixes are somebody else's."""
        wishes: Wishes = {}
        for name in names:
            record = lookup(name)
            if record is None:
                self._claims.drop(name, cluster)
            else:
                self._claims.put(name, cluster, record)
            winner = self._claims.winner(name)
            if cluster == self._own:
                self._find_pod(name, record)
            entry = self._entry(name, *winner) if winner else _blank(name)
            wishes[entry.map, entry.key] = entry.value if winner else None
        return wishes

    def place(self, node_ips: frozenset[str], own_ips: Iterable[IP]) -> None:
        """This node has these addresses (now): `own_ips` are all records of the own cluster."""
        if node_ips != self._node_ips:
            self._node_ips = node_ips
            self.local_pods.clear()
            for record in own_ips:
                if record.mask is None:
                    self._find_pod(record.text(), record)

    def _find_pod(self, name: str, record: IP | None) -> None:
        if record is not None and record.host_ip in self._node_ips and _is_pod(name, record, self._node_ips):
            self.local_pods[name] = record.id
        else:
            self.local_pods.pop(name, None)

    def _entry(self, name: str, cluster: str, record: IP) -> Entry:
        remote = cluster != self._own
        return ipcache_entry(
            parse_address(name),
            identity=remote_identity(record.id) if remote else record.id,
            tunnel=self.tunnel(record) if remote else None,
            remote=remote,
            unreachable=cluster in self._withdrawn,
        )

    def tunnel(self, record: IP) -> IPAddress | None:
        """The node of a remote pod, if a tunnel can end there. A node's own address is reached without."""
        if not record.host_ip or record.host_ip == record.ip:
            return None
        address = parse_address(record.host_ip)
        return address if address.version == self._underlay else None


def remote_identity(identity: int) -> int:
    """Another cluster's host is a remote node to us."""
    return int(Reserved.REMOTE_NODE) if identity == Reserved.HOST else identity


def _is_pod(name: str, record: IP, node_ips: frozenset[str]) -> bool:
    """Host addresses have no interface of their own."""
    return name not in node_ips and record.id != Reserved.HOST


def _blank(name: str) -> Entry:
    return ipcache_entry(parse_address(name), identity=0, tunnel=None, remote=True)

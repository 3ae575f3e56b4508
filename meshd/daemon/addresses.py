"""The ipcache: every pod address of every cluster with its identity and the node that carries it. Pure.

Several clusters may claim an address: the one of the lowest rank is believed (identity/claims.py). The pods of this
node are given out besides, for the interfaces they must be found at.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from functools import lru_cache

from datapath.entries import address_key, peer_value
from identity.claims import Rank
from identity.numbering import Reserved
from identity.speakers import Speakers
from wire.addresses import packed_address, packed_addresses, parse_address
from wire.records import IP, IPAddress

MAP = "md_ipcache"
VALUES = 1 << 11
"""Pods of an identity that share a node have one value."""
Believed = Callable[[str, str], IP | None]
"""What a cluster says of an address now, if it is believed."""


class Addresses:
    """Incremental: `update` costs what changed. Addresses are kept as their canonical text, the record's name; what
    clusters say of them stays in the store, `believed` gives it.
    """

    def __init__(
        self,
        own: str,
        rank: Rank,
        believed: Believed,
        *,
        held: Set[bytes],
        underlay_version: int = 4,
        withdrawn: Set[str] = frozenset(),
    ) -> None:
        """`held` are the keys of the map that are wanted by now: what `update` returned."""
        self._own, self._underlay, self._withdrawn = own, underlay_version, withdrawn
        self._believed, self._rank, self._held = believed, rank, held
        self._speakers = Speakers()
        self._contested: dict[str, list[str]] = {}
        self._node_ips: frozenset[str] = frozenset()
        self.local_pods: dict[str, int] = {}
        """Identity by address of the pods of this node."""

    def conflicts(self) -> Iterable[tuple[str, list[str]]]:
        """Addresses that several clusters claim, with these clusters, the believed one first."""
        return self._contested.items()

    def claimants(self, name: str) -> list[str]:
        """The clusters that claim this address, the believed one first."""
        return self._in_order(c for c in self._speakers.of(packed_address(name)) if self._believed(c, name) is not None)

    def forget(self, cluster: str) -> None:
        """The cluster left; what it had said comes through `update`."""
        self._speakers.forget(cluster)

    def update(self, cluster: str, records: Mapping[str, IP | None]) -> dict[bytes, bytes | None]:
        """The cluster says this of these addresses now, as far as it is believed; prefixes are somebody else's.

        Returns the entries of the map that are wanted (None: not any more).
        """
        speakers, held = self._speakers, self._held
        wanted: dict[bytes, bytes | None] = {}
        if cluster == self._own:
            for name, record in records.items():
                self._find_pod(name, record)
        for packed, (name, record) in zip(packed_addresses(records), records.items(), strict=True):
            key = address_key(packed)
            if record is None:
                clusters = speakers.of(packed)
                value = self._contest(name, cluster, record, clusters) if clusters else None
                if (value is None) == (key in held):
                    speakers.count(packed, -1 if value is None else 1)
            else:
                clusters = speakers.hear(packed, cluster, key not in held)
                alone = len(clusters) == 1
                value = self._value(cluster, record) if alone else self._contest(name, cluster, record, clusters)
            wanted[key] = value
        return wanted

    def _contest(self, name: str, cluster: str, record: IP | None, clusters: Iterable[str]) -> bytes | None:
        """Several may claim the address: what those say who do now."""
        said = {other: self._believed(other, name) for other in clusters if other != cluster} | {cluster: record}
        claims = {other: believed for other, believed in said.items() if believed is not None}
        self._contested.pop(name, None)
        if len(claims) > 1:
            self._contested[name] = self._in_order(claims)
        winner = min(claims, key=self._order, default="")
        return self._value(winner, claims[winner]) if winner else None

    def _in_order(self, clusters: Iterable[str]) -> list[str]:
        return sorted(clusters, key=self._order)

    def _order(self, cluster: str) -> tuple[tuple[int, ...], str]:
        return self._rank(cluster), cluster

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

    def _value(self, cluster: str, record: IP) -> bytes:
        if cluster == self._own:
            return _own_peer(record.id)
        host = "" if record.host_ip == record.ip else record.host_ip
        return _remote_peer(record.id, host, self._underlay, cluster in self._withdrawn)

    def tunnel(self, record: IP) -> IPAddress | None:
        """The node of a remote pod, if a tunnel can end there. A node's own address is reached without."""
        return None if record.host_ip == record.ip else _end(record.host_ip, self._underlay)


@lru_cache(VALUES)
def _own_peer(identity: int) -> bytes:
    return peer_value(identity, None, remote=False)


@lru_cache(VALUES)
def _remote_peer(identity: int, host: str, underlay_version: int, unreachable: bool) -> bytes:
    tunnel = _end(host, underlay_version)
    return peer_value(remote_identity(identity), tunnel, remote=True, unreachable=unreachable)


def _end(host: str, underlay_version: int) -> IPAddress | None:
    """Where a tunnel to the node can end."""
    address = parse_address(host) if host else None
    return address if address and address.version == underlay_version else None


def remote_identity(identity: int) -> int:
    """Another cluster's host is a remote node to us."""
    return int(Reserved.REMOTE_NODE) if identity == Reserved.HOST else identity


def _is_pod(name: str, record: IP, node_ips: frozenset[str]) -> bool:
    """Host addresses have no interface of their own."""
    return name not in node_ips and record.id != Reserved.HOST

"""What every cluster says, as records, and which of them changed since somebody last looked. No input or output, no
clock: times are arguments (monotonic seconds). There is no queue: a name that changes ten times is dirty once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import cast

from meshd.daemon.allowance import OWN_CLUSTER, Allowance
from meshd.daemon.arrears import Arrears
from meshd.daemon.watch import Changes
from wire.codec import BadRecord, Record, Scope, decode, decode_ips, encode, encoded_size
from wire.keys import Kind
from wire.records import IP

DETAIL_MAX = 300  # characters
DETAILED_MAX = 1000  # rejections of a kind and cluster whose story is kept
OVER_QUOTA = "over-quota"
COST = {Kind.IDENTITY: 2, Kind.NODE: 16, Kind.SERVICE: 16, Kind.LOCAL_SERVICE: 16, Kind.POLICY: 16}
"""What a record costs those who merge it, an address costs 1."""
Dirty = dict[tuple[str, Kind], Set[str]]
"""Names by cluster and kind; what lies side by side there comes side by side."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why the last value of a name is not believed, since when."""

    reason: str
    detail: str
    since: float


@dataclass(slots=True)
class Shelf:
    """The records of one kind of one cluster. An older valid record stays when a bad one arrives under its name."""

    records: dict[str, Record] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    synced_at: float | None = None
    revision: int = 0
    weight: int = 0
    """Bytes of the records, together."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of the values of the records; of an address it is what it takes when it is written, and is not kept."""
    over_quota: int = 0
    """How many names are rejected because there was no room for their bytes."""

    @property
    def offered(self) -> int:
        return len(self.records) + sum(name not in self.records for name in self.rejected)

    def reasons(self) -> Counter[str]:
        """How many names are rejected, by reason."""
        return Counter(rejection.reason for rejection in self.rejected.values())

    def put(
        self, kind: Kind, name: str, value: bytes, scope: Scope, now: float, *, bytes_max: int | None = None
    ) -> bool:
        """True if the record is another one than before."""
        before = self.records.get(name)
        try:
            record = decode(kind, name, value, scope)
            size = _size(record) if isinstance(record, IP) else len(value)
            more = size - self._size_of(name, before)
            if bytes_max is not None and self.weight + more > bytes_max:
                raise BadRecord(
                    OVER_QUOTA, f"{size} bytes more than the {self.weight} there are; {bytes_max} are allowed"
                )
        except BadRecord as error:
            self._reject(name, error, now)
            return False
        self.weight += more
        if not isinstance(record, IP):
            self.sizes[name] = size
        if self.rejected:
            self._forgive(name)
        if before is not None and before == record:
            return False
        self.records[name] = record
        return True

    def put_all(
        self, kind: Kind, puts: Mapping[str, bytes], scope: Scope, now: float, *, bytes_max: int | None = None
    ) -> list[str]:
        """The names under which there is another record than before."""
        if kind is Kind.IP and len(puts) > 1 and not self.rejected and (ips := decode_ips(puts, scope)) is not None:
            size = encoded_size(ips)
            if bytes_max is None or self.weight + size <= bytes_max:  # so all of them fit, in whatever order
                return self._replace(dict(zip(puts, ips, strict=True)), size)
        return [name for name, value in puts.items() if self.put(kind, name, value, scope, now, bytes_max=bytes_max)]

    def _replace(self, ips: dict[str, IP], size: int) -> list[str]:
        known = self.records
        before = {name: cast(IP, known[name]) for name in ips if name in known}
        self.weight += size - encoded_size(before.values())
        known.update(ips)
        return [name for name, ip in ips.items() if before.get(name) != ip] if before else list(ips)

    def _size_of(self, name: str, record: Record | None) -> int:
        return _size(record) if isinstance(record, IP) else self.sizes.get(name, 0)

    def _reject(self, name: str, error: BadRecord, now: float) -> None:
        self._forgive(name)  # so that the last rejection stands last
        self.over_quota += error.reason == OVER_QUOTA
        detail = str(error)[:DETAIL_MAX] if len(self.rejected) < DETAILED_MAX else ""
        self.rejected[name] = Rejection(error.reason, detail, now)

    def _forgive(self, name: str) -> None:
        rejection = self.rejected.pop(name, None) if self.rejected else None
        self.over_quota -= rejection is not None and rejection.reason == OVER_QUOTA

    def delete(self, name: str) -> bool:
        self._forgive(name)
        return self._drop(name)

    def _drop(self, name: str) -> bool:
        record = self.records.pop(name, None)
        self.weight -= self._size_of(name, record)
        self.sizes.pop(name, None)
        return record is not None

    def sweep_rejected(self) -> list[str]:
        """After a complete list: an older record does not outlive it under a name whose value is bad now."""
        gone = [name for name in self.rejected if name in self.records]
        for name in gone:
            self._drop(name)
        return gone


def _size(ip: IP) -> int:
    return len(encode(ip))


@dataclass(slots=True)
class ClusterState:
    """What one cluster says. `scope` is None until its configuration was accepted."""

    name: str
    scope: Scope | None = None
    shelves: dict[Kind, Shelf] = field(default_factory=dict)
    last_event_at: float | None = None

    def shelf(self, kind: Kind) -> Shelf:
        return self.shelves.setdefault(kind, Shelf())

    def synced(self, kind: Kind) -> bool:
        shelf = self.shelves.get(kind)
        return shelf is not None and shelf.synced_at is not None

    def record(self, kind: Kind, name: str) -> Record | None:
        shelf = self.shelves.get(kind)
        return shelf.records.get(name) if shelf else None


class Store:
    """The states of all clusters. `wake` is called when something became dirty; it must be cheap and idempotent."""

    def __init__(
        self, wake: Callable[[], None], *, allowance: Callable[[str], Allowance] = lambda cluster: OWN_CLUSTER
    ) -> None:
        self.clusters: dict[str, ClusterState] = {}
        self.listed_records = 0
        """How many records the lists had that were completed until now."""
        self.dirty: dict[tuple[str, Kind], Arrears] = {}
        """Names by cluster and kind, the first one first."""
        self._wake, self._allowance = wake, allowance

    def expect(self, cluster: str) -> ClusterState:
        """From now on this cluster is one of the sources that have to be heard."""
        return self.clusters.setdefault(cluster, ClusterState(cluster))

    def accept(self, cluster: str, scope: Scope) -> None:
        """The cluster's configuration was accepted. With another ID than before all it had said is forgotten."""
        state = self.expect(cluster)
        if state.scope is not None and state.scope != scope:
            self.drain(cluster)
            state = self.expect(cluster)
        state.scope = scope

    def apply(self, cluster: str, kind: Kind, changes: Changes, *, now: float, revision: int = 0) -> None:
        """Takes over what a machine gave out."""
        state = self.clusters[cluster]
        if state.scope is None:
            raise ValueError(f"{cluster} has no scope yet")
        shelf = state.shelf(kind)
        state.last_event_at = now
        shelf.revision = revision
        quota = self._allowance(cluster).quotas.get(kind)
        most = quota.bytes if quota else None
        gone = [name for name in changes.deletes if shelf.delete(name)]
        changed = shelf.put_all(kind, changes.puts, state.scope, now, bytes_max=most)
        self._mark(cluster, kind, [*gone, *changed])

    def listed(self, cluster: str, kind: Kind, *, now: float) -> None:
        """A complete list of this kind has been applied."""
        shelf = self.clusters[cluster].shelf(kind)
        self._mark(cluster, kind, shelf.sweep_rejected())
        self.listed_records += len(shelf.records)
        if shelf.synced_at is None:
            shelf.synced_at = now
            self._wake()

    def drain(self, cluster: str) -> None:
        """The cluster left: nothing of it stays, and nobody waits for it any more."""
        state = self.clusters.pop(cluster, None)
        if state is None:
            return
        for kind, shelf in state.shelves.items():
            self._mark(cluster, kind, shelf.records)
        self._wake()

    def take(self, limit: int, *, only: str | None = None) -> Dirty:
        """What changed and was not taken yet, for about `limit` in COST; `only` of one cluster. Who has little is not
        kept waiting by who has much: every kind of every cluster has the same share; what one does not use is the
        others'.
        """
        taken: Dirty = {}
        costs = {key: len(names) * COST.get(key[1], 1) for key, names in self.dirty.items() if only in (None, key[0])}
        keys = sorted(costs, key=costs.__getitem__)
        for number, key in enumerate(keys):
            cost = COST.get(key[1], 1)
            count = max(1, limit // (len(keys) - number) // cost)
            taken[key] = self.dirty[key].take(count)
            if not self.dirty[key]:
                del self.dirty[key]
            limit -= len(taken[key]) * cost
        return taken

    def touch(self, cluster: str, kind: Kind, names: Iterable[str] | None = None) -> None:
        """What follows from these records (None: from all of the kind) has to be worked out again."""
        state = self.clusters.get(cluster)
        if state is not None and (shelf := state.shelves.get(kind)):
            known = shelf.records
            self._mark(cluster, kind, known if names is None else [name for name in names if name in known])

    def synced(self, cluster: str, kinds: Iterable[Kind]) -> bool:
        state = self.clusters.get(cluster)
        return state is not None and all(state.synced(kind) for kind in kinds)

    def records(self, cluster: str, kind: Kind) -> Mapping[str, Record]:
        """All of a kind, by name."""
        state = self.clusters.get(cluster)
        shelf = state.shelves.get(kind) if state else None
        return shelf.records if shelf else {}

    def record(self, cluster: str, kind: Kind, name: str) -> Record | None:
        state = self.clusters.get(cluster)
        return state.record(kind, name) if state else None

    def _mark(self, cluster: str, kind: Kind, names: Iterable[str]) -> None:
        names = list(names)
        if names:
            self.dirty.setdefault((cluster, kind), Arrears()).add(names)
            self._wake()

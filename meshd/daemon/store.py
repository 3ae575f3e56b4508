"""What every cluster says, as records, and which of them changed since somebody last looked. No input or output, no
clock: times are arguments (monotonic seconds). There is no queue: a name that changes ten times is dirty once.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from meshd.daemon.watch import Changes
from wire.codec import BadRecord, Record, Scope, decode
from wire.keys import Kind

DETAIL_MAX = 300
Dirty = dict[tuple[str, Kind], set[str]]


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

    @property
    def offered(self) -> int:
        return len(self.records.keys() | self.rejected.keys())

    def reasons(self) -> Counter[str]:
        """How many names are rejected, by reason."""
        return Counter(rejection.reason for rejection in self.rejected.values())

    def put(self, kind: Kind, name: str, value: bytes, scope: Scope, now: float) -> bool:
        """True if the record is another one than before."""
        try:
            record = decode(kind, name, value, scope)
        except BadRecord as error:
            self.rejected.pop(name, None)  # so that the last rejection stands last
            self.rejected[name] = Rejection(error.reason, str(error)[:DETAIL_MAX], now)
            return False
        if self.rejected:
            self.rejected.pop(name, None)
        if self.records.get(name) == record:
            return False
        self.records[name] = record
        return True

    def delete(self, name: str) -> bool:
        self.rejected.pop(name, None)
        return self.records.pop(name, None) is not None

    def sweep_rejected(self) -> list[str]:
        """After a complete list: an older record does not outlive it under a name whose value is bad now."""
        gone = [name for name in self.rejected if name in self.records]
        for name in gone:
            del self.records[name]
        return gone


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

    def __init__(self, wake: Callable[[], None]) -> None:
        self.clusters: dict[str, ClusterState] = {}
        self.dirty: Dirty = {}
        self._wake = wake

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
        changed = [name for name, value in changes.puts.items() if shelf.put(kind, name, value, state.scope, now)]
        changed += [name for name in changes.deletes if shelf.delete(name)]
        self._mark(cluster, kind, changed)

    def listed(self, cluster: str, kind: Kind, *, now: float) -> None:
        """A complete list of this kind has been applied."""
        shelf = self.clusters[cluster].shelf(kind)
        self._mark(cluster, kind, shelf.sweep_rejected())
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
        """What changed and was not taken yet, at most `limit` names of each kind and cluster; `only` of one cluster."""
        taken: Dirty = {}
        for key, names in list(self.dirty.items()):
            if only is not None and key[0] != only:
                continue
            if len(names) <= limit:
                taken[key] = self.dirty.pop(key)
            else:
                taken[key] = {names.pop() for _ in range(limit)}
        return taken

    def synced(self, cluster: str, kinds: Iterable[Kind]) -> bool:
        state = self.clusters.get(cluster)
        return state is not None and all(state.synced(kind) for kind in kinds)

    def record(self, cluster: str, kind: Kind, name: str) -> Record | None:
        state = self.clusters.get(cluster)
        return state.record(kind, name) if state else None

    def _mark(self, cluster: str, kind: Kind, names: Iterable[str]) -> None:
        names = set(names)
        if names:
            self.dirty.setdefault((cluster, kind), set()).update(names)
            self._wake()

"""A cluster's etcd as a model that remembers its history, and one reader of it: lists in pages, watches, is cut off,
finds revisions compacted or another etcd behind the name. Nothing happens unless it is told to.
"""

from dataclasses import dataclass, field

from meshd.daemon.store import Store
from meshd.daemon.watch import DELETE, Changes, ListFrom, WatchFrom, WatchMachine
from wire.keys import SHARED_KINDS, Kind, interval, prefix

PAGE = 2


@dataclass(frozen=True)
class KeyValue:
    key: bytes
    value: bytes
    mod_revision: int


@dataclass(frozen=True)
class Event:
    type: int
    kv: KeyValue


@dataclass
class Peer:
    """`number` is its cluster ID now, `history` which etcd it is."""

    cluster: str
    number: int
    store: Store
    revision: int = 1
    history: int = 1
    compacted: int = 0
    log: list[Event] = field(default_factory=list)
    versions: dict[int, dict[bytes, KeyValue]] = field(default_factory=lambda: {1: {}})
    machines: dict[Kind, WatchMachine] = field(default_factory=dict)
    asks: dict[Kind, ListFrom | WatchFrom] = field(default_factory=dict)
    """What is asked for next, of the kinds that are connected."""

    def __post_init__(self) -> None:
        self.forget()

    @property
    def content(self) -> dict[bytes, KeyValue]:
        return self.versions[self.revision]

    def put(self, key: str, value: str) -> None:
        self._change(KeyValue(key.encode(), value.encode(), self.revision + 1), 0)

    def delete(self, key: str) -> None:
        if key.encode() in self.content:
            self._change(KeyValue(key.encode(), b"", self.revision + 1), DELETE)

    def _change(self, kv: KeyValue, kind: int) -> None:
        content = {key: held for key, held in self.content.items() if key != kv.key}
        if kind != DELETE:
            content[kv.key] = kv
        self.revision += 1
        self.versions[self.revision] = dict(sorted(content.items()))
        self.log.append(Event(kind, kv))

    def compact(self) -> None:
        """What was before now is forgotten."""
        self.compacted = self.revision

    def wipe(self) -> None:
        """Another, empty etcd behind the same name."""
        self.history, self.revision, self.compacted = self.history + 1, 1, 0
        self.log, self.versions = [], {1: {}}
        self.cut()

    def forget(self) -> None:
        """The reader knows nothing any more: the cluster left, or has another ID."""
        self.machines = {kind: WatchMachine(*interval(prefix(kind, self.cluster))) for kind in SHARED_KINDS}
        self.cut()

    def cut(self) -> None:
        self.asks = {}

    def connect(self) -> None:
        if not self.asks:
            self.asks = {kind: machine.start() for kind, machine in self.machines.items()}

    def step(self, kind: Kind, batch: int = 1) -> bool:
        """One page, or the events of so many revisions; False if there is nothing to hear."""
        ask = self.asks.get(kind)
        if isinstance(ask, ListFrom):
            self._page(kind, ask)
            return True
        return isinstance(ask, WatchFrom) and self._listen(kind, ask, batch)

    def catch_up(self) -> None:
        """Until everything has been heard."""
        self.connect()
        while any(self.step(kind) for kind in SHARED_KINDS):
            pass

    def _page(self, kind: Kind, ask: ListFrom) -> None:
        machine = self.machines[kind]
        if ask.revision and ask.revision < self.compacted:
            self.asks[kind] = machine.start()
            return
        revision = ask.revision or self.revision
        found = [kv for key, kv in self.versions[revision].items() if ask.start <= key < ask.end]
        changes, self.asks[kind] = machine.page(found[:PAGE], revision, len(found) > PAGE, history=self.history)
        self._apply(kind, changes)
        if isinstance(self.asks[kind], WatchFrom):
            self.store.listed(self.cluster, kind, now=0.0)

    def _listen(self, kind: Kind, ask: WatchFrom, batch: int) -> bool:
        machine = self.machines[kind]
        if machine.revision + 1 < self.compacted:
            self.asks[kind] = machine.start()
            return True
        until = min(machine.revision + batch, self.revision)
        if until <= machine.revision:
            return False
        new = [event for event in self.log if machine.revision < event.kv.mod_revision <= until]
        self._apply(kind, machine.events([e for e in new if ask.start <= e.kv.key < ask.end], until))
        return True

    def _apply(self, kind: Kind, changes: Changes) -> None:
        if changes:
            self.store.apply(self.cluster, kind, changes, now=0.0)

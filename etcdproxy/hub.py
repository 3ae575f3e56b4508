"""The one place where upstream's commits meet all watchers.

Level, not edge: a watcher has no queue. It only knows the revision from which it is behind; what it is to get is
read from the shared history when its stream can take it. So a watcher that does not read costs nothing, and it is
told `compacted` once the history has moved past it. Watchers of the same selection share the encoded events, and where
their ids are equal, as those of equal programs are, the whole message.

Nearly always a watcher has heard everything and its stream has nothing else to send: then the message is pushed into
the stream, which takes it or does not. Only who could not be pushed is behind, and is woken.
"""

import asyncio
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from etcdproxy.batches import Batch, Selection, Shared, Shelf, collect_batch
from etcdproxy.encoding import encode_header
from etcdproxy.history import Compacted, Entry, History
from etcdproxy.store import Store


class Listener(Protocol):
    """A stream, as the hub sees it."""

    def push(self, watcher: "Watcher", batch: Batch) -> bool:
        """Tells a watcher what it lacks, if that can be sent at once; False: it is to be woken."""

    def wake(self, watcher: "Watcher") -> None:
        """The watcher is behind: fetch its events when they can be sent."""

    def lose(self) -> None:
        """Another etcd stands behind the proxy: end, so that the reader begins anew."""


@dataclass(slots=True, eq=False)
class Watcher:
    """One watch. `behind_from` is the oldest revision whose events it may lack, None if it has heard everything.

    `told`: it got an answer since the last periodic notification.
    """

    listener: Listener
    watch_id: int
    selection: Selection
    start: int
    takes_fragments: bool = False
    wants_progress: bool = False
    behind_from: int | None = None
    told: bool = False
    group: "Group | None" = None


@dataclass(slots=True, eq=False)
class Group(Shared):
    """The watchers of one selection. `untold`: from this revision on they lack something; 0: nothing."""

    watchers: dict[Watcher, None] = field(default_factory=dict)
    untold: int = 0


class Hub:
    """Serves reads and watches from a history. Before the first `replace` there is none and `ready` is not set."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.history = History({}, 0)
        self.store = Store(0, 0, 0)
        self._groups: dict[Selection, Group] = {}
        self._shelf = Shelf()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waited = 0
        self._given_up = 0  # waiters that nobody waits for any more
        self._header = (-1, b"")

    @property
    def watchers(self) -> int:
        return sum(len(group.watchers) for group in self._groups.values())

    def header(self, revision: int | None = None) -> bytes:
        """The encoded header of an answer, at the history's revision unless another is given."""
        at = self.history.revision if revision is None else revision
        if self._header[0] != at:
            self._header = (at, encode_header(self.store, at))
        return self._header[1]

    def apply(self, commits: Iterable[tuple[int, Iterable[tuple[bytes, Entry | None]]]]) -> None:
        """Takes over revisions of upstream, in their order, and tells the watchers that they concern."""
        for revision, changes in commits:
            commit = self.history.add(revision, changes)
            if commit is None:
                continue
            for selection, group in self._groups.items():
                if not group.untold and selection.wants_any(commit.changes):
                    group.untold = revision
        for group in self._groups.values():
            if group.untold:
                self._tell(group, group.untold)
                group.untold = 0
        self._release_waiters()

    def replace(self, history: History, store: Store, *, continues: bool) -> None:
        """Serves another history from now on.

        If it continues the one before: watchers go on where it reaches back to what they lack, the others are told
        `compacted`. If it does not, or another store stands behind it: all streams end.
        """
        heard = self.history.revision
        same = continues and store.cluster_id == self.store.cluster_id
        self.history, self.store = history, store
        self._header = (-1, b"")
        self.ready.set()
        self._shelf.clear()
        for watcher in [watcher for group in self._groups.values() for watcher in group.watchers]:
            if not same:
                watcher.listener.lose()
            elif (lacks := watcher.behind_from or max(watcher.start, heard + 1)) <= history.revision:
                watcher.behind_from = lacks
                watcher.listener.wake(watcher)
        self._release_waiters()

    def update_store(self, store: Store) -> None:
        """Takes over what changes without a loss of history: member and raft term."""
        self.store = store
        self._header = (-1, b"")
        self._shelf.clear()

    def add(self, watcher: Watcher) -> None:
        """Begins a watch; a start revision of 0 means from the next one on."""
        watcher.start = watcher.start or self.history.revision + 1
        group = self._groups.get(watcher.selection)
        if group is None:
            group = self._groups[watcher.selection] = Group(watcher.selection)
        watcher.group = group
        group.watchers[watcher] = None
        if watcher.start <= self.history.revision:
            watcher.behind_from = watcher.start
            watcher.listener.wake(watcher)

    def remove(self, watcher: Watcher) -> None:
        group, watcher.group = watcher.group, None
        if group is None:
            return
        del group.watchers[watcher]
        if not group.watchers:
            self._shelf.drop(group)
            del self._groups[group.selection]

    def fetch(self, watcher: Watcher) -> Batch:
        """The next events of a watcher that is behind; it is then behind from what follows. Raises Compacted."""
        begin, group = watcher.behind_from, watcher.group
        if begin is None or group is None:
            return Batch([], self.history.revision, more=False)
        batch = self._batch(group, begin)
        watcher.behind_from = batch.revision + 1 if batch.more else None
        return batch

    async def reach(self, revision: int, timeout_s: float) -> bool:
        """Waits until the history has come to `revision`; False if it did not in time."""
        if self.history.revision >= revision:
            return True
        self._waited += 1
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, self._waited, future))
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return False
        finally:
            if self.history.revision < revision:
                self._give_up()
        return True

    def _tell(self, group: Group, begin: int) -> None:
        """Pushes what came from `begin` on to the watchers that had heard all before; wakes who does not take it."""
        in_step = [watcher for watcher in group.watchers if watcher.behind_from is None]
        if not in_step:
            return
        try:
            batch = self._batch(group, begin)
        except Compacted:  # so much came at once that the history does not hold it
            batch = None
        if batch is not None and batch.more:
            batch = None
        for watcher in in_step:
            if batch is not None and watcher.start <= begin and watcher.listener.push(watcher, batch):
                continue
            lacks = max(begin, watcher.start)
            if lacks <= self.history.revision:
                watcher.behind_from = lacks
                watcher.listener.wake(watcher)

    def _batch(self, group: Group, begin: int) -> Batch:
        """What a group's watchers lack from `begin` on, as much as makes one answer. Raises Compacted."""
        end = self.history.revision
        if group.batch is not None and group.begin == begin and group.end == end:
            return group.batch
        batch = collect_batch(self.history, group.selection, begin)
        batch.header = self.header(batch.revision)
        if len(group.watchers) > 1:
            self._shelf.put(group, batch, begin, end)
        return batch

    def _give_up(self) -> None:
        """One waiter waits no more. They are swept out when they are half of all: a peer can make very many."""
        self._given_up += 1
        if self._given_up * 2 > len(self._waiters):
            self._waiters = [waiter for waiter in self._waiters if not waiter[2].done()]
            heapq.heapify(self._waiters)
            self._given_up = 0

    def _release_waiters(self) -> None:
        while self._waiters and self._waiters[0][0] <= self.history.revision:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

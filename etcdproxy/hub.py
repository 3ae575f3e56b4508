"""The one place where upstream's commits meet all watchers.

Level, not edge: a watcher has no queue. It only knows the revision from which it is behind; what it is to get is
read from the shared history when its stream can take it. So a watcher that does not read costs nothing, and it is
told `compacted` once the history has moved past it. Watchers of the same interval share the encoded events.
"""

import asyncio
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from etcdproxy.encoding import encode_delete, encode_header, encode_put
from etcdproxy.history import Change, Commit, Entry, History
from etcdproxy.policy import Interval
from etcdproxy.store import Store

BATCH_BYTES = 512 << 10  # events of one answer, unless one commit alone is bigger
PART_BYTES = 1 << 20  # of a bigger commit, for a watcher that takes fragments


@dataclass(frozen=True, slots=True)
class Selection:
    """What a watcher wants to hear of; watchers with equal selections share their encoded events."""

    interval: Interval
    puts: bool = True
    deletes: bool = True
    previous: bool = False

    def wants(self, change: Change) -> bool:
        return (self.puts if change.after else self.deletes) and self.interval.holds(change.key)


class Listener(Protocol):
    """A stream, as the hub sees it."""

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


class Batch(NamedTuple):
    """Encoded events up to and with `revision`; `more` if others follow at once.

    They are joined to one part; to several of about PART_BYTES only if one commit is bigger than that.
    """

    parts: list[bytes]
    revision: int
    more: bool


@dataclass(slots=True)
class _Group:
    """The watchers of one selection, and the events that the last of them got."""

    watchers: dict[Watcher, None] = field(default_factory=dict)
    batch: tuple[tuple[int, int], Batch] | None = None


class Hub:
    """Serves reads and watches from a history. Before the first `replace` there is none and `ready` is not set."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.history = History({}, 0)
        self.store = Store(0, 0, 0)
        self._groups: dict[Selection, _Group] = {}
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waited = 0
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

    def apply(self, revision: int, changes: Iterable[tuple[bytes, Entry | None]]) -> None:
        """Takes over one revision of upstream and wakes the streams that it concerns."""
        commit = self.history.add(revision, changes)
        if commit is None:
            return
        for selection, group in self._groups.items():
            if any(selection.wants(change) for change in commit.changes):
                for watcher in group.watchers:
                    if watcher.behind_from is None and watcher.start <= revision:
                        watcher.behind_from = revision
                        watcher.listener.wake(watcher)
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
        for group in self._groups.values():
            group.batch = None
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

    def add(self, watcher: Watcher) -> None:
        """Begins a watch; a start revision of 0 means from the next one on."""
        watcher.start = watcher.start or self.history.revision + 1
        self._groups.setdefault(watcher.selection, _Group()).watchers[watcher] = None
        if watcher.start <= self.history.revision:
            watcher.behind_from = watcher.start
            watcher.listener.wake(watcher)

    def remove(self, watcher: Watcher) -> None:
        group = self._groups.get(watcher.selection)
        if group is None:
            return
        group.watchers.pop(watcher, None)
        if not group.watchers:
            del self._groups[watcher.selection]

    def fetch(self, watcher: Watcher) -> Batch:
        """The next events of a watcher that is behind; it is then behind from what follows. Raises Compacted."""
        begin = watcher.behind_from
        if begin is None:
            return Batch([], self.history.revision, more=False)
        group = self._groups[watcher.selection]
        span = (begin, self.history.revision)
        if group.batch is not None and group.batch[0] == span:
            batch = group.batch[1]
        else:
            batch = _collect(self.history, watcher.selection, begin)
            group.batch = (span, batch) if len(group.watchers) > 1 else None
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
            self._waiters = [waiter for waiter in self._waiters if not waiter[2].done()]
            heapq.heapify(self._waiters)
            return False
        return True

    def _release_waiters(self) -> None:
        while self._waiters and self._waiters[0][0] <= self.history.revision:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)


def _collect(history: History, selection: Selection, begin: int) -> Batch:
    """Encodes whole commits until there is enough for one answer: a revision is never split."""
    parts: list[bytes] = []
    events: list[bytes] = []
    size, revision, more = 0, history.revision, False
    for commit in history.commits_from(begin):
        if parts or size >= BATCH_BYTES:
            revision, more = commit.revision - 1, True
            break
        for event in _encode(commit, selection):
            if size + len(event) > PART_BYTES and events:
                parts.append(b"".join(events))
                events, size = [], 0
            events.append(event)
            size += len(event)
    if events:
        parts.append(b"".join(events))
    return Batch(parts, revision, more)


def _encode(commit: Commit, selection: Selection) -> Iterable[bytes]:
    for change in commit.changes:
        if not selection.wants(change):
            continue
        previous = change.before.field if selection.previous and change.before else None
        if change.after:
            yield encode_put(change.after.field, previous)
        else:
            yield encode_delete(change.key, commit.revision, previous)

"""The keys of an etcd at a revision, and as much of the way there as is kept: the memory that the proxy serves from.

Pure. Keys are sorted; the last commits are kept within bounds, so that a list pinned at an older revision and a watch
from an older revision are exact. `base` is the oldest revision that can be read; what lies below is compacted.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import NamedTuple

from sortedcontainers import SortedDict, SortedList

from etcdproxy.policy import Interval

MAX_EVENTS = 100_000
MAX_BYTES = 64 << 20
_EVENT_OVERHEAD = 200  # bytes that Python needs around one kept change, roughly
_MAX_VIEWS = 16
_MANY = 1 << 40  # keys: more than there are, and a number that one can still be added to
_EMPTY = 1  # the revision of an etcd before its first write: a history that begins there lacks nothing
_TRIM_TO = 7 / 8  # of the bounds: moving the list's rest is paid once for many commits


class Entry(NamedTuple):
    """A key's value at its `mod_revision`; `field` is the KeyValue as an encoded field (see encoding.py)."""

    mod_revision: int
    field: bytes


class Change(NamedTuple):
    """What one commit did to one key. `after` None: deleted; `before` None: was not there."""

    key: bytes
    before: Entry | None
    after: Entry | None


class Commit(NamedTuple):
    """All changes of one revision. `size`: bytes of memory that keeping it costs, roughly."""

    revision: int
    changes: tuple[Change, ...]
    size: int


class Compacted(Exception):
    """The revision asked for is no longer known; `revision` is the oldest a watch may start from."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"compacted up to {revision}")
        self.revision = revision


class Page(NamedTuple):
    """What a read found: entries in ascending order of keys, whether the limit cut it, how many there are in all."""

    entries: list[Entry]
    more: bool
    total: int


class History:
    """Keys at `revision` and the commits since `base`. `add` moves it on; everything else only reads."""

    def __init__(
        self,
        entries: Mapping[bytes, Entry],
        revision: int,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.base = self.revision = revision
        self._entries: SortedDict[bytes, Entry] = SortedDict(entries)
        self._commits: list[Commit] = []
        self._events = 0
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._views: dict[int, _View] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def kept_events(self) -> int:
        return self._events

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def get(self, key: bytes) -> Entry | None:
        return self._entries.get(key)

    def add(self, revision: int, puts_and_deletes: Iterable[tuple[bytes, Entry | None]]) -> Commit | None:
        """Applies all changes of one revision; None if that revision is not a new one."""
        if revision <= self.revision:
            return None
        changes: list[Change] = []
        size, entries = 0, self._entries
        for key, after in puts_and_deletes:
            before = entries.get(key)
            changes.append(Change(key, before, after))
            size += _EVENT_OVERHEAD + len(key)
            if before is not None:
                size += len(before.field)
            if after is not None:
                size += len(after.field)
                entries[key] = after
            elif before is not None:
                del entries[key]
        commit = Commit(revision, tuple(changes), size)
        self.revision = revision
        self._commits.append(commit)
        self._events += len(changes)
        self._bytes += commit.size
        self._trim()
        return commit

    def commits_from(self, revision: int) -> Iterator[Commit]:
        """The commits of this and all later revisions; raises Compacted."""
        if revision <= self.base and self.base > _EMPTY:
            raise Compacted(self.base + 1)
        start = bisect_left(self._commits, revision, key=_revision_of)
        return islice(self._commits, start, None)

    def read(self, interval: Interval, *, revision: int = 0, limit: int = 0) -> Page:
        """The entries of an interval as of a revision that is not ahead (0 or less: now); limit 0: all.

        Raises Compacted.
        """
        revision, limit = max(revision, 0), min(limit, _MANY)
        if revision and revision < self.base:
            raise Compacted(self.base + 1)
        if interval.is_empty:
            return Page([], more=False, total=0)
        if revision and revision != self.revision and (view := self._view(revision)).overlay:
            return self._read_then(interval, view, limit)
        keys = self._keys(interval, limit + 1 if limit > 0 else None)
        more = 0 < limit < len(keys)
        return Page([self._entries[key] for key in (keys[:limit] if more else keys)], more, self._count(interval))

    def _read_then(self, interval: Interval, view: "_View", limit: int) -> Page:
        """As `read`, where some keys were different at that revision. Looks at no more keys than it must."""
        overlay, vanished = view.overlay, view.vanished.irange(interval.start, interval.end, (True, False))
        current = self._entries.irange(interval.start, interval.end, inclusive=(True, False))
        stood = (key for key in current if overlay.get(key, key) is not None)
        keys = list(islice(merge(stood, vanished) if view.vanished else stood, limit + 1 if limit > 0 else None))
        more = 0 < limit < len(keys)
        found = [overlay.get(key) or self._entries[key] for key in (keys[:limit] if more else keys)]
        gone, come = (_count_within(some, interval) for some in (view.vanished, view.appeared))
        return Page(found, more, self._count(interval) + gone - come)

    def _keys(self, interval: Interval, limit: int | None) -> list[bytes]:
        keys = self._entries.irange(interval.start, interval.end, inclusive=(True, False))
        return list(islice(keys, limit))

    def _count(self, interval: Interval) -> int:
        return _count_within(self._entries, interval)

    def _view(self, revision: int) -> "_View":
        view = self._views.get(revision)
        if view is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.pop(next(iter(self._views)))
            view = self._views[revision] = _View(revision)
        for commit in self.commits_from(view.seen + 1):
            for change in commit.changes:
                view.note(change)
        view.seen = self.revision
        return view

    def _trim(self) -> None:
        if self._events <= self._max_events and self._bytes <= self._max_bytes:
            return
        drop, events, size = 0, self._events, self._bytes
        newest = len(self._commits) - 1  # stays whatever its size: watchers have not seen it yet
        while drop < newest and (events > self._max_events * _TRIM_TO or size > self._max_bytes * _TRIM_TO):
            events -= len(self._commits[drop].changes)
            size -= self._commits[drop].size
            drop += 1
        if not drop:
            return
        self._events, self._bytes = events, size
        self.base = self._commits[drop - 1].revision
        del self._commits[:drop]
        self._views = {revision: view for revision, view in self._views.items() if revision >= self.base}


class _View:
    """The differences between an older revision and now; `seen` is the last commit looked at.

    `overlay` is what keys had then that were changed since, None: they were not there. Of these are `appeared`, which
    are there now and were not then, and `vanished`, the reverse: sorted, so that a page costs no more for all of them.
    """

    def __init__(self, revision: int) -> None:
        self.seen = revision
        self.overlay: dict[bytes, Entry | None] = {}
        self.appeared: SortedList[bytes] = SortedList()
        self.vanished: SortedList[bytes] = SortedList()

    def note(self, change: Change) -> None:
        """Looks at the next change."""
        key, is_there = change.key, change.after is not None
        was_there = self.overlay.setdefault(key, change.before) is not None
        if (change.before is not None) == is_there:  # nearly always
            return
        if is_there:
            self.vanished.discard(key) if was_there else self.appeared.add(key)
        else:
            self.vanished.add(key) if was_there else self.appeared.discard(key)


def _count_within(keys: SortedDict[bytes, Entry] | SortedList[bytes], interval: Interval) -> int:
    end = len(keys) if interval.end is None else keys.bisect_left(interval.end)
    return int(end - keys.bisect_left(interval.start))


def _revision_of(commit: Commit) -> int:
    return commit.revision

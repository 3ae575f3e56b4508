"""List and watch of one range of keys, without input or output: answers of etcd go in, the next question and what
changed come out. Not a connection: that is connection.py, the only caller.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

DELETE = 1  # etcd's Event.EventType
NAME_MAX = 600  # bytes; a namespace and a name of a Kubernetes object have 317 together
ROOM = 0.9  # of the limit: only when so little is left of it what was beyond is listed again


class Why(StrEnum):
    """What a list was begun for."""

    CONNECTED = "connected"
    COMPACTED = "compacted"
    OTHER_ETCD = "other-etcd"
    """Or one that went back in time."""


class KeyValue(Protocol):
    """What the machine needs of etcd's message of that name."""

    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def mod_revision(self) -> int: ...


class Event(Protocol):
    """What the machine needs of etcd's message of that name."""

    @property
    def type(self) -> int: ...
    @property
    def kv(self) -> KeyValue: ...


@dataclass(frozen=True, slots=True)
class ListFrom:
    """Ask for the next page of `[start, end)`; `end` b"": this key only; `revision` 0: the newest."""

    start: bytes
    end: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class WatchFrom:
    """Watch `[start, end)` from `revision` on."""

    start: bytes
    end: bytes
    revision: int


@dataclass(slots=True)
class Changes:
    """Names (the key below the prefix) with their new values, and the names that are gone."""

    puts: dict[str, bytes] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.puts or self.deletes)


class WatchMachine:
    """Follows one range over lists, watches, cuts and compactions. Protocol of use:

        ask = machine.start()                 after every connect; everything known becomes stale
        while ask is ListFrom:                Range(start, end, revision, limit)
            changes, ask = machine.page(kvs, header.revision, more, history=header.cluster_id)
                                              the pinned revision was compacted meanwhile: ask = machine.start()
        watch from ask.revision               ask is WatchFrom; what was not in the list came as deletes
            changes = machine.events(events, header.revision)        or part by part, then with `more` but for the last
            compacted or cancelled:           ask = machine.start(), go on as above

    Names that are known stay known over a cut: only a complete list deletes. A known key whose mod_revision has been
    heard is not given out again, unless another etcd (`history`) or one that went back in time answers: all is new.
    """

    def __init__(self, start: bytes, end: bytes, *, limit: int | None = None) -> None:
        self._start, self._end = start, end
        self.limit = limit
        """At most so many names are known; those beyond are not given out, nor remembered."""
        self.beyond = 0
        """How often a name was beyond the limit since the last list began."""
        self._known: dict[str, None] = {}  # smaller than a set
        self._doubted = False  # what is known is given out again by lists, until one of them has done so whole
        self._renews = False  # the list that goes on has done so from its first page on
        self._stale: set[str] = set()
        self._pinned = 0
        self._history = 0
        self.revision = 0
        """Everything up to here has been heard."""
        self.synced = False
        """A list has been completed since the machine was made."""
        self.relists: Counter[Why] = Counter()
        """Lists that were begun, by their cause."""
        self._why = Why.CONNECTED

    def __len__(self) -> int:
        return len(self._known)

    @property
    def has_room(self) -> bool:
        """What was beyond the limit has room now: a new list would bring it."""
        return bool(self.beyond) and self.limit is not None and len(self._known) < self.limit * ROOM

    def move(self, start: bytes, end: bytes) -> None:
        """The same records stand in another range now: what is known stays, the next list brings all anew."""
        if (start, end) != (self._start, self._end):
            self._start, self._end = start, end
            self.doubt()

    def doubt(self) -> None:
        """What is known stays; the next list brings all of it anew."""
        self._doubted, self._renews = True, False

    def start(self, why: Why = Why.CONNECTED) -> ListFrom:
        """(Re)starts the list from its first page."""
        self._stale = set(self._known)
        self._renews = self._doubted
        self._pinned = 0
        self._why = why
        self.relists[self._why] += 1
        self.beyond = 0
        return ListFrom(self._start, self._end, 0)

    def page(
        self, kvs: Iterable[KeyValue], revision: int, more: bool, *, history: int = 0
    ) -> tuple[Changes, ListFrom | WatchFrom]:
        """Takes a page (or a part of one, then with `more`), in key order."""
        if not self._pinned:
            self._pin(revision, history)
        changes = Changes()
        puts, known, stale = changes.puts, self._known, self._stale
        heard = -1 if self._doubted else self.revision
        last = b""
        for kv in kvs:
            last = kv.key
            name = self._name(last)
            if name is None:
                continue
            if stale:
                stale.discard(name)
            if name in known:
                if kv.mod_revision <= heard:
                    continue
            elif self._is_beyond(name):
                continue
            else:
                known[name] = None
            puts[name] = kv.value
        if more and last:
            return changes, ListFrom(last + b"\0", self._end, self._pinned)
        return self._sweep(changes)

    def events(self, events: Iterable[Event], revision: int, *, more: bool = False) -> Changes:
        """Takes one answer of the watch. Without events it is a progress report: heard up to `revision`. After a part
        with `more` nothing counts as heard: if the rest does not come, all of the answer comes again.
        """
        changes = Changes()
        fresh: set[str] = set()
        heard = self.revision
        latest = 0
        for event in events:
            kv = event.kv
            latest = max(latest, kv.mod_revision)
            name = self._name(kv.key)
            if kv.mod_revision <= heard or name is None:
                continue
            if event.type == DELETE:
                changes.puts.pop(name, None)
                if name in self._known:
                    del self._known[name]
                    if name not in fresh:
                        changes.deletes.add(name)
                fresh.discard(name)
                continue
            if name in changes.deletes:
                changes.deletes.discard(name)
            elif self._is_beyond(name):
                continue
            elif name not in self._known:
                fresh.add(name)
            self._known[name] = None
            changes.puts[name] = kv.value
        if not more:
            self.revision = max(heard, latest or revision)
        return changes

    def _pin(self, revision: int, history: int) -> None:
        if history != self._history or revision < self.revision:
            if self._history:
                self.relists[self._why] -= 1
                self.relists[Why.OTHER_ETCD] += 1
            self._doubted = self._renews = True
        self._history, self._pinned = history, revision

    def _sweep(self, changes: Changes) -> tuple[Changes, WatchFrom]:
        for name in self._stale:
            del self._known[name]
        changes.deletes, self._stale = self._stale, set()
        self.revision, self._pinned = self._pinned, 0
        self._doubted = self._doubted and not self._renews
        self.synced = True
        return changes, WatchFrom(self._start, self._end, self.revision + 1)

    def _is_beyond(self, name: str) -> bool:
        if self.limit is None or len(self._known) < self.limit or name in self._known:
            return False
        self.beyond += 1
        return True

    def _name(self, key: bytes) -> str | None:
        """None for a key that was not asked for or that no record can have; bytes that are no text are kept apart, the
        codec refuses them.
        """
        if not key.startswith(self._start) or len(key) - len(self._start) > NAME_MAX:
            return None
        return key[len(self._start) :].decode(errors="backslashreplace")

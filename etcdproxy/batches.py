"""Events encoded once for all watchers that want the same: one batch of them at a time, within bounds. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from etcdproxy.encoding import encode_delete, encode_put, encode_watch
from etcdproxy.history import Change, History
from etcdproxy.http2.message import Message
from etcdproxy.policy import Interval

BATCH_BYTES = 512 << 10  # events of one answer, unless one commit alone is bigger
PART_BYTES = 1 << 20  # of a bigger commit, for a watcher that takes fragments
MAX_MESSAGES = 16  # of a batch that are kept, for as many watch ids
_KEPT_BYTES = 256 << 20  # that kept batches could come to with all their messages; rarely is it a tenth of it


@dataclass(frozen=True, slots=True)
class Selection:
    """What a watcher wants to hear of; watchers with equal selections share their encoded events."""

    interval: Interval
    puts: bool = True
    deletes: bool = True
    previous: bool = False

    def wanted(self, changes: Iterable[Change]) -> Iterator[Change]:
        start, end, puts, deletes = self.interval.start, self.interval.end, self.puts, self.deletes
        for change in changes:
            key = change.key
            if start <= key and (end is None or key < end) and (deletes if change.after is None else puts):
                yield change

    def wants_any(self, changes: Iterable[Change]) -> bool:
        return next(self.wanted(changes), None) is not None


@dataclass(slots=True)
class Batch:
    """Encoded events up to and with `revision`; `more` if others follow at once. `header` is the answer's.

    They are joined to one part; to several of about PART_BYTES only if one commit is bigger than that.
    """

    parts: list[bytes]
    revision: int
    more: bool
    header: bytes = b""
    messages: dict[int, Message] = field(default_factory=dict)  # by watch id

    def message(self, watch_id: int) -> Message:
        """All its events as one message."""
        message = self.messages.get(watch_id)
        if message is None:
            message = Message(encode_watch(self.header, watch_id, b"".join(self.parts)))
            if len(self.messages) < MAX_MESSAGES:
                self.messages[watch_id] = message
        return message


@dataclass(slots=True, eq=False)
class Shared:
    """The batch that the last watcher of a selection got: the events from `begin` on that were known at `end`."""

    selection: Selection
    batch: Batch | None = None
    begin: int = 0
    end: int = 0


class Shelf:
    """Keeps the batches of as many selections as fit; the one longest there makes place."""

    def __init__(self, max_bytes: int = _KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sizes: dict[Shared, int] = {}

    def put(self, shared: Shared, batch: Batch, begin: int, end: int) -> None:
        self.drop(shared)
        shared.batch, shared.begin, shared.end = batch, begin, end
        size = self._sizes[shared] = sum(map(len, batch.parts)) * (1 + 2 * MAX_MESSAGES)  # and in frames
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._sizes) > 1:
            self.drop(next(iter(self._sizes)))

    def drop(self, shared: Shared) -> None:
        self._bytes -= self._sizes.pop(shared, 0)
        shared.batch = None

    def clear(self) -> None:
        for shared in list(self._sizes):
            self.drop(shared)


def collect_batch(history: History, selection: Selection, begin: int) -> Batch:
    """Encodes whole commits until there is enough for one answer: a revision is never split. Raises Compacted."""
    parts: list[bytes] = []
    events: list[bytes] = []
    size, revision, more = 0, history.revision, False
    for commit in history.commits_from(begin):
        if parts or size >= BATCH_BYTES:
            revision, more = commit.revision - 1, True
            break
        for change in selection.wanted(commit.changes):
            event = _encode(change, commit.revision, selection.previous)
            if size + len(event) > PART_BYTES and events:
                parts.append(b"".join(events))
                events, size = [], 0
            events.append(event)
            size += len(event)
    if events:
        parts.append(b"".join(events))
    return Batch(parts, revision, more)


def _encode(change: Change, revision: int, with_previous: bool) -> bytes:
    previous = change.before.field if with_previous and change.before is not None else None
    if change.after is not None:
        return encode_put(change.after.field, previous)
    return encode_delete(change.key, revision, previous)

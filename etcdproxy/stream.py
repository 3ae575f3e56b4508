"""One Watch stream: requests in, answers out. It does no input or output: the service moves the bytes.

Answers to requests (created, cancelled) come in the order of the requests and before the events of their watcher.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from etcdproxy.batches import Batch, Selection
from etcdproxy.encoding import encode_watch
from etcdproxy.history import Compacted
from etcdproxy.http2.message import Message
from etcdproxy.hub import Hub, Watcher
from etcdproxy.policy import Interval
from wire.proto import rpc_pb2

_MAX_ANSWERS = 64  # not yet sent; further requests of the stream wait
_NO_WATCH = -1
_DUPLICATE = "mvcc: duplicate watch ID provided on the WatchStream"
_EMPTY_RANGE = "mvcc: watcher range is empty"

_Create = rpc_pb2.WatchCreateRequest


class StreamLost(Exception):
    """The stream must end: what its watchers have heard has no continuation here."""


class Gate(Protocol):
    """What a stream's peer may do, and the account of it."""

    def refuse(self, interval: Interval) -> str:
        """Why this interval may not be watched, empty if it may."""

    def opened(self, interval: Interval) -> None:
        """A watch of this interval is open."""

    def closed(self, number: int) -> None:
        """So many watches are no longer open."""


class WatchStream:
    """The watchers of one stream. `take` gives one answer at a time; after it gave None, `wake` tells of more.

    Until then `push` may be given a message that has nothing to wait for; it says whether it could be sent. The gate
    decides what may be watched.
    """

    __slots__ = (
        "_answers", "_awake", "_behind", "_fragments", "_gate", "_hub", "_lost", "_next_id", "_progress_wanted",
        "_push", "_room", "_wake", "_watchers",
    )  # fmt: skip

    def __init__(
        self,
        hub: Hub,
        gate: Gate,
        wake: Callable[[], None] = lambda: None,
        push: Callable[[Message], bool] = lambda message: False,
    ) -> None:
        self._hub = hub
        self._gate = gate
        self._watchers: dict[int, Watcher] = {}
        self._next_id = 0
        self._answers: deque[bytes] = deque()
        self._behind: dict[Watcher, None] = {}
        self._fragments: deque[bytes] = deque()
        self._progress_wanted = False
        self._lost = False
        self._awake = False  # `take` is to be called: what comes now waits for its turn
        self._wake = wake
        self._push = push
        self._room = asyncio.Event()
        self._room.set()

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    async def room(self) -> None:
        """Waits until another request may be handled: a peer that does not read is not listened to either."""
        await self._room.wait()

    def handle(self, request: rpc_pb2.WatchRequest) -> None:
        """Does what one request of the peer says."""
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._cancel(request.cancel_request.watch_id)
        elif kind == "progress_request":
            self._progress_wanted = True
            self._rouse()

    def take(self) -> bytes | None:
        """The next answer to send, or None. Raises StreamLost."""
        if self._fragments:
            return self._fragments.popleft()
        if self._answers:
            answer = self._answers.popleft()
            if len(self._answers) < _MAX_ANSWERS:
                self._room.set()
            return answer
        if self._lost:
            raise StreamLost
        while self._behind:
            if (events := self._next_events(next(iter(self._behind)))) is not None:
                return events
        if self._progress_wanted:
            self._progress_wanted = False
            return self._encode(watch_id=_NO_WATCH)
        self._awake = False
        return None

    def push(self, watcher: Watcher, batch: Batch) -> bool:
        if self._awake or len(batch.parts) != 1 or not self._push(batch.message(watcher.watch_id)):
            return False
        watcher.told = True
        return True

    def wake(self, watcher: Watcher) -> None:
        self._behind[watcher] = None
        self._rouse()

    def lose(self) -> None:
        """Tells every watcher that what it has heard is compacted, under the new store's header; then ends."""
        if self._lost:
            return
        self._lost = True
        self._fragments.clear()
        for watcher in list(self._watchers.values()):
            self._end_compacted(watcher, self._hub.history.revision + 1)
        self._rouse()

    def end(self) -> None:
        """Ends the stream without a word to its watchers."""
        self._lost = True
        self._fragments.clear()
        self._answers.clear()
        self._rouse()

    def notify(self) -> None:
        """Tells the watchers that asked for it, and lack nothing, how far they have heard."""
        for watcher in self._watchers.values():
            if watcher.wants_progress and not watcher.told and watcher.behind_from is None:
                self._answer(self._encode(watch_id=watcher.watch_id))
            watcher.told = False

    def close(self) -> None:
        """Forgets all watchers."""
        for watcher in self._watchers.values():
            self._hub.remove(watcher)
        self._gate.closed(len(self._watchers))
        self._watchers.clear()
        self._behind.clear()

    def _create(self, request: rpc_pb2.WatchCreateRequest) -> None:
        key = request.key or b"\0"
        interval = Interval.of_request(key, request.range_end)
        if reason := self._gate.refuse(interval):
            self._refuse(reason)
        elif request.watch_id and request.watch_id in self._watchers:
            self._refuse(_DUPLICATE)
        elif interval.is_empty:
            self._refuse(_EMPTY_RANGE)
        else:
            self._add(request, interval)

    def _add(self, request: rpc_pb2.WatchCreateRequest, interval: Interval) -> None:
        filters = set(request.filters)
        selection = Selection(interval, _Create.NOPUT not in filters, _Create.NODELETE not in filters, request.prev_kv)
        watch_id = request.watch_id or self._free_id()
        start = max(request.start_revision, 0)
        watcher = Watcher(self, watch_id, selection, start, request.fragment, request.progress_notify)
        self._watchers[watch_id] = watcher
        self._gate.opened(interval)
        self._answer(self._encode(watch_id=watch_id, created=True))
        self._hub.add(watcher)

    def _free_id(self) -> int:
        while self._next_id in self._watchers:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _refuse(self, reason: str) -> None:
        self._answer(self._encode(watch_id=_NO_WATCH, created=True, canceled=True, cancel_reason=reason))

    def _cancel(self, watch_id: int) -> None:
        watcher = self._watchers.get(watch_id)
        if watcher is not None:
            self._forget(watcher)
            self._answer(self._encode(watch_id=watch_id, canceled=True))

    def _forget(self, watcher: Watcher) -> None:
        del self._watchers[watcher.watch_id]
        self._behind.pop(watcher, None)
        self._gate.closed(1)
        self._hub.remove(watcher)

    def _next_events(self, watcher: Watcher) -> bytes | None:
        """The next answer for a watcher that is behind, None if nothing of what it lacks concerns it."""
        try:
            batch = self._hub.fetch(watcher)
        except Compacted as error:
            self._end_compacted(watcher, error.revision)
            return self.take()
        if not batch.more:
            del self._behind[watcher]
        else:  # the others get their turn first
            self._behind[watcher] = self._behind.pop(watcher)
        if not batch.parts:
            return None
        watcher.told = True
        watch_id = watcher.watch_id
        if watcher.takes_fragments and len(batch.parts) > 1:
            header, (*parts, last) = batch.header, batch.parts
            self._fragments.extend(encode_watch(header, watch_id, part, fragment=True) for part in parts)
            self._fragments.append(encode_watch(header, watch_id, last))
            return self._fragments.popleft()
        return batch.message(watch_id).data

    def _end_compacted(self, watcher: Watcher, revision: int) -> None:
        self._forget(watcher)
        self._answer(self._encode(watch_id=watcher.watch_id, canceled=True, compact_revision=revision))

    def _answer(self, answer: bytes) -> None:
        self._answers.append(answer)
        if len(self._answers) >= _MAX_ANSWERS:
            self._room.clear()
        self._rouse()

    def _rouse(self) -> None:
        if not self._awake:
            self._awake = True
            self._wake()

    def _encode(
        self,
        *,
        watch_id: int,
        created: bool = False,
        canceled: bool = False,
        compact_revision: int = 0,
        cancel_reason: str = "",
    ) -> bytes:
        return (
            self._hub.header()
            + rpc_pb2.WatchResponse(
                watch_id=watch_id,
                created=created,
                canceled=canceled,
                compact_revision=compact_revision,
                cancel_reason=cancel_reason,
            ).SerializeToString()
        )

"""The strictest reader that a proxy may meet: lists, watches and believes as a Cilium 1.20 agent does.

Written from the wire contract alone (its sections 0.1, 1.4 and 9), with nothing of ours but the generated stubs.
Where a real agent tolerates or silently goes wrong, this one raises Violation.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from tests.support import strict_validation as validation
from wire.proto import kv_pb2, rpc_pb2

PAGE = 256
HEARTBEAT = b"cilium/.heartbeat"


class Violation(Exception):
    """The server broke the contract."""


class Lost(Exception):
    """The reader gives the connection up; it keeps what it knows."""


@dataclass
class Store:
    """Records of one kind. Of values that do not pass, only the reason is kept."""

    check: Callable[[str, bytes, validation.Peer], object]
    peer: validation.Peer
    records: dict[str, bytes] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    synced: bool = False

    def put(self, name: str, value: bytes) -> None:
        try:
            accepted = self.check(name, value, self.peer)
        except validation.Invalid as error:
            self.invalid[name] = str(error)  # an older valid value stays
            return
        if accepted is False:  # a service that is not shared
            self.delete(name)
            return
        self.records[name] = value
        self.stale.discard(name)

    def delete(self, name: str) -> None:
        self.records.pop(name, None)

    def listed(self) -> None:
        """The list is complete: what was known before and not seen again is gone."""
        for name in self.stale:
            self.records.pop(name, None)
        self.stale, self.synced = set(), True

    def __repr__(self) -> str:
        return f"Store({len(self.records)} records, {len(self.stale)} stale, synced={self.synced}, {self.invalid})"


@dataclass
class _Sink:
    """Who hears about a prefix."""

    put: Callable[[bytes, bytes], None]
    delete: Callable[[bytes], None] = lambda key: None
    listed: Callable[[], None] = lambda: None


class StrictReader:
    """What one remote cluster is believed to hold. `connect` may be called again and again, on new channels."""

    def __init__(self, cluster: str, *, own_id: int = 200, heartbeat_limit_s: float = 120.0) -> None:
        self.cluster = cluster
        self.stores: dict[str, Store] = {}
        self.peer: validation.Peer | None = None
        self.canaries: set[str] = set()
        self.heartbeats = 0
        self.pages = 0
        self.relists = 0
        self.changed = asyncio.Event()
        self.ended: BaseException | None = None  # why the last connection was given up
        self._own_id = own_id
        self._limit_s = heartbeat_limit_s

    async def connect(self, channel: grpc.aio.Channel) -> None:
        """Reads until the connection is lost. Raises Lost, Violation, Invalid (configuration), AioRpcError."""
        link = _Link(channel, self)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.receive())
                group.create_task(self._read(link, group))
        except BaseExceptionGroup as errors:
            self.ended = errors.exceptions[0]
            self.changed.set()
            raise self.ended from errors
        finally:
            link.close()

    @property
    def ready(self) -> bool:
        return bool(self.stores) and all(store.synced for store in self.stores.values())

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a change that makes it true. Raises AssertionError in the end, or what ended the connection."""
        try:
            async with asyncio.timeout(30):
                while not condition():
                    if self.ended:
                        raise self.ended
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within 30 s; {self.stores}"[:2000]) from None

    async def _read(self, link: "_Link", group: asyncio.TaskGroup) -> None:
        beat = _Beat(time.monotonic())
        listed = asyncio.Event()
        sink = _Sink(lambda key, value: self._beat(beat), listed=listed.set)
        group.create_task(link.list_and_watch(HEARTBEAT, sink))
        group.create_task(self._check_heart(beat))
        await listed.wait()
        config = await self._config(link)
        peer = validation.check_config(config, self.cluster, own_id=self._own_id, used=frozenset())
        if validation.is_cached(config):
            raise Lost("the cached layout is not for a remote reader")
        self.peer = peer
        started: set[str] = set()
        if not validation.wants_canaries(config):
            for kind in validation.KINDS:
                self._start(kind, peer, link, group, started)
            return
        prefix = f"cilium/synced/{self.cluster}/".encode()

        def seen(key: bytes, value: bytes) -> None:
            name = key.removeprefix(prefix).decode()
            self.canaries.add(name)
            for kind, (start, _, _) in validation.KINDS.items():
                if start == name:
                    self._start(kind, peer, link, group, started)

        await link.list_and_watch(prefix, _Sink(seen))

    async def _config(self, link: "_Link") -> bytes:
        """Read once per connection and never watched; it may come a little later."""
        async with asyncio.timeout(180):
            while True:
                if found := await link.get(f"cilium/cluster-config/{self.cluster}".encode()):
                    return found
                await asyncio.sleep(0.2)

    def _start(
        self, kind: str, peer: validation.Peer, link: "_Link", group: asyncio.TaskGroup, started: set[str]
    ) -> None:
        """Once per connection: what was known before is stale until the list is done."""
        if kind in started:
            return
        started.add(kind)
        start, scope, check = validation.KINDS[kind]
        prefix = (start + scope.format(cluster=self.cluster)).encode()
        store = self.stores.setdefault(kind, Store(check, peer))
        store.peer, store.stale, store.synced = peer, set(store.records), False

        def name_of(key: bytes) -> str:
            return key.removeprefix(prefix).decode(errors="replace")

        sink = _Sink(
            lambda key, value: store.put(name_of(key), value), lambda key: store.delete(name_of(key)), store.listed
        )
        group.create_task(link.list_and_watch(prefix, sink))

    def _beat(self, beat: "_Beat") -> None:
        beat.at = time.monotonic()
        self.heartbeats += 1

    async def _check_heart(self, beat: "_Beat") -> None:
        while True:
            await asyncio.sleep(min(30.0, self._limit_s / 10))
            if (silent_s := time.monotonic() - beat.at) > self._limit_s:
                raise Lost(f"no heartbeat for {silent_s:.1f} s")


@dataclass
class _Beat:
    """When the heart was last heard, by our own clock; its value is not looked at."""

    at: float


@dataclass
class _Watcher:
    """One watch on the stream, from the request to its end."""

    start_revision: int
    created: "asyncio.Future[int]"
    answers: "asyncio.Queue[rpc_pb2.WatchResponse]" = field(default_factory=asyncio.Queue)


class _Link:
    """One connection: Range calls, and one Watch stream that all watches share."""

    def __init__(self, channel: grpc.aio.Channel, owner: StrictReader) -> None:
        self._range = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc_pb2.RangeRequest.SerializeToString,
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )
        watch: Any = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )
        self._stream = watch(metadata=(("hasleader", "true"),), wait_for_ready=True)
        self._writing = asyncio.Lock()
        self._requested: list[_Watcher] = []
        self._watchers: dict[int, _Watcher] = {}
        self._used: set[int] = set()
        self._owner = owner
        self._cluster_id: int | None = None

    def close(self) -> None:
        self._stream.cancel()

    async def get(self, key: bytes) -> bytes | None:
        page = await self._ask(rpc_pb2.RangeRequest(key=key))
        return page.kvs[0].value if page.kvs else None

    async def list_and_watch(self, prefix: bytes, sink: _Sink) -> None:
        """List, watch from the revision after it, and list again whenever the history is cut off. Never returns."""
        known: set[bytes] = set()
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        first = True
        while True:
            revision, found = 0, set()
            async for page in self._pages(prefix, end):
                revision = revision or page.header.revision
                for kv in page.kvs:
                    found.add(kv.key)
                    sink.put(kv.key, kv.value)
            for key in known - found:
                sink.delete(key)
            if first:
                sink.listed()
            known, first = found, False
            self._owner.changed.set()
            await self._watch(prefix, end, revision, known, sink)
            self._owner.relists += 1

    async def receive(self) -> None:
        """Hands each answer to its watch."""
        async for answer in self._stream:
            self._check_header(answer.header)
            if answer.created:
                if not self._requested:
                    raise Violation("created, but nothing was asked for")
                watcher = self._requested.pop(0)
                if answer.watch_id in self._used:
                    raise Violation(f"watch id {answer.watch_id} was used before")
                self._used.add(answer.watch_id)
                self._watchers[answer.watch_id] = watcher
                watcher.created.set_result(answer.watch_id)
            if answer.watch_id not in self._watchers:
                raise Violation(f"an answer for watch {answer.watch_id}, which is not there")
            self._watchers[answer.watch_id].answers.put_nowait(answer)
        raise Lost("the stream ended")

    async def _pages(self, prefix: bytes, end: bytes) -> AsyncIterator[rpc_pb2.RangeResponse]:
        key, pinned, expected = prefix, 0, 0
        while True:
            page = await self._ask(rpc_pb2.RangeRequest(key=key, range_end=end, limit=PAGE, revision=pinned))
            self._owner.pages += 1
            _check_page(page, key, end, pinned or page.header.revision)
            if pinned and page.count != expected:
                raise Violation(f"count {page.count} on a later page, {expected} were left")
            yield page
            if not page.more or not page.kvs:
                return
            pinned, expected = pinned or page.header.revision, page.count - len(page.kvs)
            key = page.kvs[-1].key + b"\0"

    async def _watch(self, prefix: bytes, end: bytes, revision: int, known: set[bytes], sink: _Sink) -> None:
        """Hears events until the watch is cancelled because of a compaction."""
        watcher = _Watcher(revision + 1, asyncio.get_running_loop().create_future())
        create = rpc_pb2.WatchCreateRequest(key=prefix, range_end=end, start_revision=revision + 1)
        async with self._writing:
            self._requested.append(watcher)
            await self._stream.write(rpc_pb2.WatchRequest(create_request=create))
        watch_id = await watcher.created
        heard = revision
        while True:
            answer = await watcher.answers.get()
            heard = _check_events(answer.events, heard, prefix, end, known)
            if heard > answer.header.revision:
                raise Violation(f"revision {answer.header.revision} in a header, {heard} in its events")
            for event in answer.events:
                if event.type == kv_pb2.Event.DELETE:
                    sink.delete(event.kv.key)
                else:
                    sink.put(event.kv.key, event.kv.value)
            self._owner.changed.set()
            if answer.canceled:
                del self._watchers[watch_id]
                if not answer.compact_revision:
                    raise Lost(f"a watch was cancelled: {answer.cancel_reason}")
                return

    async def _ask(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        answer: rpc_pb2.RangeResponse = await self._range(request, timeout=60, wait_for_ready=True)
        self._check_header(answer.header if answer.HasField("header") else None)
        return answer

    def _check_header(self, header: rpc_pb2.ResponseHeader | None) -> None:
        if header is None or not header.cluster_id or not header.revision:
            raise Violation("no header, or one without cluster id or revision")
        if self._cluster_id is None:
            self._cluster_id = header.cluster_id
        if header.cluster_id != self._cluster_id:
            raise Lost("the cluster id changed")


def _check_page(page: rpc_pb2.RangeResponse, start: bytes, end: bytes, snapshot: int) -> None:
    keys = [kv.key for kv in page.kvs]
    if keys != sorted(set(keys)) or len(keys) > PAGE:
        raise Violation("a page out of order, with a key twice, or too long")
    if any(not start <= key < end for key in keys):
        raise Violation("a page with a key outside its range")
    if any(not 0 < kv.create_revision <= kv.mod_revision <= snapshot for kv in page.kvs):
        raise Violation(f"a page of revision {snapshot} with a later key, or one without revisions")
    if page.more != (page.count > len(keys)):
        raise Violation(f"more is {page.more} with {len(keys)} keys of {page.count}")


def _check_events(events: Sequence[kv_pb2.Event], heard: int, start: bytes, end: bytes, known: set[bytes]) -> int:
    """The last revision in them. `known` is kept as it stands after them."""
    at_this: set[bytes] = set()
    for event in events:
        kv = event.kv
        if kv.mod_revision > heard:
            heard, at_this = kv.mod_revision, set()
        elif kv.mod_revision < heard or not at_this or kv.key in at_this:
            raise Violation(f"revision {kv.mod_revision} of {kv.key!r} after {heard}, or split off from it")
        at_this.add(kv.key)
        if not start <= kv.key < end:
            raise Violation(f"an event of {kv.key!r}, which was not asked for")
        if event.type == kv_pb2.Event.DELETE:
            if kv.key not in known:
                raise Violation(f"a delete of {kv.key!r}, which was not there")
            known.discard(kv.key)
            continue
        if (kv.create_revision == kv.mod_revision) == (kv.key in known):
            raise Violation(f"{kv.key!r} is called new and is not, or the other way round")
        known.add(kv.key)
    return heard

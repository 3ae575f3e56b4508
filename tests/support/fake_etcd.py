"""An etcd that a test can steer: Range and Watch over real gRPC on loopback, with what a real one does only rarely:
a compaction between two pages or under a watch, a stream that is cut, a refusal.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from wire.proto import kv_pb2, rpc_pb2


@dataclass
class Watch:
    """One watch of the stream."""

    start: bytes
    end: bytes
    revision: int


@dataclass
class FakeEtcd:
    """Content and history; `refuse` may abort a Range; `asked` has all Range requests."""

    revision: int = 1
    cluster_id: int = 7
    content: dict[bytes, kv_pb2.KeyValue] = field(default_factory=dict)
    history: list[kv_pb2.Event] = field(default_factory=list)
    watches: dict[int, Watch] = field(default_factory=dict)
    asked: list[rpc_pb2.RangeRequest] = field(default_factory=list)
    refuse: Callable[[rpc_pb2.RangeRequest], tuple[grpc.StatusCode, str] | None] = lambda request: None
    _out: "asyncio.Queue[rpc_pb2.WatchResponse | None]" = field(default_factory=asyncio.Queue)

    def put(self, key: str, value: str) -> None:
        self.revision += 1
        kv = kv_pb2.KeyValue(key=key.encode(), value=value.encode(), mod_revision=self.revision)
        self.content[kv.key] = kv
        self._tell(kv_pb2.Event(type=kv_pb2.Event.PUT, kv=kv))

    def put_all(self, records: dict[str, str]) -> None:
        for key, value in records.items():
            self.put(key, value)

    def put_at_once(self, items: dict[str, str]) -> None:
        """At one revision, so that a watch hears of all of them in one answer."""
        self.revision += 1
        events = []
        for key, value in items.items():
            kv = kv_pb2.KeyValue(key=key.encode(), value=value.encode(), mod_revision=self.revision)
            self.content[kv.key] = kv
            events.append(kv_pb2.Event(type=kv_pb2.Event.PUT, kv=kv))
        self.history += events
        for watch_id, watch in self.watches.items():
            if seen := [event for event in events if watch.start <= event.kv.key < (watch.end or watch.start + b"\0")]:
                self._out.put_nowait(self._answer(watch_id, events=seen))

    def delete(self, key: str) -> None:
        self.revision += 1
        del self.content[key.encode()]
        kv = kv_pb2.KeyValue(key=key.encode(), mod_revision=self.revision)
        self._tell(kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=kv))

    def compact_watches(self, start: bytes) -> None:
        """The watches that begin there end: their revision is compacted."""
        for watch_id, watch in list(self.watches.items()):
            if watch.start == start:
                del self.watches[watch_id]
                ended = self._answer(watch_id, canceled=True, compact_revision=self.revision)
                self._out.put_nowait(ended)

    def cut(self) -> None:
        """Ends the watch stream."""
        self._out.put_nowait(None)

    def watched(self, start: bytes) -> bool:
        return any(watch.start == start for watch in self.watches.values())

    def _answer(self, watch_id: int, **more: Any) -> rpc_pb2.WatchResponse:
        header = rpc_pb2.ResponseHeader(cluster_id=self.cluster_id, revision=self.revision)
        return rpc_pb2.WatchResponse(header=header, watch_id=watch_id, **more)

    def _tell(self, event: kv_pb2.Event) -> None:
        self.history.append(event)
        for watch_id, watch in self.watches.items():
            if watch.start <= event.kv.key < (watch.end or watch.start + b"\0"):
                self._out.put_nowait(self._answer(watch_id, events=[event]))

    async def range(self, request: rpc_pb2.RangeRequest, context: Any) -> rpc_pb2.RangeResponse:
        self.asked.append(request)
        if refusal := self.refuse(request):
            await context.abort(*refusal)
        end = request.range_end or request.key + b"\0"
        kvs = [self.content[key] for key in sorted(self.content) if request.key <= key < end]
        limit = request.limit or len(kvs)
        header = rpc_pb2.ResponseHeader(cluster_id=self.cluster_id, revision=self.revision)
        return rpc_pb2.RangeResponse(header=header, kvs=kvs[:limit], more=len(kvs) > limit, count=len(kvs))

    async def watch(self, _requests: object, context: Any) -> None:
        reader = asyncio.create_task(self._listen(context))
        try:
            while (answer := await self._out.get()) is not None:
                await context.write(answer)
        finally:
            reader.cancel()
            self.watches.clear()

    async def _listen(self, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            create = request.create_request
            self.watches[create.watch_id] = Watch(create.key, create.range_end, create.start_revision)
            self._out.put_nowait(self._answer(create.watch_id, created=True))
            missed = [e for e in self.history if e.kv.mod_revision >= create.start_revision]
            missed = [e for e in missed if create.key <= e.kv.key < (create.range_end or create.key + b"\0")]
            if missed:
                self._out.put_nowait(self._answer(create.watch_id, events=missed))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to it, for the time of the block."""
        message = rpc_pb2
        methods = {
            "Range": grpc.unary_unary_rpc_method_handler(
                self.range, message.RangeRequest.FromString, message.RangeResponse.SerializeToString
            )
        }
        streams = {
            "Watch": grpc.stream_stream_rpc_method_handler(
                self.watch, message.WatchRequest.FromString, message.WatchResponse.SerializeToString
            )
        }
        server = grpc.aio.server(
            handlers=[
                grpc.method_handlers_generic_handler("etcdserverpb.KV", methods),
                grpc.method_handlers_generic_handler("etcdserverpb.Watch", streams),
            ]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            await server.stop(None)

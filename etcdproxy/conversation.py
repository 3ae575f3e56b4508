"""One Watch stream between gRPC and its `WatchStream`: moves the bytes, keeps the account, knows when to end."""

import asyncio

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from etcdproxy.audit import Audit, StreamRecord
from etcdproxy.hub import Hub
from etcdproxy.peers import Peer, Peers
from etcdproxy.policy import Interval, allows
from etcdproxy.stream import StreamLost, WatchStream
from wire.proto import rpc_pb2

DENIED = "etcdserver: permission denied"
TOO_MANY = "meshd: too many"

Context = grpc.aio.ServicerContext[bytes, bytes]
End = tuple[grpc.StatusCode, str]

_LOST: End = (grpc.StatusCode.UNAVAILABLE, "meshd: the stream ended here, begin anew")
_NOT_READ: End = (grpc.StatusCode.RESOURCE_EXHAUSTED, "meshd: this stream is not read")
_NO_REQUEST: End = (grpc.StatusCode.INVALID_ARGUMENT, "meshd: not a WatchRequest")


class Conversation:
    """An open stream of a peer. It is its own watches' gate: what they may see, and how many they may be."""

    def __init__(
        self, hub: Hub, peers: Peers, audit: Audit, peer: Peer, granted: tuple[Interval, ...], address: str
    ) -> None:
        self.peer = peer
        self._peers = peers
        self._audit = audit
        self._granted = granted
        self._watch = WatchStream(hub, self)
        self._record = StreamRecord(peer, address)
        self._task: asyncio.Task[object] | None = None
        self._writing_since: float | None = None
        self._stalled = False

    def refuse(self, interval: Interval) -> str:
        if not allows(self._granted, interval):
            code, reason = "PermissionDenied", DENIED
        elif excess := self._peers.excess_watches(self.peer):
            code, reason = "ResourceExhausted", f"{TOO_MANY} {excess}"
        else:
            return ""
        refusal = self._peers.refuse(self.peer, interval.start, reason)
        self._audit.refused(refusal, self._record.address)
        return f"rpc error: code = {code} desc = {reason}"  # as etcd writes it

    def opened(self, interval: Interval) -> None:
        self._peers.count_watches(self.peer, 1)
        self._record.note_watch(interval.start)

    def closed(self, number: int) -> None:
        self._peers.count_watches(self.peer, -number)

    def notify(self) -> None:
        self._watch.notify()

    def end(self) -> None:
        """Ends the stream at once."""
        self._watch.end()

    def end_if_stalled(self, now: float, stall_s: float) -> None:
        """Ends the stream if its reader has taken nothing for so long; `now` is the event loop's time."""
        if self._writing_since and self._task and now - self._writing_since > stall_s:
            self._stalled = True
            self._task.cancel()

    async def run(self, context: Context) -> End:
        """Serves the stream until it must end; returns how."""
        self._task = asyncio.current_task()
        self._peers.count_stream(self.peer, 1)
        self._audit.opened(self._record)
        reason = "the reader left"
        try:
            end = await self._until_stalled(context)
            reason = end[1]
        finally:
            self._watch.close()
            self._peers.count_stream(self.peer, -1)
            self._audit.ended(self._record, reason)
        return end

    async def _until_stalled(self, context: Context) -> End:
        try:
            return await self._exchange(context)
        except asyncio.CancelledError:
            if not (self._stalled and self._task):
                raise
            self._task.uncancel()
            return _NOT_READ

    async def _exchange(self, context: Context) -> End:
        end = _LOST
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(context))
                await self._speak(context)
        except* StreamLost:
            pass
        except* DecodeError:
            end = _NO_REQUEST
        return end

    async def _listen(self, context: Context) -> None:
        while True:
            body = await context.read()
            if not isinstance(body, bytes):
                return  # the peer asks for no more, it may still listen
            self._watch.handle(rpc_pb2.WatchRequest.FromString(body))
            await self._watch.room()

    async def _speak(self, context: Context) -> None:
        loop = asyncio.get_running_loop()
        while True:
            answer = self._watch.take()
            if answer is None:
                await self._watch.wait()
                continue
            self._writing_since = loop.time()
            await context.write(answer)
            self._writing_since = None
            self._record.note_answer(len(answer))
            self._peers.count_answer(len(answer))

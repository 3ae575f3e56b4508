"""One Watch call and its `WatchStream`: hands on the messages, keeps the account, knows when to end."""

import asyncio

from google.protobuf.message import DecodeError
from grpc import StatusCode

from etcdproxy.audit import Audit, StreamRecord
from etcdproxy.http2.call import Call
from etcdproxy.http2.frames import PREFIX_BYTES
from etcdproxy.http2.status import Status
from etcdproxy.hub import Hub
from etcdproxy.peers import Peer, Peers
from etcdproxy.policy import Interval, allows
from etcdproxy.stream import StreamLost, WatchStream
from wire.proto import rpc_pb2

DENIED = "etcdserver: permission denied"
TOO_MANY = "meshd: too many"

NOT_READ = Status(StatusCode.RESOURCE_EXHAUSTED, "meshd: this stream is not read")
_LOST = Status(StatusCode.UNAVAILABLE, "meshd: the stream ended here, begin anew")
_NO_REQUEST = Status(StatusCode.INVALID_ARGUMENT, "meshd: not a WatchRequest")


class Conversation:
    """An open stream of a peer. It is its own watches' gate: what they may see, and how many they may be."""

    __slots__ = (
        "_audit", "_call", "_ended", "_granted", "_peers", "_record", "_watch", "peer",
    )  # fmt: skip

    def __init__(
        self, hub: Hub, peers: Peers, audit: Audit, peer: Peer, granted: tuple[Interval, ...], call: Call
    ) -> None:
        self.peer = peer
        self._peers = peers
        self._audit = audit
        self._granted = granted
        self._call = call
        self._watch = WatchStream(hub, self, call.wake, call.push)
        self._record = StreamRecord(peer, call.address)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def answers(self) -> tuple[int, int]:
        """How many messages and bytes were sent."""
        return self._call.messages, self._call.sent

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
        """Ends the stream at once: what its reader has not got yet, it does not get."""
        self._watch.end()
        self._finish(_LOST, at_once=True)

    def end_if_stalled(self, now: float, stall_s: float) -> None:
        """Ends the stream if its reader has taken nothing for so long; `now` is the event loop's time."""
        if self._call.since is not None and now - self._call.since > stall_s:
            self._finish(NOT_READ, at_once=True)

    async def run(self) -> None:
        """Serves the stream until it ends."""
        self._peers.count_stream(self.peer, 1)
        self._audit.opened(self._record)
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listen())
                self._call.pull_from(self._take)
                await self._ended
                listening.cancel()
        finally:
            self._watch.close()
            self._peers.count_stream(self.peer, -1)
            self._peers.count_answers(*self.answers)
            self._record.answers, self._record.sent = self.answers
            status = self._call.status
            self._audit.ended(self._record, status.details if status else "the reader left")

    def _finish(self, status: Status, *, at_once: bool = False) -> None:
        self._call.finish(status, at_once=at_once)
        if not self._ended.done():
            self._ended.set_result(None)

    async def _listen(self) -> None:
        try:
            while (body := await self._call.read()) is not None:
                self._watch.handle(rpc_pb2.WatchRequest.FromString(body))
                await self._watch.room()
        except DecodeError:
            self._finish(_NO_REQUEST)
        # A peer that asks for no more may still listen.

    def _take(self, room: int) -> list[bytes]:
        """Answers for so many bytes; the last one may be too much."""
        answers: list[bytes] = []
        size = 0
        try:
            while size < room and (answer := self._watch.take()) is not None:
                answers.append(answer)
                size += PREFIX_BYTES + len(answer)
        except StreamLost:
            self._finish(_LOST)
        return answers

"""The gRPC methods that exist: Range, Watch and Status. Read-only by omission: there is no code that writes.

Requests are decoded and asked of the policy before anything else; answers leave as bytes from the hub.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from google.protobuf.message import DecodeError
from grpc import StatusCode

from etcdproxy.audit import Audit
from etcdproxy.conversation import DENIED, NOT_READ, TOO_MANY, Conversation
from etcdproxy.history import Compacted
from etcdproxy.http2.call import Call
from etcdproxy.http2.status import OK, Refused, Status
from etcdproxy.hub import Hub
from etcdproxy.limits import Limits
from etcdproxy.peers import Peer, Peers
from etcdproxy.policy import Interval, Policy, allows
from etcdproxy.ranges import answer_range, answer_status, looks_into
from wire.proto import rpc_pb2

logger = logging.getLogger(__name__)

_READY_WAIT_S = 10.0  # how long a request waits for the first list of etcd
_AHEAD_WAIT_S = 3.0  # how long a read at a revision that another proxy has already seen waits for it
STALL_S = 30.0
_SWEEP_S = 5.0
_NOTIFY_S = 600.0  # as etcd

_NO_METHOD = "unknown method"
_NO_KEY = "etcdserver: key is not provided"
_COMPACTED = "etcdserver: mvcc: required revision has been compacted"
_FUTURE = "etcdserver: mvcc: required revision is a future revision"


class Service:
    """Answers readers from a hub, within a policy.

    A stream whose reader takes nothing for `stall_s` seconds is ended.
    """

    def __init__(self, hub: Hub, policy: Policy, limits: Limits, *, stall_s: float = STALL_S) -> None:
        self.policy = policy
        self.peers = Peers(limits)
        self._hub = hub
        self._stall_s = stall_s
        self._audit = Audit()
        self._open: dict[Conversation, None] = {}
        self._answering: dict[Call, None] = {}  # Ranges whose answer is not sent yet
        self._methods: dict[str, Callable[[Call], Awaitable[None]]] = {
            "/etcdserverpb.KV/Range": self._range,
            "/etcdserverpb.Maintenance/Status": self._status,
            "/etcdserverpb.Watch/Watch": self._watch,
        }

    async def serve(self, call: Call) -> None:
        """Runs a call to its end."""
        method = self._methods.get(call.path)
        try:
            if method is None:
                self.note_refusal(self._admit(call), _NO_METHOD, call.address, call.path.encode())
                raise Refused(StatusCode.UNIMPLEMENTED, f"{_NO_METHOD} {call.path[:200]}")
            await method(call)
        except Refused as refused:
            call.finish(refused.status)
        except Exception:  # a bug; it shall cost this call, not the other readers
            logger.exception("a call failed", extra={"path": call.path, "peer": call.name})
            call.finish(Status(StatusCode.INTERNAL, "meshd: this call failed, the proxy's log says why"))

    def answers(self) -> tuple[int, int]:
        """How many messages and bytes of watches were sent since the start."""
        counts = [(self.peers.answers, self.peers.sent), *(conversation.answers for conversation in self._open)]
        return sum(messages for messages, _ in counts), sum(size for _, size in counts)

    def see(self, name: str) -> Peer:
        """What is known of the peer with this certificate name, which is here now."""
        return self.peers.see(name, self.policy.role_of(name) or "")

    def version_for(self, name: str) -> str | None:
        """etcd's version, empty if it is not known yet; None for a peer that may read nothing."""
        return self._hub.store.version if self.policy.granted(name) else None

    def note_refusal(self, peer: Peer, reason: str, address: str, key: bytes = b"") -> None:
        self._audit.refused(self.peers.refuse(peer, key, reason), address)

    def note_handshake(self, address: str, reason: str, detail: str) -> None:
        """A reader did not get in; `reason` is one of a few."""
        self.peers.handshakes_failed[reason] += 1
        self._audit.turned_away(address, reason, detail)

    async def run(self) -> None:
        """Ends streams that stall, and tells idle watchers how far they have heard. Never returns."""
        loop = asyncio.get_running_loop()
        notified = loop.time()
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.end_stalled()
            if loop.time() - notified >= _NOTIFY_S:
                notified = loop.time()
                for conversation in self._open:
                    conversation.notify()

    def end_stalled(self) -> None:
        """Ends the streams that are not read; what they hold is given back."""
        now = asyncio.get_running_loop().time()
        for conversation in self._open:
            conversation.end_if_stalled(now, self._stall_s)
        for call in list(self._answering):
            if call.since is not None and now - call.since > self._stall_s:
                call.cut(NOT_READ)

    def replace_policy(self, policy: Policy) -> None:
        """Decides by other rules from now on; open streams of peers that may read something else now end at once."""
        before, self.policy = self.policy, policy
        for conversation in self._open:
            if policy.granted(conversation.peer.name) != before.granted(conversation.peer.name):
                conversation.end()

    async def _range(self, call: Call) -> None:
        body = await call.read_only()
        peer = self._admit(call)
        try:
            request = rpc_pb2.RangeRequest.FromString(body)
        except DecodeError:
            self._refuse(call, peer, b"", StatusCode.INVALID_ARGUMENT, "meshd: not a RangeRequest")
        if not request.key:
            self._refuse(call, peer, b"", StatusCode.INVALID_ARGUMENT, _NO_KEY)
        self._authorise(call, peer, request)
        await self._await_ready()
        if request.revision > self._hub.history.revision and not await self._hub.reach(request.revision, _AHEAD_WAIT_S):
            raise Refused(StatusCode.OUT_OF_RANGE, _FUTURE)
        self._authorise(call, peer, request)  # by the rules of now, if there was something to wait for
        peer.ranges += 1
        self._audit.read(peer, request.key)
        began_s = time.thread_time()
        try:
            answer = answer_range(self._hub.history, request, self._hub.header())
        except Compacted:
            raise Refused(StatusCode.OUT_OF_RANGE, _COMPACTED) from None
        if looks_into(request):
            self.peers.charge(peer, time.thread_time() - began_s)
        size = len(answer)
        if excess := self.peers.excess_bytes(peer, size):
            self._refuse(call, peer, request.key, StatusCode.RESOURCE_EXHAUSTED, f"{TOO_MANY} {excess}")
        call.answer(answer)
        del answer  # the call has it
        call.finish(OK)
        await self._count_until_sent(call, peer, size)

    async def _count_until_sent(self, call: Call, peer: Peer, size: int) -> None:
        self.peers.count_queued(peer, size)
        self._answering[call] = None
        try:
            await call.over()
        finally:
            del self._answering[call]
            self.peers.count_queued(peer, -size)

    async def _status(self, call: Call) -> None:
        await call.read_only()
        peer = self._admit(call)
        await self._await_ready()
        if not self.policy.granted(call.name):
            self._refuse(call, peer, b"", StatusCode.PERMISSION_DENIED, DENIED)
        call.answer(answer_status(self._hub.store, self._hub.history.revision, self._hub.header()))
        call.finish(OK)

    async def _watch(self, call: Call) -> None:
        peer = self._admit(call)
        await self._await_ready()
        if excess := self.peers.excess_streams(peer):
            self._refuse(call, peer, b"", StatusCode.RESOURCE_EXHAUSTED, f"{TOO_MANY} {excess}")
        granted = self.policy.granted(call.name)  # of now: rules that change later end it
        conversation = Conversation(self._hub, self.peers, self._audit, peer, granted, call)
        self._open[conversation] = None
        try:
            await conversation.run()
        finally:
            del self._open[conversation]

    def _admit(self, call: Call) -> Peer:
        """Who asks; refuses who asks too often."""
        peer = self.see(call.name)
        if excess := self.peers.excess(peer):
            self._refuse(call, peer, b"", StatusCode.RESOURCE_EXHAUSTED, f"{TOO_MANY} {excess}")
        return peer

    def _authorise(self, call: Call, peer: Peer, request: rpc_pb2.RangeRequest) -> None:
        if not allows(self.policy.granted(call.name), Interval.of_request(request.key, request.range_end)):
            self._refuse(call, peer, request.key, StatusCode.PERMISSION_DENIED, DENIED)

    def _refuse(self, call: Call, peer: Peer, key: bytes, code: StatusCode, reason: str) -> NoReturn:
        self.note_refusal(peer, reason, call.address, key)
        raise Refused(code, reason)

    async def _await_ready(self) -> None:
        if self._hub.ready.is_set():
            return
        try:
            await asyncio.wait_for(self._hub.ready.wait(), _READY_WAIT_S)
        except TimeoutError:
            raise Refused(StatusCode.UNAVAILABLE, "meshd: this proxy has not read its etcd yet") from None

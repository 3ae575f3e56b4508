"""The gRPC methods that exist: Range, Watch and Status. Read-only by omission: there is no code that writes.

Requests are decoded and asked of the policy before anything else; answers leave as bytes from the hub.
"""

import asyncio
import logging
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from etcdproxy.audit import Audit
from etcdproxy.conversation import DENIED, TOO_MANY, Context, Conversation
from etcdproxy.history import Compacted
from etcdproxy.hub import Hub
from etcdproxy.limits import Limits
from etcdproxy.peers import Peer, Peers
from etcdproxy.policy import Interval, Policy, allows
from etcdproxy.ranges import answer_range, answer_status
from wire.proto import rpc_pb2

logger = logging.getLogger(__name__)

_READY_WAIT_S = 10.0  # how long a request waits for the first list of etcd
_AHEAD_WAIT_S = 3.0  # how long a read at a revision that another proxy has already seen waits for it
STALL_S = 30.0
_SWEEP_S = 5.0
_NOTIFY_S = 600.0  # as etcd

_NO_KEY = "etcdserver: key is not provided"
_COMPACTED = "etcdserver: mvcc: required revision has been compacted"
_FUTURE = "etcdserver: mvcc: required revision is a future revision"


class Service(grpc.GenericRpcHandler):
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
        self._methods: dict[str, Any] = {
            "/etcdserverpb.KV/Range": grpc.unary_unary_rpc_method_handler(self._range),
            "/etcdserverpb.Maintenance/Status": grpc.unary_unary_rpc_method_handler(self._status),
            "/etcdserverpb.Watch/Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The method's handler; None, which gRPC answers with UNIMPLEMENTED, for all that does not exist."""
        return self._methods.get(handler_call_details.method)

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

    def replace_policy(self, policy: Policy) -> None:
        """Decides by other rules from now on; open streams of peers that may read something else now end at once."""
        before, self.policy = self.policy, policy
        for conversation in self._open:
            if policy.granted(conversation.peer.name) != before.granted(conversation.peer.name):
                conversation.end()

    def end_streams(self) -> None:
        """Ends all streams at once."""
        for conversation in self._open:
            conversation.end()

    async def _range(self, body: bytes, context: Context) -> bytes:
        peer, granted = await self._admit(context)
        try:
            request = rpc_pb2.RangeRequest.FromString(body)
        except DecodeError:
            await self._refuse(context, peer, b"", grpc.StatusCode.INVALID_ARGUMENT, "meshd: not a RangeRequest")
        if not request.key:
            await self._refuse(context, peer, b"", grpc.StatusCode.INVALID_ARGUMENT, _NO_KEY)
        if not allows(granted, Interval.of_request(request.key, request.range_end)):
            await self._refuse(context, peer, request.key, grpc.StatusCode.PERMISSION_DENIED, DENIED)
        await self._await_ready(context)
        peer.ranges += 1
        self._audit.read(peer, request.key)
        if request.revision > self._hub.history.revision and not await self._hub.reach(request.revision, _AHEAD_WAIT_S):
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, _FUTURE)
        try:
            return answer_range(self._hub.history, request, self._hub.header())
        except Compacted:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, _COMPACTED)

    async def _status(self, _body: bytes, context: Context) -> bytes:
        peer, granted = await self._admit(context)
        if not granted:
            await self._refuse(context, peer, b"", grpc.StatusCode.PERMISSION_DENIED, DENIED)
        await self._await_ready(context)
        return answer_status(self._hub.store, self._hub.history.revision, self._hub.header())

    async def _watch(self, _requests: object, context: Context) -> None:
        peer, granted = await self._admit(context)
        await self._await_ready(context)

        if excess := self.peers.excess_streams(peer):
            await self._refuse(context, peer, b"", grpc.StatusCode.RESOURCE_EXHAUSTED, f"{TOO_MANY} {excess}")
        conversation = Conversation(self._hub, self.peers, self._audit, peer, granted, context.peer())
        self._open[conversation] = None
        try:
            end = await conversation.run(context)
        finally:
            del self._open[conversation]
        await context.abort(*end)

    async def _admit(self, context: Context) -> tuple[Peer, tuple[Interval, ...]]:
        """Who asks, and what that peer may read; refuses who asks too often."""
        name = peer_name(context.auth_context())
        peer = self.peers.see(name, self.policy.role_of(name) or "")
        if excess := self.peers.excess(peer):
            await self._refuse(context, peer, b"", grpc.StatusCode.RESOURCE_EXHAUSTED, f"{TOO_MANY} {excess}")
        return peer, self.policy.granted(name)

    async def _refuse(self, context: Context, peer: Peer, key: bytes, code: grpc.StatusCode, reason: str) -> NoReturn:
        self._audit.refused(self.peers.refuse(peer, key, reason), context.peer())
        await context.abort(code, reason)

    async def _await_ready(self, context: Context) -> None:
        if self._hub.ready.is_set():
            return
        try:
            await asyncio.wait_for(self._hub.ready.wait(), _READY_WAIT_S)
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "meshd: this proxy has not read its etcd yet")


def peer_name(auth: Any) -> str:
    """The common name of the peer's certificate, as gRPC verified it; empty if it has none."""
    names = auth.get("x509_common_name") or [b""]
    return str(names[0].decode(errors="replace"))

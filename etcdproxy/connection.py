"""A connection to etcd that can only read: Range, Watch and the version, for what the proxy serves.

Every failure is UpstreamAway or one of its kinds; nothing of gRPC gets further.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from certs.pair import Pair
from etcdproxy.http2.following import CallLost, Following, open_call
from etcdproxy.http2.tls import client_context
from etcdproxy.listing import CommitData, read_commits
from wire.proto import kv_pb2, rpc_pb2

START, END = b"cilium/", b"meshd0"  # everything that is served
_PAGE = 20_000  # keys; etcd walks the whole rest of the range for every page, so few and big ones
_MAX_EVENTS = 1_000  # taken at once, unless one commit has more: the readers' turn must come, too
_TIMEOUT_S = 30.0  # of one Range, and until a watch is there
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # of its own, a minute if not given: a black hole would go unnoticed
    ("grpc.http2.max_pings_without_data", 0),
]


class UpstreamAway(Exception):
    """etcd does not answer, or not as one should; str(error) says what it said."""


class Overtaken(UpstreamAway):
    """The revision asked for is compacted at etcd."""


class HistoryLost(UpstreamAway):
    """What was heard so far has no continuation at this etcd; str(error) says why."""


class Identity:
    """Which etcd is at the other end, which may be reached over several connections: the first answer says it."""

    def __init__(self) -> None:
        self._cluster_id: int | None = None

    def check(self, header: rpc_pb2.ResponseHeader) -> None:
        """Raises HistoryLost if another one answers now."""
        if self._cluster_id is None:
            self._cluster_id = header.cluster_id
        elif header.cluster_id != self._cluster_id:
            raise HistoryLost(f"etcd {header.cluster_id:x} answers for {self._cluster_id:x}")


class Connection:
    """Range and Watch at one etcd; every failure is UpstreamAway, compaction Overtaken, another etcd HistoryLost.

    Lists go over grpc.aio. The watch, which costs with every commit, has a connection of its own.
    """

    def __init__(self, channel: grpc.aio.Channel, target: str, context: ssl.SSLContext | None) -> None:
        self._target = target
        self._context = context
        self._identity = Identity()
        self._range = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc_pb2.RangeRequest.SerializeToString,
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )
        self._status = channel.unary_unary(
            "/etcdserverpb.Maintenance/Status",
            request_serializer=rpc_pb2.StatusRequest.SerializeToString,
            response_deserializer=rpc_pb2.StatusResponse.FromString,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, target: str, pair: Pair | None = None) -> AsyncIterator[Self]:
        """Connects to `host:port`; without a pair in clear, as to an etcd on the proxy's own loopback."""
        context = None
        if pair is None:
            opened = grpc.aio.insecure_channel(target, options=_OPTIONS)
        else:
            context = client_context(pair)
            credentials = grpc.ssl_channel_credentials(pair.authorities, pair.key, pair.certificate)
            opened = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        async with opened as channel:
            yield cls(channel, target, context)

    async def range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        try:
            response: rpc_pb2.RangeResponse = await self._range(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                raise Overtaken(str(error.details())) from error
            raise _away(error) from error
        self._identity.check(response.header)
        return response

    async def version(self) -> str:
        try:
            response: rpc_pb2.StatusResponse = await self._status(rpc_pb2.StatusRequest(), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _away(error) from error
        return response.version

    async def pages(self, revision: int) -> AsyncIterator[Iterable[kv_pb2.KeyValue]]:
        """All entries that are served, as of a revision."""
        key, more = START, True
        while more:
            request = rpc_pb2.RangeRequest(key=key, range_end=END, limit=_PAGE, revision=revision)
            response = await self.range(request)
            yield response.kvs
            more = response.more
            key = response.kvs[-1].key + b"\0" if more else key

    @asynccontextmanager
    async def watch(self, revision: int) -> AsyncIterator["Watch"]:
        """The watch over all that is served, from `revision` on; etcd has taken it when the context begins."""
        try:
            async with open_call(self._target, "/etcdserverpb.Watch/Watch", self._context) as call:
                create = rpc_pb2.WatchCreateRequest(key=START, range_end=END, start_revision=revision, fragment=True)
                call.send(rpc_pb2.WatchRequest(create_request=create).SerializeToString())
                watch = Watch(call, self._identity)
                async with asyncio.timeout(_TIMEOUT_S):
                    await watch.commits()  # that it is there
                yield watch
        except CallLost as error:
            raise UpstreamAway(str(error)) from error
        except TimeoutError as error:
            raise UpstreamAway("etcd does not answer a watch") from error


class Watch:
    """Answers of the one watch; `header` is the last answer's."""

    def __init__(self, call: Following, identity: Identity) -> None:
        self._call = call
        self._identity = identity
        self.header = rpc_pb2.ResponseHeader()

    async def commits(self) -> list[CommitData]:
        """The commits of the next whole answer and of those that have come with it, within bounds.

        None if they only say that the watch is there.
        """
        events: list[kv_pb2.Event] = []
        while True:
            try:
                response = rpc_pb2.WatchResponse.FromString(await self._call.read())
            except DecodeError as error:
                raise UpstreamAway(f"etcd's answer is no WatchResponse: {error}") from error
            self._identity.check(response.header)
            self.header = response.header
            if response.compact_revision:
                raise Overtaken(f"compacted up to {response.compact_revision}")
            if response.canceled:
                raise UpstreamAway(f"etcd cancelled the watch: {response.cancel_reason}")
            if response.created:
                return []  # by itself: who waits for it does not want what has come with it
            events.extend(response.events)
            if not response.fragment and (len(events) >= _MAX_EVENTS or not self._call.has_come):
                return read_commits(events)


def _away(error: grpc.aio.AioRpcError) -> UpstreamAway:
    return UpstreamAway(f"{error.code().name}: {error.details()}")

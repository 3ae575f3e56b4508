"""A connection to the cluster's etcd over grpc.aio: lists, transactions, leases. It knows no record of meshd's."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc import aio

from meshd.etcd import Endpoint
from wire.keys import interval
from wire.proto import kv_pb2, rpc_pb2, rpc_pb2_grpc

TIMEOUT_S = 5.0
#: Keys in one page of a list: etcd walks over the rest of the range for every page, so few large ones are best.
PAGE = 20_000
_MAX_MESSAGE = 256 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # counts too, and is a minute if not given
    ("grpc.use_local_subchannel_pool", 1),
]


class EtcdUnavailable(Exception):
    """etcd does not answer, or not in time; worth another try."""


class EtcdRefused(Exception):
    """etcd answered that it will not do this; trying the same again is of no use."""


class LeaseLost(Exception):
    """A lease of ours has run out, and what hung on it is gone."""


class HistoryLost(Exception):
    """Another etcd stands at this address, or one whose revisions went backwards: all that was known of it is void."""


class EtcdConnection:
    """One channel to one etcd. Calls raise the four errors above and nothing else."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.etcd_id = 0
        self.revision = 0
        self._open()

    def _open(self) -> None:
        credentials, target = self._endpoint.credentials(), self._endpoint.target
        if credentials is None:
            self._channel = aio.insecure_channel(target, options=_OPTIONS)
        else:
            self._channel = aio.secure_channel(target, credentials, options=_OPTIONS)
        kv: Any = rpc_pb2_grpc.KVStub
        lease: Any = rpc_pb2_grpc.LeaseStub
        watch: Any = rpc_pb2_grpc.WatchStub
        self._kv, self._lease, self._watch = kv(self._channel), lease(self._channel), watch(self._channel)

    async def reopen(self) -> None:
        """With the certificate of now. Nothing may be under way."""
        await self._channel.close()
        self._open()

    async def close(self) -> None:
        await self._channel.close()

    async def list_keys(self, prefix: str) -> AsyncIterator[Sequence[kv_pb2.KeyValue]]:
        """All keys of a prefix at one revision, page by page."""
        start, end = interval(prefix)
        revision = 0
        while True:
            request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
            page = await self._call(self._kv.Range, request, timeout_s=30.0)
            yield page.kvs
            if not page.more or not page.kvs:
                return
            start, revision = page.kvs[-1].key + b"\0", page.header.revision

    async def get(self, key: str) -> kv_pb2.KeyValue | None:
        page = await self._call(self._kv.Range, rpc_pb2.RangeRequest(key=key.encode()))
        return page.kvs[0] if page.kvs else None

    async def transact(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        response: rpc_pb2.TxnResponse = await self._call(self._kv.Txn, request)
        return response

    async def grant_lease(self, ttl_s: int) -> int:
        """A new lease; returns its ID."""
        response = await self._call(self._lease.LeaseGrant, rpc_pb2.LeaseGrantRequest(TTL=ttl_s))
        return int(response.ID)

    async def lease_ttl(self, lease: int) -> int:
        """The time to live that the lease was granted with, 0 if it is gone. s."""
        response = await self._call(self._lease.LeaseTimeToLive, rpc_pb2.LeaseTimeToLiveRequest(ID=lease))
        return int(response.grantedTTL) if response.TTL > 0 else 0

    async def keep_alive(self, lease: int) -> bool:
        """Starts the lease's time to live anew; False if it is gone."""

        async def once(request: object, **options: float) -> rpc_pb2.LeaseKeepAliveResponse:
            call = self._lease.LeaseKeepAlive(**options)
            await call.write(request)
            response = await call.read()
            await call.done_writing()
            if not isinstance(response, rpc_pb2.LeaseKeepAliveResponse):
                raise EtcdUnavailable("etcd ended the stream")
            return response

        response = await self._call(once, rpc_pb2.LeaseKeepAliveRequest(ID=lease))
        return int(response.TTL) > 0

    async def watch(self, start: bytes, end: bytes, *, after: int) -> AsyncIterator[Sequence[kv_pb2.Event]]:
        """Every change of `[start, end)` after a revision, in order. Never ends by itself."""
        create = rpc_pb2.WatchCreateRequest(key=start, range_end=end, start_revision=after + 1)
        call = self._watch.Watch(wait_for_ready=True)
        try:
            await call.write(rpc_pb2.WatchRequest(create_request=create))
            async for response in call:
                if response.canceled:
                    raise EtcdUnavailable(f"etcd ended the watch: {response.cancel_reason or 'it was compacted'}")
                yield response.events
            raise EtcdUnavailable("etcd ended the stream of the watch")
        except aio.AioRpcError as error:
            raise _translated(error) from error
        finally:
            call.cancel()

    async def _call(
        self, method: Callable[..., Awaitable[Any]], request: object, *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        floor = self.revision  # as of now: what is answered to this request cannot be older
        try:
            response = await method(request, timeout=timeout_s)
        except aio.AioRpcError as error:
            raise _translated(error) from error
        if self.etcd_id not in (0, response.header.cluster_id):
            raise HistoryLost(f"etcd {self.etcd_id:x} has become {response.header.cluster_id:x}")
        if response.header.revision < floor:
            raise HistoryLost(f"revision {floor} has become {response.header.revision}")
        self.etcd_id = response.header.cluster_id
        self.revision = max(self.revision, response.header.revision)
        return response

    def forget(self) -> None:
        """After HistoryLost: what stands there now is taken as it is."""
        self.etcd_id = self.revision = 0


def _translated(error: aio.AioRpcError) -> Exception:
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.NOT_FOUND and "lease" in details:
        return LeaseLost(details)
    too_large = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
    if too_large or error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return EtcdRefused(details)
    return EtcdUnavailable(f"{error.code().name}: {details}")

"""etcd's Range and Watch as the daemon uses them: pages, many watches on one stream, and errors sorted into "again"
and "not so".
"""

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import count
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from meshd.daemon.link import PeerRejected, PeerUnavailable
from meshd.daemon.watch import ListFrom, WatchFrom
from wire.proto import rpc_pb2, rpc_pb2_grpc

F = TypeVar("F")
MESSAGE_MAX = 32 << 20  # bytes
REVISION_MAX = (1 << 63) - 2
OPTIONS = (
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # counts too, and is a minute if not given
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a new connection means a new handshake, with the certificate of now
)
_REFUSALS = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
_TLS_FAILURE = re.compile(r"handshake|certificate|hostname verification|tlsv1|ssl", re.IGNORECASE)
# "Unwrap failed" is how gRPC's core tells of a TLS alert after the handshake; which one stands in its own log only.
_CLOSED = re.compile(r"socket closed|connection reset|broken pipe|unwrap failed", re.IGNORECASE)
_TOO_LARGE = re.compile(r"larger than max|message.*too large", re.IGNORECASE)
_NOISE = re.compile(r"^.*last error: (?:UNKNOWN|UNAVAILABLE|INTERNAL): ", re.DOTALL)


class Compacted(Exception):
    """The revision that was asked for is no longer kept: list again."""


class TooLarge(PeerUnavailable):
    """The page is larger than a message may be: ask for a smaller one."""


def open_channel(target: str, credentials: grpc.ChannelCredentials, server_name: str) -> grpc.aio.Channel:
    """A channel to a proxy whose certificate must name `server_name`."""
    options = (*OPTIONS, ("grpc.ssl_target_name_override", server_name), ("grpc.default_authority", server_name))
    return grpc.aio.secure_channel(target, credentials, options=options)


def peer_error(error: grpc.aio.AioRpcError, *, answered: bool = True) -> PeerUnavailable | PeerRejected:
    """What a failed call means for the next try; `answered`: something else had been answered on this connection."""
    code = error.code()
    text = " ".join(_NOISE.sub("", error.details() or "").split())
    if code is grpc.StatusCode.UNAVAILABLE and not answered and _CLOSED.search(text):
        # TLS 1.3: the client has done its part of the handshake before the server looks at its certificate.
        return PeerRejected(f"{text} after the handshake: does it trust our certificate (CA, end)?", certain=False)
    if code is grpc.StatusCode.UNAVAILABLE:
        return PeerRejected(f"TLS: {text}") if _TLS_FAILURE.search(text) else PeerUnavailable(text)
    reason = f"{code.name.lower().replace('_', ' ')}: {text}"
    return PeerRejected(reason) if code in _REFUSALS else PeerUnavailable(reason)


async def list_page(channel: grpc.aio.Channel, ask: ListFrom, *, limit: int, timeout_s: float) -> Any:
    """One page. Raises Compacted, TooLarge, PeerRejected or grpc.aio.AioRpcError."""
    stub: Any = rpc_pb2_grpc.KVStub
    request = rpc_pb2.RangeRequest(key=ask.start, range_end=ask.end, limit=limit, revision=ask.revision)
    try:
        return _whole(await stub(channel).Range(request, timeout=timeout_s))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.OUT_OF_RANGE and ask.revision:
            raise Compacted from error
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(error.details() or ""):
            raise TooLarge(error.details()) from error
        raise


def _whole(answer: Any) -> Any:
    """gRPC gives None for bytes that are no message."""
    if answer is None:
        raise PeerRejected("it answers with bytes that are no message of etcd: is it a proxy, or an etcd?")
    if answer.header.revision > REVISION_MAX:
        raise PeerRejected(f"it says revision {answer.header.revision}, no revision can follow that")
    return answer


class WatchStream(Generic[F]):
    """Watches of several owners on one stream. An owner has at most one watch at a time."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = rpc_pb2_grpc.WatchStub
        self._call = stub(channel).Watch(metadata=(("hasleader", "true"),))
        self._owners: dict[int, F] = {}
        self._ids = count(1)
        self._writing = asyncio.Lock()  # gRPC takes one write at a time

    async def create(self, ask: WatchFrom, owner: F) -> None:
        """Raises PeerUnavailable if the stream is over, grpc.aio.AioRpcError."""
        watch_id = next(self._ids)
        create = rpc_pb2.WatchCreateRequest(
            key=ask.start, range_end=ask.end, start_revision=ask.revision, watch_id=watch_id, progress_notify=True
        )
        self._owners[watch_id] = owner
        async with self._writing:
            try:
                await self._call.write(rpc_pb2.WatchRequest(create_request=create))
            except asyncio.InvalidStateError as error:  # how gRPC says that the stream is over
                raise PeerUnavailable("the watch stream ended") from error

    async def answers(self) -> AsyncIterator[tuple[F, Any]]:
        """Owner and answer; an answer of None: the watch ended because its revision was compacted, list again.

        Ends with the stream. Raises PeerRejected for a watch that is refused, grpc.aio.AioRpcError.
        """
        async for response in self._call:
            _whole(response)
            owner = self._owners.get(response.watch_id)
            if response.canceled:
                if response.watch_id == -1 or owner is None:
                    raise PeerRejected(f"a watch was refused: {response.cancel_reason}")
                del self._owners[response.watch_id]
                if not response.compact_revision:
                    raise PeerRejected(f"a watch was ended: {response.cancel_reason or 'no reason given'}")
                yield owner, None
            elif owner is not None and not response.created:
                yield owner, response

    def cancel(self) -> None:
        self._call.cancel()

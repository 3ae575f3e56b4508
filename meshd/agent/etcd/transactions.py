"""Transactions that hold only while we lead: another agent that took the lock in between makes them fail."""

from collections.abc import Mapping, Sequence

from meshd.agent.etcd.connection import EtcdConnection
from meshd.agent.etcd.ledger import Write
from meshd.agent.etcd.lookout import Lookout
from wire import keys
from wire.proto import rpc_pb2


class LeadershipLost(Exception):
    """Another agent writes now."""


class Fence:
    """Writes for the leader that took the lock at `revision`. Raises LeadershipLost if that is over.

    The lookout is told of every transaction.
    """

    def __init__(self, etcd: EtcdConnection, revision: int, lookout: Lookout) -> None:
        self._lookout = lookout
        self._etcd = etcd
        self._is_leader = _created_at(keys.LEADER, revision)

    async def write(self, writes: Sequence[Write], lease: int) -> None:
        """All of them at one revision."""
        request = rpc_pb2.TxnRequest(compare=[self._is_leader], success=[_operation(each, lease) for each in writes])
        if not (await self._transact(request)).succeeded:
            raise LeadershipLost("another agent has taken the leader lock")

    async def create(self, values: Mapping[str, bytes]) -> dict[str, bytes]:
        """Puts keys that must not exist yet, without a lease: all of them, or none.

        Returns {} when they were put, else those that existed already.
        """
        request = rpc_pb2.TxnRequest(
            compare=[self._is_leader, *(_created_at(key, 0) for key in values)],
            success=[_operation(Write(key, value), 0) for key, value in values.items()],
            failure=[_read(key) for key in (keys.LEADER, *values)],
        )
        response = await self._transact(request)
        if response.succeeded:
            return {}
        leader, *found = [answer.response_range.kvs for answer in response.responses]
        if not leader or leader[0].create_revision != self._is_leader.create_revision:
            raise LeadershipLost("another agent has taken the leader lock")
        return {entry.key.decode(): entry.value for kvs in found for entry in kvs}

    async def _transact(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        revision = 0
        self._lookout.begin()
        try:
            response = await self._etcd.transact(request)
            revision = response.header.revision if response.succeeded and _changed(response) else 0
            return response
        finally:
            self._lookout.end(revision)


def _changed(response: rpc_pb2.TxnResponse) -> bool:
    """Whether it has made a revision: deletes of what is not there do not."""
    return any(
        each.response_delete_range.deleted if each.HasField("response_delete_range") else each.HasField("response_put")
        for each in response.responses
    )


def _created_at(key: str, revision: int) -> rpc_pb2.Compare:
    return rpc_pb2.Compare(
        result=rpc_pb2.Compare.EQUAL, target=rpc_pb2.Compare.CREATE, key=key.encode(), create_revision=revision
    )


def _operation(write: Write, lease: int) -> rpc_pb2.RequestOp:
    key = write.key.encode()
    if write.value is None:
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=write.value, lease=lease))


def _read(key: str) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key.encode()))

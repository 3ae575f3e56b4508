"""What the watch at etcd makes of etcd's answers."""

from typing import cast

import pytest

from etcdproxy import connection
from etcdproxy.connection import HistoryLost, Identity, Watch
from etcdproxy.http2.following import Following
from wire.proto import kv_pb2, rpc_pb2


class Come:
    """A call whose messages have all come already."""

    def __init__(self, *answers: rpc_pb2.WatchResponse) -> None:
        self._answers = list(answers)

    @property
    def has_come(self) -> bool:
        return bool(self._answers)

    async def read(self) -> bytes:
        return self._answers.pop(0).SerializeToString()


def told(*revisions: int, fragment: bool = False, etcd: int = 1) -> rpc_pb2.WatchResponse:
    events = [kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"k", mod_revision=revision)) for revision in revisions]
    header = rpc_pb2.ResponseHeader(cluster_id=etcd)
    return rpc_pb2.WatchResponse(header=header, events=events, fragment=fragment)


def watch_of(*answers: rpc_pb2.WatchResponse) -> Watch:
    return Watch(cast("Following", Come(*answers)), Identity())


async def test_what_has_come_with_the_answer_that_a_watch_is_there_is_not_lost() -> None:
    created = rpc_pb2.WatchResponse(header=rpc_pb2.ResponseHeader(cluster_id=1), created=True)
    watch = watch_of(created, told(11), told(12))
    assert await watch.commits() == []
    assert [commit.revision for commit in await watch.commits()] == [11, 12]


async def test_a_commit_is_whole_however_many_answers_it_takes() -> None:
    watch = watch_of(told(11, fragment=True), told(11, fragment=True), told(11), told(12))
    commits = await watch.commits()
    assert [(commit.revision, len(commit.changes)) for commit in commits] == [(11, 3), (12, 1)]


async def test_what_is_taken_at_once_is_bounded() -> None:
    many = [told(revision) for revision in range(1, connection._MAX_EVENTS + 101)]
    watch = watch_of(*many)
    assert len(await watch.commits()) == connection._MAX_EVENTS
    assert len(await watch.commits()) == 100


async def test_nothing_of_another_etcd_is_taken() -> None:
    """As may happen behind one name: lists and the watch are different connections."""
    watch = watch_of(told(11), told(12, etcd=2))
    with pytest.raises(HistoryLost, match="etcd 2 answers for 1"):
        await watch.commits()

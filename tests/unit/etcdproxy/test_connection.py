"""What the watch at etcd makes of etcd's answers."""

from typing import cast

from etcdproxy import connection
from etcdproxy.connection import Watch
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


def told(*revisions: int, fragment: bool = False) -> rpc_pb2.WatchResponse:
    events = [kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"k", mod_revision=revision)) for revision in revisions]
    return rpc_pb2.WatchResponse(events=events, fragment=fragment)


def watch_of(*answers: rpc_pb2.WatchResponse) -> Watch:
    return Watch(cast("Following", Come(*answers)))


async def test_what_has_come_with_the_answer_that_a_watch_is_there_is_not_lost() -> None:
    watch = watch_of(rpc_pb2.WatchResponse(created=True), told(11), told(12))
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

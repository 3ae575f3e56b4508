"""A Watch stream on a hub, without gRPC: requests in, decoded answers out."""

import asyncio
import itertools
import random
from dataclasses import dataclass, field

import pytest

from etcdproxy.batches import BATCH_BYTES, PART_BYTES
from etcdproxy.history import History
from etcdproxy.http2.message import Message
from etcdproxy.hub import Hub
from etcdproxy.policy import Interval
from etcdproxy.store import Store
from etcdproxy.stream import StreamLost, WatchStream
from tests.support.entries import entry
from wire.proto import kv_pb2, rpc_pb2

STORE = Store(cluster_id=7, member_id=8, raft_term=3)
Create = rpc_pb2.WatchCreateRequest


@dataclass
class OpenGate:
    """Lets everything inside one interval pass, and keeps the account."""

    granted: Interval = field(default_factory=lambda: Interval(b"", None))
    watches: int = 0

    def refuse(self, interval: Interval) -> str:
        return "" if self.granted.contains(interval) else "permission denied"

    def opened(self, interval: Interval) -> None:
        assert self.granted.contains(interval)
        self.watches += 1

    def closed(self, number: int) -> None:
        self.watches -= number


@pytest.fixture
def hub() -> Hub:
    hub = Hub()
    hub.replace(History({b"a/0": entry(b"a/0", b"old", 9)}, 10, max_events=1000), STORE, continues=False)
    return hub


@pytest.fixture
def stream(hub: Hub) -> WatchStream:
    return WatchStream(hub, OpenGate())


def create(stream: WatchStream, key: bytes, end: bytes = b"", **options: object) -> None:
    request = Create(key=key, range_end=end, **options)  # type: ignore[arg-type]
    stream.handle(rpc_pb2.WatchRequest(create_request=request))


def drain(stream: WatchStream) -> list[rpc_pb2.WatchResponse]:
    answers = []
    while (answer := stream.take()) is not None:
        answers.append(rpc_pb2.WatchResponse.FromString(answer))
    return answers


def put(hub: Hub, revision: int, *keys: bytes, value: bytes = b"v") -> None:
    hub.apply([(revision, [(key, entry(key, value, revision)) for key in keys])])


def revisions(answers: list[rpc_pb2.WatchResponse]) -> list[int]:
    return [event.kv.mod_revision for answer in answers for event in answer.events]


def test_created_in_request_order_with_fresh_ids(stream: WatchStream) -> None:
    create(stream, b"x")
    create(stream, b"y", watch_id=1)
    create(stream, b"z")
    create(stream, b"z", watch_id=77)
    answers = drain(stream)
    assert [answer.watch_id for answer in answers] == [0, 1, 2, 77]
    assert all(answer.created and not answer.canceled for answer in answers)
    header = answers[0].header
    assert (header.cluster_id, header.member_id, header.raft_term, header.revision) == (7, 8, 3, 10)


def test_events_from_now_on_reach_only_whom_they_concern(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0")
    create(stream, b"b/", b"b0")
    drain(stream)
    put(hub, 11, b"a/1", b"c/1")
    hub.apply([(12, [(b"a/0", None)])])
    [answer] = drain(stream)
    assert answer.watch_id == 0
    assert answer.header.revision == 12
    first, second = answer.events
    assert (first.type, first.kv.key, first.kv.value) == (kv_pb2.Event.PUT, b"a/1", b"v")
    assert (second.type, second.kv.key, second.kv.mod_revision) == (kv_pb2.Event.DELETE, b"a/0", 12)
    assert not second.HasField("prev_kv")


def test_start_revision_in_the_past_the_present_and_the_future(hub: Hub, stream: WatchStream) -> None:
    put(hub, 11, b"a/1")
    put(hub, 12, b"a/2")
    for start in (11, 12, 13, 14):
        create(stream, b"a/", b"a0", start_revision=start)
    drained = drain(stream)
    assert [revisions([answer]) for answer in drained if answer.events] == [[11, 12], [12]]
    put(hub, 13, b"a/3")
    put(hub, 14, b"a/4")
    heard = {answer.watch_id: revisions([answer]) for answer in drain(stream)}
    assert heard == {0: [13, 14], 1: [13, 14], 2: [13, 14], 3: [14]}


def test_compacted_start_is_answered_as_etcd_does(stream: WatchStream) -> None:
    create(stream, b"a/", b"a0", start_revision=10)
    created, cancelled = drain(stream)
    assert created.created
    assert (cancelled.canceled, cancelled.compact_revision) == (True, 11)
    assert stream.watchers == 0


def test_previous_values_and_filters(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0", prev_kv=True)
    create(stream, b"a/", b"a0", filters=[Create.NOPUT])
    create(stream, b"a/", b"a0", filters=[Create.NODELETE])
    drain(stream)
    hub.apply([(11, [(b"a/0", None), (b"a/1", entry(b"a/1", b"new", 11))])])
    hub.apply([(12, [(b"a/1", entry(b"a/1", b"newer", 12))])])
    by_id = {answer.watch_id: answer.events for answer in drain(stream)}
    assert [event.prev_kv.value for event in by_id[0]] == [b"old", b"", b"new"]
    assert [event.type for event in by_id[1]] == [kv_pb2.Event.DELETE]
    assert [event.type for event in by_id[2]] == [kv_pb2.Event.PUT, kv_pb2.Event.PUT]


def test_cancel_is_answered_and_ends_the_events(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0")
    stream.handle(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=0)))
    stream.handle(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=5)))
    put(hub, 11, b"a/1")
    created, cancelled = drain(stream)
    assert (created.created, cancelled.canceled, cancelled.compact_revision) == (True, True, 0)
    assert hub.watchers == 0


def test_refusals(hub: Hub) -> None:
    stream = WatchStream(hub, OpenGate(Interval(b"a/", b"a0")))
    create(stream, b"a/", b"b")
    create(stream, b"a/x", watch_id=4)
    create(stream, b"a/x", watch_id=4)
    create(stream, b"a/x", b"a/w")
    denied, created, duplicate, empty = drain(stream)
    for refused in (denied, duplicate, empty):
        assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert "permission denied" in denied.cancel_reason
    assert "duplicate" in duplicate.cancel_reason
    assert "empty" in empty.cancel_reason
    assert not created.canceled
    assert stream.watchers == 1


def test_every_watch_is_accounted_for(hub: Hub) -> None:
    gate = OpenGate()
    stream = WatchStream(hub, gate)
    for start in (0, 0, 5, 0):  # the third is compacted at once
        create(stream, b"a/", b"a0", start_revision=start)
    drain(stream)
    assert gate.watches == hub.watchers == 3
    stream.handle(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=1)))
    assert gate.watches == hub.watchers == 2
    stream.close()
    assert gate.watches == hub.watchers == 0


def test_progress_comes_after_what_it_covers(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0")
    put(hub, 11, b"a/1")
    stream.handle(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
    put(hub, 12, b"b/1")
    created, events, progress = drain(stream)
    assert created.created
    assert revisions([events]) == [11]
    assert (progress.watch_id, progress.header.revision, len(progress.events)) == (-1, 12, 0)


def test_idle_watchers_that_asked_are_notified(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0", progress_notify=True)
    create(stream, b"a/", b"a0")
    drain(stream)
    put(hub, 11, b"a/1")
    drain(stream)
    stream.notify()
    assert drain(stream) == []
    put(hub, 12, b"b/1")
    stream.notify()
    [notified] = drain(stream)
    assert (notified.watch_id, notified.header.revision, len(notified.events)) == (0, 12, 0)


def test_a_stream_that_is_not_read_keeps_nothing_and_is_compacted(hub: Hub, stream: WatchStream) -> None:
    reader = WatchStream(hub, OpenGate())
    for watch in (stream, reader):
        create(watch, b"a/", b"a0")
        drain(watch)
    heard: list[int] = []
    for revision in range(11, 3011):
        put(hub, revision, b"a/1")
        heard += revisions(drain(reader))
    assert heard == list(range(11, 3011))  # one that does not read costs the others nothing
    [cancelled] = drain(stream)
    assert cancelled.canceled
    assert cancelled.compact_revision == hub.history.base + 1
    assert hub.watchers == 1


def test_big_backlogs_are_cut_between_revisions(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0")
    drain(stream)
    value = b"x" * (BATCH_BYTES // 4)
    for revision in range(11, 31):
        put(hub, revision, b"a/1", b"a/2", value=value)
    answers = drain(stream)
    assert len(answers) > 5
    assert revisions(answers) == [revision for revision in range(11, 31) for _ in range(2)]
    for answer, following in itertools.pairwise(answers):
        assert answer.header.revision >= max(revisions([answer]))
        assert answer.header.revision < min(revisions([following]))


@pytest.mark.parametrize("fragment", [True, False])
def test_one_big_commit_is_cut_only_for_who_takes_fragments(hub: Hub, stream: WatchStream, fragment: bool) -> None:
    create(stream, b"a/", b"a0", fragment=fragment)
    drain(stream)
    keys = [b"a/%02d" % number for number in range(12)]
    put(hub, 11, *keys, value=b"x" * (PART_BYTES // 4))
    answers = drain(stream)
    assert [event.kv.key for answer in answers for event in answer.events] == keys
    assert [answer.fragment for answer in answers] == [True] * (len(answers) - 1) + [False]
    assert (len(answers) > 1) == fragment


def test_watchers_take_turns(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0")
    create(stream, b"a/", b"a0")
    drain(stream)
    for revision in range(11, 21):
        put(hub, revision, b"a/1", value=b"x" * BATCH_BYTES)
    ids = [answer.watch_id for answer in drain(stream)]
    assert ids == [0, 1] * 10


def test_same_history_again_goes_on_without_a_gap(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0")
    drain(stream)
    put(hub, 11, b"a/1")
    drain(stream)
    newer = History({}, 10)
    for revision in (11, 12, 13):
        newer.add(revision, [(b"a/%d" % revision, entry(b"a/x", b"", revision))])
    hub.replace(newer, STORE, continues=True)
    assert revisions(drain(stream)) == [12, 13]


def test_a_history_with_a_gap_cancels_who_lacks_something(hub: Hub, stream: WatchStream) -> None:
    create(stream, b"a/", b"a0")
    create(stream, b"a/", b"a0", start_revision=60)
    drain(stream)
    hub.replace(History({}, 50), STORE, continues=True)
    [cancelled] = drain(stream)
    assert (cancelled.watch_id, cancelled.canceled, cancelled.compact_revision) == (0, True, 51)
    put(hub, 60, b"a/1")
    assert revisions(drain(stream)) == [60]


@pytest.mark.parametrize(("store", "continues"), [(Store(9, 8, 3), True), (STORE, False)])
def test_another_store_ends_all_streams(hub: Hub, stream: WatchStream, store: Store, continues: bool) -> None:
    create(stream, b"a/", b"a0")
    drain(stream)
    hub.replace(History({}, 5), store, continues=continues)
    cancelled = rpc_pb2.WatchResponse.FromString(stream.take() or b"")
    assert (cancelled.canceled, cancelled.compact_revision) == (True, 6)
    assert cancelled.header.cluster_id == store.cluster_id
    with pytest.raises(StreamLost):
        stream.take()


async def test_a_peer_that_asks_but_does_not_read_is_not_listened_to(stream: WatchStream) -> None:
    for _ in range(64):
        create(stream, b"a/")
    waiting = asyncio.ensure_future(stream.room())
    done, _ = await asyncio.wait([waiting], timeout=0.01)
    assert not done
    stream.take()
    await waiting


@pytest.mark.parametrize("seed", range(20))
def test_random_histories_are_ordered_unique_atomic_and_complete(seed: int) -> None:
    chance = random.Random(seed)
    hub = Hub()
    hub.replace(History({}, 1), STORE, continues=False)
    pushed: list[bytes] = []

    def push(message: Message) -> bool:
        if taken := chance.random() < 0.5:
            pushed.append(message.data)
        return taken

    stream = WatchStream(hub, OpenGate(), push=push)
    keys = [b"a/%d" % number for number in range(5)] + [b"b/%d" % number for number in range(5)]
    expected: dict[int, list[tuple[int, bytes]]] = {}
    heard: dict[int, list[tuple[int, bytes]]] = {}
    starts: dict[int, tuple[bytes, int]] = {}
    written: list[tuple[int, bytes]] = []
    bookmarks: list[tuple[int, dict[int, int]]] = []

    def take() -> None:
        sent = [rpc_pb2.WatchResponse.FromString(data) for data in pushed]
        pushed.clear()
        for answer in [*sent, *drain(stream)]:
            if answer.watch_id < 0:
                bookmarks.append((answer.header.revision, {key: len(events) for key, events in heard.items()}))
            events = [(event.kv.mod_revision, event.kv.key) for event in answer.events]
            assert all(revision <= answer.header.revision for revision, _ in events)
            heard.setdefault(answer.watch_id, []).extend(events)

    revision = 1
    for _ in range(200):
        action = chance.random()
        if action < 0.1:
            prefix, start = chance.choice([b"a/", b"b/"]), chance.randint(2, revision + 3)
            starts[len(starts)] = prefix, start
            create(stream, prefix, prefix[:1] + b"0", start_revision=start)
        elif action < 0.5:
            if chance.random() < 0.3:
                stream.handle(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
            take()
        else:
            commits = []
            for _ in range(chance.randint(1, 3)):
                revision += chance.randint(1, 3)
                changed = chance.sample(keys, chance.randint(1, 4))
                written += [(revision, key) for key in changed]
                commits.append((revision, [(key, entry(key, b"", revision)) for key in changed]))
            hub.apply(commits)
    take()
    for watch_id, (prefix, start) in starts.items():
        expected[watch_id] = [(at, key) for at, key in written if at >= start and key.startswith(prefix)]
    assert {watch_id: heard.get(watch_id, []) for watch_id in starts} == expected
    for at, counts in bookmarks:  # nothing of what it covers came later
        for watch_id, number in counts.items():
            assert all(revision > at for revision, _ in heard[watch_id][number:])

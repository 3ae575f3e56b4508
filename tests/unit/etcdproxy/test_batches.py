from etcdproxy.batches import MAX_MESSAGES, Batch, Selection, Shared, Shelf, collect_batch
from etcdproxy.encoding import encode_header
from etcdproxy.history import History
from etcdproxy.policy import Interval
from etcdproxy.store import Store
from tests.support.entries import entry
from wire.proto import rpc_pb2

HEADER = encode_header(Store(1, 2, 3), 11)
ALL = Selection(Interval(b"", None))


def make_batch(size: int = 1) -> Batch:
    history = History({}, 10)
    history.add(11, [(b"k", entry(b"k", b"v" * size, 11))])
    batch = collect_batch(history, ALL, 11)
    batch.header = HEADER
    return batch


def test_watchers_with_one_id_share_the_message_and_ids_differ() -> None:
    batch = make_batch()
    first = batch.message(3)
    assert batch.message(3) is first
    for watch_id in (0, 3, 127, 128, 1 << 40, -1):
        answer = rpc_pb2.WatchResponse.FromString(batch.message(watch_id).data)
        assert (answer.watch_id, answer.header.revision) == (watch_id, 11)
        assert [event.kv.key for event in answer.events] == [b"k"]


def test_few_messages_are_kept_however_many_ids_there_are() -> None:
    batch = make_batch()
    for watch_id in range(1000):
        batch.message(watch_id)
    assert len(batch.messages) == MAX_MESSAGES


def test_the_shelf_is_bounded_and_the_oldest_makes_place() -> None:
    size = sum(map(len, make_batch(1000).parts)) * (1 + 2 * MAX_MESSAGES)
    shelf = Shelf(max_bytes=3 * size)
    kept = [Shared(ALL) for _ in range(5)]
    for shared in kept:
        shelf.put(shared, make_batch(1000), 11, 11)
    assert [shared.batch is not None for shared in kept] == [False, False, True, True, True]
    shelf.put(kept[2], make_batch(1000), 12, 12)  # instead of its own, not beside it
    assert [shared.batch is not None for shared in kept] == [False, False, True, True, True]
    shelf.put(kept[0], make_batch(100_000), 12, 12)  # alone it may be as big as it is
    assert [shared.batch is not None for shared in kept] == [True, False, False, False, False]
    shelf.clear()
    assert kept[0].batch is None

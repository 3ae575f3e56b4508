"""Range answers that need no etcd to be judged; equality with etcd itself: tests/integration/test_proxy_answers.py."""

import pytest

from etcdproxy.encoding import encode_header
from etcdproxy.history import Compacted, History
from etcdproxy.ranges import answer_range
from etcdproxy.store import Store
from tests.support.entries import entry
from wire.proto import rpc_pb2

HEADER = encode_header(Store((1 << 64) - 1, 2, 4), 300)


def ask(history: History, key: bytes, range_end: bytes = b"", **options: int) -> rpc_pb2.RangeResponse:
    request = rpc_pb2.RangeRequest(key=key, range_end=range_end, **options)  # type: ignore[arg-type]
    return rpc_pb2.RangeResponse.FromString(answer_range(history, request, HEADER))


@pytest.fixture
def history() -> History:
    return History({b"k/%03d" % number: entry(b"k/%03d" % number, b"v" * number, 100) for number in range(200)}, 200)


def test_pages_with_a_pinned_revision_are_a_snapshot(history: History) -> None:
    found: list[bytes] = []
    key, more = b"k/", True
    while more:
        page = ask(history, key, b"k0", limit=7, revision=200)
        found += [kv.key for kv in page.kvs]
        assert page.count == 200 - len(found) + len(page.kvs)
        more = page.more
        key = page.kvs[-1].key + b"\0"
        changed = b"k/%03d" % (history.revision - 100)
        history.add(history.revision + 1, [(changed, None), (b"k/" + changed, entry(b"k/" + changed, b"", 201))])
    assert found == [b"k/%03d" % number for number in range(200)]


def test_header_and_fields_arrive_whole(history: History) -> None:
    answer = ask(history, b"k/150")
    assert answer.header.cluster_id == (1 << 64) - 1
    assert answer.header.revision == 300
    assert answer.kvs[0].value == b"v" * 150
    assert (answer.count, answer.more) == (1, False)


def test_counts_and_keys_only(history: History) -> None:
    assert ask(history, b"k/", b"k0", count_only=True).count == 200
    page = ask(history, b"\0", b"\0", keys_only=True, limit=3)
    assert [kv.value for kv in page.kvs] == [b"", b"", b""]
    assert (page.more, page.count, page.kvs[0].mod_revision) == (True, 200, 100)
    assert ask(history, b"k/1", b"k/0").count == 0


def test_below_the_history_is_compacted(history: History) -> None:
    with pytest.raises(Compacted):
        ask(history, b"k/", b"k0", revision=199)

from meshd.agent.etcd.ledger import MAX_TRANSACTION, Write
from meshd.agent.etcd.writer import MAX_BYTES, split_batches


def test_batches_keep_the_order_and_the_limits() -> None:
    writes = [Write(f"key{number}", b"v") for number in range(2 * MAX_TRANSACTION + 1)]
    batches = split_batches(writes)
    assert [len(batch) for batch in batches] == [MAX_TRANSACTION, MAX_TRANSACTION, 1]
    assert [write for batch in batches for write in batch] == writes


def test_large_values_travel_alone() -> None:
    half = b"x" * (MAX_BYTES // 2)
    batches = split_batches([Write("a", half), Write("b", half), Write("c", b"x" * MAX_BYTES * 2), Write("d", None)])
    assert [[write.key for write in batch] for batch in batches] == [["a"], ["b"], ["c"], ["d"]]


def test_nothing_is_no_batch() -> None:
    assert split_batches([]) == []

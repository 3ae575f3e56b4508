from etcdproxy.history import Entry, History
from etcdproxy.listing import (
    GENERATION_KEY,
    Goal,
    cut_at_generation,
    derive_cluster_id,
    generation_of,
    is_same_history,
    nearest_start,
    read_commits,
)
from tests.support.entries import entry
from wire.proto import kv_pb2, rpc_pb2


def event(key: bytes, revision: int, *, deleted: bool = False) -> kv_pb2.Event:
    kind = kv_pb2.Event.DELETE if deleted else kv_pb2.Event.PUT
    return kv_pb2.Event(type=kind, kv=kv_pb2.KeyValue(key=key, mod_revision=revision))


def test_events_are_grouped_by_revision() -> None:
    commits = read_commits([event(b"a", 5), event(b"b", 5), event(b"a", 6, deleted=True)])
    assert [commit.revision for commit in commits] == [5, 6]
    assert [key for key, _ in commits[0].changes] == [b"a", b"b"]
    assert commits[1].changes == [(b"a", None)]


def test_commits_are_cut_behind_one_that_writes_the_generation() -> None:
    commits = read_commits([event(key, at) for at, key in enumerate([b"a", GENERATION_KEY, b"b"], 5)])
    assert cut_at_generation(commits) == (commits[:2], commits[2:])
    assert cut_at_generation(commits[2:]) == (commits[2:], [])


def test_goal_is_reached_exactly_when_the_keys_are_there() -> None:
    history = History({b"a": entry(b"a", b"", 3), b"gone": entry(b"gone", b"", 4)}, 5)
    goal = Goal(9, {b"a": 7, b"b": 6}, total=2)
    steps: list[tuple[int, bytes, Entry | None]] = [
        (6, b"b", entry(b"b", b"", 6)),
        (7, b"a", entry(b"a", b"", 7)),
        (8, b"gone", None),
    ]
    reached = [goal.is_reached(history)]
    for revision, key, after in steps:
        history.add(revision, [(key, after)])
        reached.append(goal.is_reached(history))
    assert reached == [False, False, False, True]


def test_goal_is_reached_when_passed() -> None:
    """Writes go on while a history catches up: the number of keys may never agree."""
    history = History({}, 5)
    goal = Goal(7, {b"a": 7}, total=5)
    history.add(6, [(b"x", entry(b"x", b"", 6))])
    assert not goal.is_reached(history)
    history.add(8, [(b"y", entry(b"y", b"", 8))])
    assert goal.is_reached(history)


def test_cluster_id_follows_etcd_and_generation() -> None:
    ids = {derive_cluster_id(etcd, generation) for etcd in (1, 2**64 - 1) for generation in (b"", b"g1", b"g2")}
    assert len(ids) == 6
    assert all(0 < cluster_id < 2**64 for cluster_id in ids)
    assert derive_cluster_id(7, b"g") == derive_cluster_id(7, b"g")
    assert generation_of(History({}, 1)) == b""
    assert generation_of(History({GENERATION_KEY: entry(GENERATION_KEY, b"g", 1)}, 1)) == b"g"


def test_history_goes_on_only_at_the_same_etcd_and_not_backwards() -> None:
    header = rpc_pb2.ResponseHeader(cluster_id=4, revision=10)
    assert is_same_history(header, cluster_id=4, revision=10)
    assert not is_same_history(header, cluster_id=4, revision=11)
    assert not is_same_history(header, cluster_id=5, revision=9)


def test_a_history_starts_as_far_back_as_few_keys_were_changed() -> None:
    assert nearest_start([], 5, 3) == 5
    assert nearest_start([9, 7, 8], 5, 3) == 5
    assert nearest_start([9, 7, 8, 6], 5, 3) == 6
    assert nearest_start([9, 9, 9, 9, 6], 5, 3) == 9  # one commit of more: from there on none

"""The history against the plainest model there is: a copy of all keys for every revision."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdproxy.history import Compacted, Entry, History
from etcdproxy.policy import Interval

_KEYS = [b"a", b"a/1", b"a/2", b"b", b"b\0", b"b\xff", b"c"]
_key = st.sampled_from(_KEYS)
_commit = st.dictionaries(_key, st.booleans(), min_size=1, max_size=3)


def put(revision: int, key: bytes) -> Entry:
    return Entry(revision, key + b"@%d" % revision)


def replay(commits: list[dict[bytes, bool]], history: History) -> list[dict[bytes, Entry]]:
    """Applies commits (key → put or delete) and returns the model: the keys at every revision from base on."""
    model = [{key: entry for key in _KEYS if (entry := history.get(key))}]
    for number, commit in enumerate(commits):
        revision = history.base + number + 1 if number == 0 else history.revision + 1
        history.add(revision, [(key, put(revision, key) if is_put else None) for key, is_put in commit.items()])
        state = dict(model[-1])
        for key, is_put in commit.items():
            if is_put:
                state[key] = put(revision, key)
            else:
                state.pop(key, None)
        model.append(state)
    return model


@given(
    commits=st.lists(_commit, max_size=12),
    start=_key,
    end=st.one_of(st.none(), _key),
    limit=st.integers(0, 5),
    back=st.integers(0, 12),
)
@settings(max_examples=300)
def test_reads_any_kept_revision(
    commits: list[dict[bytes, bool]], start: bytes, end: bytes | None, limit: int, back: int
) -> None:
    history = History({b"a": put(7, b"a"), b"c": put(9, b"c")}, 10)
    model = replay(commits, history)
    revision = max(history.revision - back, history.base)
    interval = Interval(start, end)
    expected = [entry for key, entry in sorted(model[revision - 10].items()) if interval.holds(key)]
    page = history.read(interval, revision=revision, limit=limit)
    assert page.entries == (expected[:limit] if limit else expected)
    assert page.total == len(expected)
    assert page.more == (0 < limit < len(expected))


@given(commits=st.lists(_commit, min_size=1, max_size=12))
def test_a_pinned_read_does_not_move(commits: list[dict[bytes, bool]]) -> None:
    history = History({key: put(7, key) for key in (b"a", b"a/2", b"b", b"c")}, 10)
    intervals = [Interval(b"", None), Interval(b"a", b"b"), Interval(b"a/1", b"c"), Interval(b"b", b"b\0")]
    asked = [(interval, limit) for interval in intervals for limit in (0, 1, 2)]
    first = [history.read(interval, revision=10, limit=limit) for interval, limit in asked]
    for commit in commits:
        revision = history.revision + 1
        history.add(revision, [(key, put(revision, key) if is_put else None) for key, is_put in commit.items()])
        assert [history.read(interval, revision=10, limit=limit) for interval, limit in asked] == first


def test_commits_say_before_and_after() -> None:
    history = History({b"a": put(5, b"a")}, 9)
    history.add(10, [(b"a", put(10, b"a")), (b"b", put(10, b"b"))])
    history.add(12, [(b"a", None)])
    assert [commit.revision for commit in history.commits_from(10)] == [10, 12]
    [last] = history.commits_from(11)
    assert last.changes == ((b"a", put(10, b"a"), None),)
    assert list(history.commits_from(13)) == []


def test_old_revisions_are_not_applied_twice() -> None:
    history = History({}, 9)
    assert history.add(9, [(b"a", put(9, b"a"))]) is None
    assert history.add(10, [(b"a", put(10, b"a"))]) is not None
    assert history.add(10, [(b"b", put(10, b"b"))]) is None
    assert len(history) == 1


def test_bounds_are_kept_and_what_is_below_is_compacted() -> None:
    history = History({}, 9, max_events=10)
    for revision in range(10, 60):
        history.add(revision, [(b"a", put(revision, b"a"))])
        assert history.kept_events <= 10
        assert history.kept_bytes < 10 * 1000
    assert 48 <= history.base < 59
    with pytest.raises(Compacted) as compacted:
        history.commits_from(history.base)
    assert compacted.value.revision == history.base + 1
    with pytest.raises(Compacted):
        history.read(Interval(b"", None), revision=history.base - 1)
    assert history.read(Interval(b"", None), revision=history.base).entries == [put(history.base, b"a")]


def test_a_commit_bigger_than_the_bounds_is_kept_until_the_next() -> None:
    history = History({}, 9, max_events=2)
    history.add(10, [(b"%d" % number, put(10, b"")) for number in range(50)])
    assert len(list(history.commits_from(10))) == 1
    history.add(11, [(b"a", None)])
    with pytest.raises(Compacted):
        history.commits_from(10)


def test_an_empty_etcd_has_no_past() -> None:
    history = History({}, 1)
    history.add(2, [(b"a", put(2, b"a"))])
    assert [commit.revision for commit in history.commits_from(1)] == [2]


def test_many_pinned_readers_at_once() -> None:
    """More pinned revisions than views are kept: still exact, in any order of asking."""
    random_order = random.Random(1)
    history = History({}, 1)
    model = replay([{random_order.choice(_KEYS): random_order.random() < 0.7} for _ in range(100)], history)
    for revision in random_order.sample(range(1, 101), 100):
        found = history.read(Interval(b"", None), revision=revision).entries
        assert found == [entry for _, entry in sorted(model[revision - 1].items())]

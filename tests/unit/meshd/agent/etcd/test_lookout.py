from meshd.agent.etcd.lookout import Change, Lookout


class Caller:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


def change(key: str, revision: int, value: bytes | None = b"v") -> Change:
    return Change(key, value, 7, revision)


def tell(lookout: Lookout, *changes: Change) -> None:
    for each in changes:
        lookout.saw(each)
    lookout.passed(changes[-1].revision)


def test_what_others_do_is_told_once() -> None:
    called = Caller()
    lookout = Lookout(called)
    tell(lookout, change("a", 5), change("b", 5, None))
    assert lookout.take() == {"a": change("a", 5), "b": change("b", 5, None)}
    assert not lookout.is_strange
    assert called.calls == 1


def test_our_own_writes_are_not_strange() -> None:
    called = Caller()
    lookout = Lookout(called)
    lookout.begin()
    lookout.end(5)
    assert lookout.is_own(5)
    tell(lookout, change("a", 5))
    assert called.calls == 0


def test_an_event_that_comes_before_the_answer_is_judged_after_it() -> None:
    called = Caller()
    lookout = Lookout(called)
    lookout.begin()
    tell(lookout, change("a", 5), change("b", 6))
    assert not lookout.is_strange
    lookout.end(5)
    assert set(lookout.take()) == {"b"}


def test_what_we_have_written_over_is_forgotten() -> None:
    lookout = Lookout(Caller())
    lookout.begin()
    tell(lookout, change("a", 5), change("a", 6))
    lookout.end(6)
    assert lookout.take() == {}


def test_revisions_that_the_watch_has_passed_take_no_memory() -> None:
    lookout = Lookout(Caller())
    for revision in range(1, 100):
        lookout.begin()
        lookout.end(revision)
    lookout.passed(99)
    assert [revision for revision in range(1, 100) if lookout.is_own(revision)] == [99]


def test_a_transaction_that_changed_nothing_makes_nothing_ours() -> None:
    lookout = Lookout(Caller())
    lookout.begin()
    lookout.end(0)
    tell(lookout, change("a", 1))
    assert lookout.is_strange
